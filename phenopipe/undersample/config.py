"""Knobs of the undersample stage."""

from typing import Annotated

from pydantic import Field, PositiveInt

from phenopipe.knobs import Knobs

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class WellsKnobs(Knobs):
    """Filters by replication and by over-representation; the defaults are the paper's."""

    min_experiments: PositiveInt = 3
    """Distinct experiments in which a condition must have been seen."""
    min_wells: PositiveInt = 20
    """Distinct wells in which a condition must have been seen."""
    keep_positive_controls: Share = 0.1
    """Share of the positive controls that stays."""
    keep_empty: Share = 0.1
    """Share of the wells without any perturbation that stays."""
    keep_negative_controls: Share = 0.3
    """Share of the negative controls that stays."""
    seed: int = 0
    """Seed of the choice among the controls; a well's own id decides, not its neighbours."""
