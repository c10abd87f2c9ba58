"""Step ``diversity``: how much of a screen's variety the manifest keeps.

Shape suffixes: W wells, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phenopipe.formats.aligned import read_aligned
from phenopipe.formats.parts import ROWS_A_PART
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_stamp, write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.phenoprints.config import DiversityKnobs

CONTROL = "negative_control"
TREATED = ("perturbation", "positive_control")
# For each screen and experiment, where its wells lie in a table.
Stretches = dict[tuple[str, str], list[tuple[int, int]]]


def effective_rank(covariance_DD: NDArray[np.float64]) -> float:
    """Count the directions in which something varies, each by how much does.

    Returns
    -------
    float
        exp of the entropy of the variances' shares: D if all directions vary alike, 1 if
        only one does; nan if nothing varies.

    References
    ----------
    Roy and Vetterli (2007), The effective rank: a measure of effective dimensionality,
    EUSIPCO; there of singular values, here of variances.

    Examples
    --------
    >>> effective_rank(np.eye(4)), effective_rank(np.diag([1.0, 0.0]))
    (4.0, 1.0)
    """
    variance_D = np.clip(np.linalg.eigvalsh(covariance_DD), 0.0, None)
    if not variance_D.sum() > 0:
        return float("nan")
    share_D = variance_D / variance_D.sum()
    share_D = share_D[share_D > 0]
    return float(np.exp(-(share_D * np.log(share_D)).sum()))


@dataclass
class Kept:
    """What is known of one set of wells, gathered experiment by experiment."""

    count: int = 0
    total: Any = 0.0
    products: Any = 0.0
    treated: int = 0
    different: int = 0

    def add(self, x_WD: NDArray[np.float64], is_treated_W: Any, is_different_W: Any) -> None:  # noqa: ANN401
        """Count the wells of one experiment in."""
        self.count += len(x_WD)
        self.total = self.total + x_WD.sum(axis=0)
        self.products = self.products + x_WD.T @ x_WD
        self.treated += int(is_treated_W.sum())
        self.different += int((is_treated_W & is_different_W).sum())

    def covariance(self) -> NDArray[np.float64]:
        """Covariance (D, D) of all wells that were counted."""
        mean_D = self.total / self.count
        covariance_DD: NDArray[np.float64] = self.products / self.count
        return covariance_DD - np.outer(mean_D, mean_D)


def unlike_controls(
    x_WD: NDArray[np.float64], is_control_W: NDArray[np.bool_], quantile: float
) -> NDArray[np.bool_]:
    """Tell which wells of one experiment lie farther out than a quantile of its controls.

    Notes
    -----
    Farther from the mean of the controls, by Euclidean distance between aligned embeddings.
    A control is measured from the mean of the others, as any other well is from the mean
    of wells that it is not part of.
    """
    controls_ND = x_WD[is_control_W]
    n = len(controls_ND)
    mean_D = controls_ND.mean(axis=0)
    distance_W = np.linalg.norm(x_WD - mean_D, axis=1)
    own_N = np.linalg.norm(controls_ND - mean_D, axis=1) * n / (n - 1)
    return np.asarray(distance_W > np.quantile(own_N, quantile))


def stretches(table: Path) -> Stretches:
    """Tell where the wells of each experiment lie in a table: (first row, rows) a stretch.

    The names of the experiments are read once, a part of the table at a time: a table of all
    experiments is not searched again for each of them.
    """
    found: Stretches = {}
    names = pl.scan_parquet(table, glob=False).select("screen", "experiment")
    for first in range(0, pq.read_metadata(table).num_rows, ROWS_A_PART):
        part = names.slice(first, ROWS_A_PART).collect()
        runs = part.select(pl.struct("screen", "experiment").rle()).unnest("screen")
        for n, screen, experiment in runs.unnest("value").iter_rows():
            found.setdefault((screen, experiment), []).append((first, n))
            first += n
    return found


def is_listed(wells: pl.DataFrame, table: Path, where: Stretches) -> NDArray[np.bool_]:
    """Tell which wells of one experiment a table lists; the table is never read whole."""
    ids = pl.scan_parquet(table, glob=False).select("well_id")
    parts = [
        ids.slice(first, n).collect()["well_id"]
        for name in wells.select("screen", "experiment").unique().rows()
        for first, n in where.get(name, [])
    ]
    listed = pl.concat([pl.Series("well_id", [], dtype=pl.String), *parts])
    return wells["well_id"].is_in(listed.implode()).to_numpy()


def diversity(
    aligned: Sequence[Path], before: Path, after: Path, knobs: DiversityKnobs
) -> list[dict[str, Any]]:
    """Compare the undersampled wells with those of the manifest, as one judge sees them.

    Parameters
    ----------
    aligned : list of Path
        Aligned embeddings of one judge in all experiments, read one at a time.
    before, after : Path
        Tables of the wells that undersampling left, and of those in the manifest.
    knobs : DiversityKnobs
        Settings.

    Returns
    -------
    list of dict
        Rows of tidy results: ``effective_rank`` and ``share_different``, the treated wells
        that lie farther from the controls' mean than ``knobs.quantile`` of the controls
        do; each ``before`` and ``after`` the choice. An experiment with fewer than two
        controls counts for the rank alone.
    """
    sets = {
        "before": (before, stretches(before), Kept()),
        "after": (after, stretches(after), Kept()),
    }
    for path in sorted(aligned):
        wells, x_WD = read_aligned(path)
        is_control_W = (wells["role"] == CONTROL).to_numpy()
        wide_WD = x_WD.astype(np.float64)
        treated_W = wells["role"].is_in(TREATED).to_numpy()
        different_W = np.zeros_like(treated_W)
        if is_control_W.sum() >= 2:
            different_W = unlike_controls(wide_WD, is_control_W, knobs.quantile)
        else:
            # One control has no distance from others: whether wells differ stays unknown.
            print(f"{path}: {is_control_W.sum()} wells of role {CONTROL}, wanted 2 to compare")
            treated_W = different_W
        for table, where, kept in sets.values():
            rows = is_listed(wells, table, where)
            kept.add(wide_WD[rows], treated_W[rows], different_W[rows])
    rows_out = []
    for when, (_, _, kept) in sets.items():
        if kept.count:
            rank = effective_rank(kept.covariance())
            rows_out.append(
                {"metric": f"effective_rank_{when}", "value": rank, "n": kept.count}
            )
        if kept.treated:
            share = kept.different / kept.treated
            rows_out.append(
                {"metric": f"share_different_{when}", "value": share, "n": kept.treated}
            )
    return rows_out


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``phenoprints_diversity``; peak memory: one experiment's wells."""
    files, knobs = parse_step(
        DiversityKnobs,
        inputs=["wells", "chosen", "aligned*"],
        outputs=["diversity"],
        names=["manifest"],
        doc=__doc__,
        argv=argv,
    )
    by_judge: dict[str, list[Path]] = {}
    for path in files.aligned:
        by_judge.setdefault(read_stamp(path)["names"]["encoder"], []).append(path)
    tables = [RESULTS.empty()]
    for judge, paths in sorted(by_judge.items()):
        rows = diversity(paths, files.wells, files.chosen, knobs)
        shared = {"encoder": judge, "block": 0, "trimmed": False, "source": files.manifest}
        tables.append(tidy(rows, benchmark="diversity", **shared))
    write_table(files.diversity, pl.concat(tables), RESULTS, files.stamp)


if __name__ == "__main__":
    run_step(main)
