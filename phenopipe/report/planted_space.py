"""What alignment and arm correction do to what the simulator planted.

Shape suffixes: N wells, G genes, D features, B bootstraps.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.formats.aligned import read_aligned
from phenopipe.formats.wells import conditions
from phenopipe.report.config import TruthKnobs
from phenopipe.report.intervals import Row
from phenopipe.samples import Sample, held_out_controls, sample_encoder
from phenopipe.seeds import generator
from phenopipe.separability import separability

Floats = NDArray[np.floating]
CONTROL = "negative_control"


def alignment_rows(
    encoder: str,
    aligned: Mapping[str, Path],
    embeddings: Mapping[str, Path],
    planted: pl.DataFrame,
    knobs: TruthKnobs,
) -> list[Row]:
    """How well experiments, and gene groups, are told apart before and after alignment.

    Parameters
    ----------
    encoder : str
        Whose embeddings.
    aligned, embeddings : mapping of str to Path
        Files of each experiment.
    planted : DataFrame
        ``well_id, status, group``.
    knobs : TruthKnobs
        Settings.

    Returns
    -------
    list of mapping
        Balanced accuracy less chance. Experiments: negative controls that the transform was
        not fitted on, planted-inactive wells, and those among them that had no part in the
        middle of their experiment; within each cell type and overall. Gene groups: active
        wells, each experiment predicted from the others.
    """
    group_of = groups_of_active(planted)
    is_inactive = pl.col("well_id").is_in(
        planted.filter(status="inactive")["well_id"].implode()
    )
    wanted = {
        "controls": (knobs.max_wells, held_out_controls),
        "inactive": (knobs.max_wells, lambda wells: wells.filter(is_inactive)),
        "inactive held out": (
            knobs.max_wells,
            lambda wells: wells.filter(is_inactive, ~pl.col("fitted")),
        ),
        "active": (
            knobs.max_wells,
            lambda wells: wells.filter(pl.col("well_id").is_in(list(group_of))),
        ),
    }
    samples = sample_encoder(aligned, embeddings, wanted, seed=knobs.seed)
    rows: list[Row] = []
    for what in ("controls", "inactive", "inactive held out"):
        if what in samples:
            told = samples[what].apart(folds=knobs.folds, seed=knobs.seed)
            for one in told.iter_rows(named=True):
                source = f"{what}, {one['cell_type']}"
                rows.append(_over_chance(f"apart_{one['phase']}", encoder, source, one))
    if "active" in samples:
        rows += _group_rows(encoder, samples["active"], group_of, knobs)
    return rows


def groups_of_active(planted: pl.DataFrame) -> dict[str, str]:
    """Group of every well whose one perturbation is active."""
    active = planted.filter(status="active").drop_nulls("group")
    return dict(active.select("well_id", "group").iter_rows())


def _over_chance(metric: str, encoder: str, source: str, told: Mapping[str, float]) -> Row:
    chance = told["chance"]
    return {
        "metric": metric,
        "encoder": encoder,
        "source": source,
        "value": told["accuracy"] - chance,
        "low": told["low"] - chance,
        "high": told["high"] - chance,
        "n": int(told["n"]),
    }


def _group_rows(
    encoder: str, sample: Sample, group_of: Mapping[str, str], knobs: TruthKnobs
) -> list[Row]:
    """Tell gene groups apart on active wells of experiments that were not seen."""
    label_N = np.array([group_of[well_id] for well_id in sample.wells["well_id"]])
    experiment_N = sample.wells["experiment"].to_numpy().astype(np.str_)
    rows = []
    for phase, x in (("before", sample.before), ("after", sample.after)):
        rng = generator(knobs.seed, "groups", phase)
        told = separability(x, label_N, rng=rng, group_N=experiment_N)
        if told is not None:
            rows.append(_over_chance(f"groups_{phase}", encoder, "active wells", vars(told)))
    return rows


def arm_rows(
    encoder: str,
    aligned: Mapping[str, Path],
    arms: pl.DataFrame,
    truth: pl.DataFrame,
    knobs: TruthKnobs,
) -> list[Row]:
    """Arm bias among unexpressed genes of biased arms, and the share that correction removes.

    Parameters
    ----------
    encoder : str
        Whose embeddings.
    aligned : mapping of str to Path
        Aligned wells of each experiment.
    arms : DataFrame
        The arms format.
    truth : DataFrame
        The truth format; genes with status ``arm`` carry nothing but the bias.
    knobs : TruthKnobs
        Settings.

    Notes
    -----
    Bias: mean cosine of genes of one arm less that of genes of different arms. Genes as on
    the map: wells seen from the controls of their experiment, with or without the arm's
    offset, as a spherical mean. What is left counts as bias whatever its sign. An offset is
    the mean of the very genes that it is judged on: without any bias left, n independent
    genes from which their own mean is taken have a mean cosine of -1/(n - 1), so that much
    is added back on corrected arms.
    """
    biased = truth.filter(status="arm")["gene"].drop_nulls().unique()
    known = arms.filter(pl.col("gene").is_in(biased.implode()), pl.col("arm").is_not_null())
    known = known.sort("gene")
    if known["arm"].n_unique() < 2:
        return []
    offset_GD = known["offset"].to_numpy()
    genes = known["gene"].to_list()
    before_GD = gene_directions(aligned, genes, np.zeros_like(offset_GD))
    after_GD = gene_directions(aligned, genes, offset_GD)
    seen_G = np.linalg.norm(before_GD, axis=1) > 0
    arm_G = known["arm"].to_numpy().astype(np.str_)[seen_G]
    rng = generator(knobs.seed, "arms", encoder)
    drawn_BG = rng.multinomial(
        len(arm_G), np.full(len(arm_G), 1 / len(arm_G)), knobs.bootstraps
    )
    weights_BG = np.vstack([np.ones(len(arm_G)), drawn_BG])
    before_B = _arm_bias(before_GD[seen_G], arm_G, weights_BG)
    corrected_G = known["corrected"].to_numpy()[seen_G]
    after_B = _arm_bias(after_GD[seen_G], arm_G, weights_BG, corrected_G)
    there_B = before_B > 0
    removed_B = 1 - np.abs(after_B) / np.where(there_B, before_B, np.nan)
    shared = {"encoder": encoder, "source": "unexpressed genes", "n": len(arm_G)}
    found = {
        "arm_bias_before": before_B,
        "arm_bias_after": after_B,
        "arm_bias_removed": removed_B,
    }
    return [{**shared, "metric": name, **_with_interval(of_B)} for name, of_B in found.items()]


def gene_directions(
    aligned: Mapping[str, Path], genes: list[str], offset_GD: Floats
) -> NDArray[np.float64]:
    """Spherical mean of each gene's knockouts, offsets taken off; zero if it has none."""
    at = {gene: row for row, gene in enumerate(genes)}
    sum_GD = np.zeros(offset_GD.shape)
    for experiment in sorted(aligned):
        wells, x_WD = read_aligned(aligned[experiment])
        controls_W = (wells["role"] == CONTROL).to_numpy()
        if not controls_W.any():
            continue
        single = conditions(wells).filter(pl.col("n_perturbations") == 1, kind="knockout")
        gene_of = dict(single.select("well_id", "gene").iter_rows())
        row_W = np.array([at.get(gene_of.get(w, ""), -1) for w in wells["well_id"]])
        mine = row_W >= 0
        x_ND = x_WD[mine] - x_WD[controls_W].mean(axis=0, dtype=np.float64)
        x_ND = x_ND - offset_GD[row_W[mine]]
        length_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
        np.add.at(sum_GD, row_W[mine], x_ND / np.where(length_N1 > 0, length_N1, 1))
    return sum_GD


