"""Samples of wells before and after alignment, and whether experiments show in them.

Shape suffixes: N wells, D features, E features before alignment.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.formats.aligned import read_aligned
from phenopipe.formats.embeddings import read_block, read_well_ids
from phenopipe.formats.names import names_of
from phenopipe.seeds import generator
from phenopipe.separability import separability

Floats = NDArray[np.floating]
TOLD = {
    "cell_type": pl.String,
    "phase": pl.String,
    "accuracy": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "chance": pl.Float64,
    "n": pl.Int64,
}
Chooser = Callable[[pl.DataFrame], pl.DataFrame]


def files_by_encoder(paths: Sequence[Path]) -> dict[tuple[str, str], dict[str, Path]]:
    """Sort the files of experiments by screen and encoder."""
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for path in paths:
        names = names_of(path)
        key = (names.get("screen", ""), names.get("encoder", ""))
        found.setdefault(key, {})[names.get("experiment", "")] = path
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Sample:
    """Wells, and their embeddings before and after alignment, row by row."""

    wells: pl.DataFrame
    before: Floats
    after: Floats

    def apart(self, *, folds: int, seed: int) -> pl.DataFrame:
        """Tell how well experiments are told apart; see :func:`experiments_told_apart`."""
        return experiments_told_apart(
            self.wells, self.before, self.after, folds=folds, seed=seed
        )


def sample_encoder(
    aligned: Mapping[str, Path],
    embeddings: Mapping[str, Path],
    choose: Mapping[str, tuple[int, Chooser]],
    *,
    seed: int,
) -> dict[str, Sample]:
    """Draw samples of the wells of one encoder, as many of each experiment.

    Parameters
    ----------
    aligned, embeddings : mapping of str to Path
        Files of each experiment.
    choose : mapping of str to (int, callable)
        For each sample, how many wells are wanted of all experiments together, and what
        keeps the wells of an experiment that may be drawn.
    seed : int
        Seed of the draws.

    Returns
    -------
    dict of str to Sample
        The samples that hold any well. Each file is read once, and held alone.
    """
    shared = sorted(set(aligned) & set(embeddings))
    parts: dict[str, list[Sample]] = {name: [] for name in choose}
    for experiment in shared:
        wells, after_WD = read_aligned(aligned[experiment])
        row_of = {w: row for row, w in enumerate(read_well_ids(embeddings[experiment]))}
        # Rows in both files, in an order that no file decides.
        wells = wells.with_row_index("row_after").with_columns(
            row_before=pl.Series([row_of.get(w) for w in wells["well_id"]], dtype=pl.Int64)
        )
        wells = wells.drop_nulls("row_before").sort("well_id")
        before_WE = read_block(embeddings[experiment])
        for name, (n_wells, keep) in choose.items():
            kept = keep(wells)
            drawn = generator(seed, "sample", name, experiment).permutation(kept.height)
            part = kept[np.sort(drawn[: -(-n_wells // len(shared))])]
            before_ND = before_WE[part["row_before"].to_numpy()].astype(np.float32)
            after_ND = after_WD[part["row_after"].to_numpy()]
            parts[name].append(
                Sample(part.drop("row_before", "row_after"), before_ND, after_ND)
            )
    return {
        name: Sample(
            pl.concat([part.wells for part in found], how="diagonal_relaxed"),
            np.concatenate([part.before for part in found]),
            np.concatenate([part.after for part in found]),
        )
        for name, found in parts.items()
        if any(part.wells.height for part in found)
    }


def every_well(wells: pl.DataFrame) -> pl.DataFrame:
    """Keep all wells."""
    return wells


def held_out_controls(wells: pl.DataFrame) -> pl.DataFrame:
    """Keep negative controls that the transform was not fitted on."""
    return wells.filter(pl.col("role") == "negative_control", ~pl.col("fitted"))


def experiments_told_apart(
    wells: pl.DataFrame, before_NE: Floats, after_ND: Floats, *, folds: int, seed: int
) -> pl.DataFrame:
    """Balanced accuracy of telling experiments apart, before and after alignment.

    Returns
    -------
    DataFrame
        Columns of ``TOLD``: one row for each cell type with several experiments, and for
        all together, before and after; none where wells are too few to tell.
    """
    rows = []
    types = ["all", *sorted(wells["cell_type"].unique())]
    for cell_type in types if len(types) > 2 else types[1:]:
        of_type_N = np.ones(wells.height, dtype=bool)
        if cell_type != "all":
            of_type_N = (wells["cell_type"] == cell_type).to_numpy()
        label_N = wells["experiment"].to_numpy().astype(np.str_)[of_type_N]
        for phase, x in (("before", before_NE), ("after", after_ND)):
            rng = generator(seed, "apart", cell_type, phase)
            told = separability(x[of_type_N], label_N, rng=rng, folds=folds)
            if told is not None:
                rows.append({"cell_type": cell_type, "phase": phase, **vars(told)})
    return pl.DataFrame(rows, schema=TOLD)
