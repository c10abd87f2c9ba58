"""Embeddings before and after alignment: samples, their principal plane, what batches tell.

Shape suffixes: N wells, D features, E features before alignment.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.formats.aligned import read_aligned
from phenopipe.formats.embeddings import read_block, read_well_ids
from phenopipe.report.gather import names_of
from phenopipe.report.separability import separability
from phenopipe.seeds import generator

Floats = NDArray[np.floating]


def files_by_encoder(paths: Sequence[Path]) -> dict[tuple[str, str], dict[str, Path]]:
    """Sort the files of experiments by screen and encoder."""
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for path in paths:
        names = names_of(path)
        key = (names.get("screen", ""), names.get("encoder", ""))
        found.setdefault(key, {})[names.get("experiment", "")] = path
    return dict(sorted(found.items()))


def matched(
    aligned: Path, embeddings: Path, well_ids: Sequence[str]
) -> tuple[pl.DataFrame, Floats, Floats]:
    """Read some wells of one experiment: facts, embeddings before and after alignment."""
    wells, after_ND = read_aligned(aligned)
    at_after = {well_id: row for row, well_id in enumerate(wells["well_id"])}
    at_before = {well_id: row for row, well_id in enumerate(read_well_ids(embeddings))}
    both = [w for w in well_ids if w in at_after and w in at_before]
    rows = [at_after[w] for w in both]
    before_NE = read_block(embeddings)[[at_before[w] for w in both]]
    return wells[rows], np.asarray(before_NE, dtype=np.float32), after_ND[rows]


def sample_encoder(
    aligned: Mapping[str, Path],
    embeddings: Mapping[str, Path],
    *,
    n_wells: int,
    seed: int,
    choose: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
) -> tuple[pl.DataFrame, Floats, Floats] | None:
    """Sample wells of all experiments of one encoder, as many from each.

    Parameters
    ----------
    aligned, embeddings : mapping of str to Path
        Files of each experiment.
    n_wells : int
        Wells wanted of all experiments together.
    seed : int
        Seed of the sample.
    choose : callable, optional
        Keeps the wells of an experiment that may be drawn; default all.

    Returns
    -------
    tuple or None
        Wells, embeddings before, embeddings after; None where no experiment has both.
    """
    shared = sorted(set(aligned) & set(embeddings))
    quota = -(-n_wells // max(len(shared), 1))
    parts = []
    for experiment in shared:
        wells, _ = read_aligned(aligned[experiment])
        ids = (choose(wells) if choose else wells)["well_id"].sort().to_list()
        rng = generator(seed, "scatter", experiment)
        drawn = rng.permutation(len(ids))[:quota]
        parts.append(
            matched(
                aligned[experiment], embeddings[experiment], [ids[i] for i in sorted(drawn)]
            )
        )
    if not any(wells.height for wells, _, _ in parts):
        return None
    frames = pl.concat([wells for wells, _, _ in parts], how="diagonal_relaxed")
    before_NE = np.concatenate([before for _, before, _ in parts])
    return frames, before_NE, np.concatenate([after for _, _, after in parts])


def held_out_controls(wells: pl.DataFrame) -> pl.DataFrame:
    """Keep negative controls that the transform was not fitted on."""
    return wells.filter(pl.col("role") == "negative_control", ~pl.col("fitted"))


def principal_plane(x_ND: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates on the first two principal components, and their shares of variance.

    Returns
    -------
    plane : float array of shape (n_wells, 2)
        Each axis points so that its largest value is positive, whatever the machine.
    shares : float array of shape (2,)
        Shares of the variance, from 0 to 1.
    """
    centred_ND = np.asarray(x_ND, dtype=np.float64) - np.mean(x_ND, axis=0)
    values_K, vectors_NK = _leading(centred_ND)
    plane_N2 = vectors_NK * values_K
    flip_2 = np.sign(plane_N2[np.abs(plane_N2).argmax(axis=0), np.arange(plane_N2.shape[1])])
    total = float((centred_ND**2).sum()) or 1.0
    return plane_N2 * np.where(flip_2 == 0, 1, flip_2), values_K**2 / total


def _leading(
    centred_ND: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, values, _ = np.linalg.svd(centred_ND, full_matrices=False)
    values_2, left_N2 = np.zeros(2), np.zeros((len(centred_ND), 2))
    found = min(2, len(values))
    values_2[:found], left_N2[:, :found] = values[:found], left[:, :found]
    return values_2, left_N2


def experiments_told_apart(
    wells: pl.DataFrame, before_NE: Floats, after_ND: Floats, *, folds: int, seed: int
) -> pl.DataFrame:
    """Balanced accuracy of telling experiments apart, before and after alignment.

    Returns
    -------
    DataFrame
        ``cell_type, phase, accuracy, low, high, chance, n``: one row for each cell type
        with several experiments, and for all together, before and after.
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
    return pl.DataFrame(rows)
