"""Aligned wells as every benchmark wants them: one treatment each, origin at the controls.

Shape suffixes: W wells, D features, G groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.config import TreatedKnobs
from phenopipe.errors import UserError
from phenopipe.formats.aligned import read_aligned
from phenopipe.formats.tables import read_stamp
from phenopipe.formats.wells import conditions

Floats = NDArray[np.floating]
# What a treated well carries beside the columns of the wells format.
TREATMENT = ("perturbation", "kind", "gene", "guide", "concentration_um", "background")


@dataclass(frozen=True)
class Treated:
    """Wells with one treatment or none, their vectors, and facts for the results.

    Attributes
    ----------
    wells : DataFrame
        Columns of the wells format without ``treatments``, and the one treatment's
        ``perturbation, kind, gene, guide, concentration_um, background`` (null if none).
    x_WD : float array of shape (n_wells, n_features)
        Aligned embeddings.
    facts : mapping
        ``screen``, ``block``, ``trimmed``: columns of every row of results.
    """

    wells: pl.DataFrame
    x_WD: Floats
    facts: Mapping[str, Any]

    def take(self, mask_W: pl.Series) -> "Treated":
        """Keep the wells whose mask is true; null counts as false."""
        mask_W = mask_W.fill_null(False)
        return replace(self, wells=self.wells.filter(mask_W), x_WD=self.x_WD[mask_W.to_numpy()])


def read_treated(
    aligned: Sequence[Path], arms: pl.DataFrame | None, knobs: TreatedKnobs
) -> Treated:
    """Read aligned wells, choose, correct for arms, and put the origin at the controls.

    Parameters
    ----------
    aligned : list of Path
        Aligned embeddings, one file an experiment, in any order.
    arms : DataFrame or None
        ``gene, corrected, offset``: what to take off the wells of each gene.
    knobs : TreatedKnobs
        Which wells enter and which are the origin.

    Raises
    ------
    UserError
        If there is no file, the files differ in width, or no well has the origin's role.
    """
    if not aligned:
        raise UserError("no aligned embeddings given, wanted at least one experiment")
    read = [read_aligned(path) for path in aligned]
    for path, (_, x_WD) in zip(aligned, read, strict=True):
        if x_WD.shape[1] != read[0][1].shape[1]:
            raise UserError(
                f"{path}: {x_WD.shape[1]} features, wanted {read[0][1].shape[1]}"
                f" as in {aligned[0]}"
            )
    wells = pl.concat([wells for wells, _ in read], how="diagonal")
    x_WD = np.concatenate([x_WD for _, x_WD in read])
    order_W = wells["well_id"].arg_sort().to_numpy()
    wells, x_WD = wells[order_W], x_WD[order_W]
    facts = {
        "screen": "+".join(wells["screen"].unique().sort()),
        "block": int(read_stamp(aligned[0]).get("block") or 0),
        "trimmed": bool(read_stamp(aligned[0]).get("trimmed")),
    }
    treated = single_treatments(wells, x_WD, facts)
    if knobs.cell_type is not None:
        treated = treated.take(treated.wells["cell_type"] == knobs.cell_type)
    if knobs.background is not None:
        wanted = "" if knobs.background == "none" else knobs.background
        # Controls without any treatment have no background of their own to compare.
        treated = treated.take(treated.wells["background"].fill_null(wanted) == wanted)
    x_WD = treated.x_WD - origin(treated, knobs.origin)
    if arms is not None:
        # Only a cut chromosome has the bias: an siRNA against the same gene does not.
        cut = pl.when(pl.col("kind") == "knockout").then("gene")
        subtract_arm_offsets(x_WD, treated.wells.select(cut.alias("gene"))["gene"], arms)
    return replace(treated, x_WD=x_WD)


def single_treatments(wells: pl.DataFrame, x_WD: Floats, facts: Mapping[str, Any]) -> Treated:
    """Give wells their treatment's columns; wells with several treatments are left out."""
    listed = conditions(wells)
    single = listed.filter(pl.col("n_perturbations") == 1).select("well_id", *TREATMENT)
    several_W = wells["well_id"].is_in(
        listed.filter(pl.col("n_perturbations") > 1)["well_id"].to_list()
    )
    joined = wells.drop("treatments").join(
        single, on="well_id", how="left", maintain_order="left"
    )
    return Treated(joined, x_WD, facts).take(~several_W)


def origin(treated: Treated, role: str) -> NDArray[np.float32]:
    """Mean of the wells of one role, summed in double precision.

    Raises
    ------
    UserError
        If no well has that role.
    """
    is_origin_W = (treated.wells["role"] == role).to_numpy()
    if not is_origin_W.any():
        raise UserError(f"no well of role {role!r} among {len(is_origin_W)}, wanted some")
    mean_D: NDArray[np.float32] = (
        treated.x_WD[is_origin_W].mean(axis=0, dtype=np.float64).astype(np.float32)
    )
    return mean_D


def subtract_arm_offsets(x_WD: Floats, gene_W: pl.Series, arms: pl.DataFrame) -> None:
    """Take each corrected gene's arm offset off its wells, in place.

    Raises
    ------
    UserError
        If the offsets are not as wide as the embeddings.
    """
    arms = arms.filter("corrected")
    if not arms.height:
        return
    offset_GD = arms["offset"].to_numpy()
    if offset_GD.shape[1] != x_WD.shape[1]:
        raise UserError(
            f"arm offsets have {offset_GD.shape[1]} features, wanted {x_WD.shape[1]}"
        )
    at = {gene: row for row, gene in enumerate(arms["gene"])}
    rows_W = np.array([at.get(gene, -1) for gene in gene_W])
    has_W = rows_W >= 0
    x_WD[has_W] -= offset_GD[rows_W[has_W]]


def unit_rows(x_ND: Floats, names: Sequence[str] | None = None) -> NDArray[np.float64]:
    """Scale each row to length one, in double precision.

    Raises
    ------
    UserError
        If a row has length zero or is not finite, so that it points nowhere.
    """
    x_ND = np.asarray(x_ND, dtype=np.float64)
    length_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    bad_N = ~(np.isfinite(length_N1[:, 0]) & (length_N1[:, 0] > 0))
    if bad_N.any():
        at = int(np.flatnonzero(bad_N)[0])
        name = f"row {at}" if names is None else str(names[at])
        raise UserError(f"{name}: an embedding of length {length_N1[at, 0]:g} points nowhere")
    unit_ND: NDArray[np.float64] = x_ND / length_N1
    return unit_ND