def _arm_bias(
    x_GD: NDArray[np.float64],
    arm_G: NDArray[np.str_],
    weight_BG: NDArray[np.float64],
    without_own_mean_G: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Mean cosine within arms less between arms, for each weighting of genes."""
    length_G1 = np.linalg.norm(x_GD, axis=1, keepdims=True)
    unit_GD = x_GD / np.where(length_G1 > 0, length_G1, 1)
    first, second = np.triu_indices(len(arm_G), k=1)
    cosine_P = np.einsum("pd,pd->p", unit_GD[first], unit_GD[second])
    same_P = arm_G[first] == arm_G[second]
    if without_own_mean_G is not None:
        n_of_arm = dict(zip(*np.unique(arm_G, return_counts=True), strict=True))
        lost_G = [1 / max(n_of_arm[arm] - 1, 1) for arm in arm_G] * without_own_mean_G
        cosine_P = cosine_P + np.where(same_P, lost_G[first], 0.0)
    weight_BP = weight_BG[:, first] * weight_BG[:, second]
    within = (weight_BP * same_P) @ cosine_P / np.maximum((weight_BP * same_P).sum(axis=1), 1)
    other = ~same_P
    between = (weight_BP * other) @ cosine_P / np.maximum((weight_BP * other).sum(axis=1), 1)
    return np.asarray(within - between)


def _with_interval(of_B: NDArray[np.float64]) -> Row:
    """Take the first number as the value, the others as its resamples."""
    low, high = np.nanquantile(of_B[1:], [0.025, 0.975])
    return {"value": float(of_B[0]), "low": float(low), "high": float(high)}
