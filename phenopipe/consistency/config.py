"""Knobs of the consistency stage."""

from typing import Literal

from pydantic import Field, PositiveInt

from phenopipe.knobs import Knobs, Unique


class PvaluesKnobs(Knobs):
    """Settings of the permutation test of replicate consistency."""

    n_null: PositiveInt = 10_000
    """Random sets of each size (K in Eq. 3); no p-value is smaller than 1/K. Wanted: at
    least 100 for each experiment that a condition is combined over."""
    null: Literal["experiment", "address"] = "experiment"
    """Where null sets come from. experiment: anywhere on its plates. address: from where the
    replicates lie, well by well: at fixed addresses, as in RxRx3, a condition that does nothing
    is called for its position about half as often (benchmarks/calibration.py)."""
    levels: Unique[Literal["condition", "gene"]] = Field(("condition", "gene"), min_length=1)
    """What gets a p-value: each condition; each gene, from all guides, siRNAs or constructs."""
    controls_in_pool: bool = False
    """Whether null sets may hold controls and empty wells, too."""
    min_labels: int = Field(default=10, ge=2)
    """A map type with fewer different labels among its own wells draws its null from all
    kinds of perturbation in the same cell type and background."""
    seed: int = 0
    """Seed of the draws; each experiment, map type and level has draws of its own."""
