"""Aligned wells as every benchmark wants them: one treatment each, origin at the controls.

Shape suffixes: W wells, D features, G groups.
"""

from collections.abc import Iterator, Mapping, Sequence
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
LAYOUT = ("experiment", "layout", "cell_type")
ROWS_A_PASS = 1_024
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


class TreatedFiles:
    """Aligned wells on disk: every file was looked at once, none is held.

    Parameters
    ----------
    aligned : list of Path
        Aligned embeddings, one file an experiment, in any order.
    arms : DataFrame or None
        ``gene, corrected, offset``: what to take off the wells of each gene.
    knobs : TreatedKnobs
        Which wells enter and which are the origin.

    Attributes
    ----------
    facts : mapping
        ``screen``, ``block``, ``trimmed``: columns of every row of results.
    layouts : DataFrame
        ``experiment, layout, cell_type`` of wells with a known perturbation.

    Raises
    ------
    UserError
        If there is no file, the files differ in width, no well has the origin's role, or
        none the cell type or the background that is wanted.
    """

    def __init__(
        self, aligned: Sequence[Path], arms: pl.DataFrame | None, knobs: TreatedKnobs
    ) -> None:
        if not aligned:
            raise UserError("no aligned embeddings given, wanted at least one experiment")
        self.arms = arms
        self.knobs = knobs
        screens: set[str] = set()
        layouts = []
        total_D: NDArray[np.float64] | None = None
        n_origin = n_wells = 0
        first: dict[Path, str] = {}
        self.paths_of: dict[str, list[Path]] = {}
        offered: dict[str, set[str]] = {"cell_type": set(), "background": set()}
        for path in aligned:
            whole = single_treatments(*read_aligned(path), {})
            for name, values in offered.items():
                values |= {value or "none" for value in whole.wells[name].drop_nulls()}
            one = self._chosen(whole)
            if total_D is None:
                total_D = np.zeros(one.x_WD.shape[1])
            if one.x_WD.shape[1] != len(total_D):
                raise UserError(
                    f"{path}: {one.x_WD.shape[1]} features, wanted {len(total_D)}"
                    f" as in {aligned[0]}"
                )
            is_origin_W = (one.wells["role"] == knobs.origin).to_numpy()
            total_D += one.x_WD[is_origin_W].sum(axis=0, dtype=np.float64)
            n_origin += int(is_origin_W.sum())
            n_wells += one.wells.height
            screens |= set(one.wells["screen"])
            first[path] = str(one.wells["well_id"].min() or "")
            for name in one.wells["experiment"].unique():
                self.paths_of.setdefault(name, []).append(path)
            known = (pl.col("role") == "perturbation") & pl.col("perturbation").is_not_null()
            layouts.append(one.wells.filter(known).select(LAYOUT).unique())
        for name, values in offered.items():
            wanted = getattr(knobs, name)
            if wanted is not None and wanted not in values:
                raise UserError(f"no well has {name} {wanted!r}, found {sorted(values)}")
        if total_D is None or not n_origin:
            raise UserError(f"no well of role {knobs.origin!r} among {n_wells}, wanted some")
        self.origin_D: NDArray[np.float32] = np.asarray(total_D / n_origin, dtype=np.float32)
        # By their wells, so that sums do not depend on the order of the files.
        self.paths = sorted(aligned, key=lambda path: (first[path], str(path)))
        self.layouts = pl.concat(layouts).unique().sort(LAYOUT)
        stamp = read_stamp(aligned[0])
        self.facts: Mapping[str, Any] = {
            "screen": "+".join(sorted(screens)),
            "block": int(stamp.get("block") or 0),
            "trimmed": bool(stamp.get("trimmed")),
        }

    def __iter__(self) -> Iterator[Treated]:
        """One file after another, in the order of their wells."""
        return (self.read(path) for path in self.paths)

    def read(self, path: Path) -> Treated:
        """Wells of one file, corrected for arms, with the origin at the controls."""
        one = self._chosen(single_treatments(*read_aligned(path), {}))
        x_WD = one.x_WD - self.origin_D
        if self.arms is not None:
            # Only a cut chromosome has the bias: an siRNA against the same gene does not.
            cut = pl.when(pl.col("kind") == "knockout").then("gene")
            gene_W = one.wells.select(cut.alias("gene"))["gene"]
            subtract_arm_offsets(x_WD, gene_W, self.arms)
        return Treated(one.wells, x_WD, self.facts)

    def of(self, experiments: Sequence[str]) -> Treated:
        """Wells of some experiments, sorted by name."""
        paths = dict.fromkeys(p for name in experiments for p in self.paths_of[name])
        treated = together([self.read(path) for path in paths])
        return treated.take(treated.wells["experiment"].is_in(list(experiments)))

    def _chosen(self, treated: Treated) -> Treated:
        """Wells of one file that enter, as aligned."""
        cell_type, background = self.knobs.cell_type, self.knobs.background
        if cell_type is not None:
            treated = treated.take(treated.wells["cell_type"] == cell_type)
        if background is not None:
            wanted = "" if background == "none" else background
            # Controls without any treatment have no background of their own to compare.
            treated = treated.take(treated.wells["background"].fill_null(wanted) == wanted)
        return treated


def read_treated(
    aligned: Sequence[Path], arms: pl.DataFrame | None, knobs: TreatedKnobs
) -> Treated:
    """Read aligned wells, choose, correct for arms, and put the origin at the controls.

    Parameters and errors are those of :class:`TreatedFiles`; all wells are held.
    """
    return together(list(TreatedFiles(aligned, arms, knobs)))


def together(parts: Sequence[Treated]) -> Treated:
    """Put wells of several files under one another, sorted by name."""
    wells = pl.concat([one.wells for one in parts], how="diagonal")
    x_WD = np.concatenate([one.x_WD for one in parts])
    order_W = wells["well_id"].arg_sort().to_numpy()
    return Treated(wells[order_W], x_WD[order_W], parts[0].facts)


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
    # Typed, since an experiment may have no well that enters.
    rows_W = np.array([at.get(gene, -1) for gene in gene_W], dtype=np.int64)
    has_W = rows_W >= 0
    x_WD[has_W] -= offset_GD[rows_W[has_W]]


def unit_rows(x_ND: Floats, names: Sequence[str] | None = None) -> NDArray[np.float64]:
    """Scale each row to length one, in double precision.

    Raises
    ------
    UserError
        If a row has length zero or is not finite, so that it points nowhere.
    """
    unit_ND = np.array(x_ND, dtype=np.float64)
    length_N1 = np.empty((len(unit_ND), 1))
    for start in range(0, len(unit_ND), ROWS_A_PASS):
        part = slice(start, start + ROWS_A_PASS)
        length_N1[part] = np.linalg.norm(unit_ND[part], axis=1, keepdims=True)
    bad_N = ~(np.isfinite(length_N1[:, 0]) & (length_N1[:, 0] > 0))
    if bad_N.any():
        at = int(np.flatnonzero(bad_N)[0])
        name = f"row {at}" if names is None else str(names[at])
        raise UserError(f"{name}: an embedding of length {length_N1[at, 0]:g} points nowhere")
    unit_ND /= length_N1
    return unit_ND
