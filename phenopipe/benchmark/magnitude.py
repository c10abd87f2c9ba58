"""Step ``magnitude``: how far each perturbation moves the cells away from the controls.

Shape suffixes: N, M rows of two samples, W wells, C controls, D features, K null draws.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from phenopipe.benchmark.config import MagnitudeKnobs
from phenopipe.benchmark.portions import (
    WELLS_A_PORTION,
    Load,
    gather,
    loads_of,
    portions,
    survey,
)
from phenopipe.benchmark.treated import Floats, Treated, TreatedFiles
from phenopipe.errors import UserError
from phenopipe.formats.arms import ARMS
from phenopipe.formats.benchmarks import MAGNITUDES
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_table, write_table
from phenopipe.formats.wells import CONDITION
from phenopipe.knobs import parse_step, run_step
from phenopipe.seeds import generator
from phenopipe.threads import side_by_side

GENE = ("kind", "gene")
ROWS_A_BLOCK, ROWS_A_PASS = 4_096, 256
# Squared distances under this share of the squared lengths lose digits in a product.
NEAR = 1e-3


def energy_distance(x_ND: Floats, y_MD: Floats) -> float:
    """Energy distance between two samples of embeddings.

    Parameters
    ----------
    x_ND, y_MD : float arrays of shapes (n, n_features) and (m, n_features)
        The samples.

    Returns
    -------
    float
        2 E|X-Y| - E|X-X'| - E|Y-Y'| with Euclidean distances, all n² and m² ordered pairs
        among them (the V-statistic): 0 for equal samples, never negative.

    Notes
    -----
    Celik et al. (2024). The public reference clamps distances at 1e-4, which makes its
    values smaller by 1e-4 (1/n + 1/m).

    Examples
    --------
    >>> energy_distance(np.array([[0.0]]), np.array([[3.0], [5.0]]))
    7.0
    """
    return 2 * mean_distance(x_ND, y_MD) - mean_distance(x_ND, x_ND) - mean_distance(y_MD, y_MD)


def mean_distance(x_ND: Floats, y_MD: Floats) -> float:
    """Mean Euclidean distance over all pairs of rows, in blocks and double precision."""
    total = 0.0
    for start in range(0, len(x_ND), ROWS_A_BLOCK):
        total += float(cdist(x_ND[start : start + ROWS_A_BLOCK], y_MD).sum())
    return total / (len(x_ND) * len(y_MD))


def squares(x_ND: Floats) -> NDArray[np.floating]:
    """Squared length of each row."""
    return np.asarray(np.einsum("nd,nd->n", x_ND, x_ND))


def distances(
    x_ND: Floats, x_N: NDArray[np.floating], y_MD: Floats, y_M: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Euclidean distances of all pairs of rows, of shape (n, m), by one matrix product.

    Parameters
    ----------
    x_ND, y_MD : float arrays of shapes (n, n_features) and (m, n_features)
        The rows.
    x_N, y_M : float arrays of shapes (n,) and (m,)
        Their :func:`squares`.

    Notes
    -----
    |x - y|² = |x|² + |y|² - 2 x·y loses digits where points are much nearer to each other
    than to the origin; such pairs are computed again, from their difference.
    """
    square_NM = np.asarray(x_ND @ y_MD.T, dtype=np.float64)
    square_NM *= -2
    scale_NM = x_N[:, None] + y_M
    square_NM += scale_NM
    scale_NM *= NEAR
    n, m = np.nonzero(square_NM < scale_NM)
    for start in range(0, len(n), ROWS_A_BLOCK):
        part = slice(start, start + ROWS_A_BLOCK)
        apart_PD = x_ND[n[part]] - y_MD[m[part]]
        square_NM[n[part], m[part]] = np.einsum("pd,pd->p", apart_PD, apart_PD)
    return np.sqrt(square_NM, out=square_NM)


class Null(NamedTuple):
    """Energy distances of random controls, and what a condition is held against with them.

    Attributes
    ----------
    energy_K : float array of shape (n_draws,)
        Of n random controls from all others.
    rest_M : int array of shape (n_controls - n,)
        A random choice of as many controls as each draw was held against.
    own : float
        Mean distance among these.
    """

    energy_K: NDArray[np.float64]
    rest_M: NDArray[np.int64]
    own: float


class Controls:
    """Control wells, and the distances among them, computed once.

    Parameters
    ----------
    x_CD : float array of shape (n_controls, n_features)
        Control embeddings.
    """

    def __init__(self, x_CD: Floats) -> None:
        x_CD = np.asarray(x_CD, dtype=np.float64)
        self.center_D = x_CD.mean(axis=0)
        self.x_CD = x_CD - self.center_D
        self.square_C = squares(self.x_CD)
        self.distance_CC = np.empty((len(x_CD), len(x_CD)))
        for start in range(0, len(x_CD), ROWS_A_PASS):
            part = slice(start, start + ROWS_A_PASS)
            self.distance_CC[part] = distances(
                self.x_CD[part], self.square_C[part], self.x_CD, self.square_C
            )
        self.sum_C = self.distance_CC.sum(axis=1)
        self.total = float(self.sum_C.sum())

    def energy(self, x_ND: Floats) -> float:
        """Energy distance of a sample from the controls."""
        return self.judge(x_ND, None)[0]

    def judge(self, x_ND: Floats, null: Null | None) -> tuple[float, float | None]:
        """Energy distance of a sample from the controls, and the p-value in a null of its size.

        Notes
        -----
        A V-statistic shrinks with both samples, so the p-value is that of the distance from
        as many controls as each draw of the null was held against.
        """
        x_ND = np.asarray(x_ND, dtype=np.float64) - self.center_D
        square_N = squares(x_ND)
        across_C = distances(x_ND, square_N, self.x_CD, self.square_C).mean(axis=0)
        inside = float(distances(x_ND, square_N, x_ND, square_N).mean())
        energy = float(2 * across_C.mean()) - inside - self.total / len(self.x_CD) ** 2
        if null is None:
            return energy, None
        of_size = float(2 * across_C[null.rest_M].mean()) - inside - null.own
        found = int((null.energy_K >= of_size).sum())
        return energy, max(found, 1) / len(null.energy_K)

    def null(self, n: int, draws: int, rng: np.random.Generator) -> Null:
        """Energy distance of random controls from all other controls.

        Parameters
        ----------
        n : int
            Wells in each draw: the statistic depends on it.
        draws : int
            Number of draws.
        rng : Generator
            Source of randomness.

        Returns
        -------
        Null
            Sums over the distances among controls, so that no distance is computed again.
        """
        n_controls = len(self.x_CD)
        rest = n_controls - n
        null_K = np.empty(draws)
        for draw in range(draws):
            at_N = rng.choice(n_controls, n, replace=False, shuffle=False)
            inside = float(self.distance_CC[np.ix_(at_N, at_N)].sum())
            across = float(self.sum_C[at_N].sum()) - inside
            outside = self.total - 2 * across - inside
            null_K[draw] = 2 * across / (n * rest) - inside / n**2 - outside / rest**2
        rest_M = rng.choice(n_controls, rest, replace=False, shuffle=False)
        own = float(self.distance_CC[np.ix_(rest_M, rest_M)].mean())
        return Null(null_K, rest_M, own)


def magnitudes(treated: Treated | TreatedFiles, knobs: MagnitudeKnobs) -> pl.DataFrame:
    """Energy distance of every condition from the controls, with its null.

    Parameters
    ----------
    treated : Treated or TreatedFiles
        Wells that pass qc: at hand, or on disk, where no more than a portion of them and
        those of one file are held.
    knobs : MagnitudeKnobs
        The step's settings.

    Returns
    -------
    DataFrame
        The magnitudes format. The null of a condition with n wells is n controls against
        the others; its p-value holds it against as many.

    Raises
    ------
    UserError
        If there are too few controls, or no condition has enough wells.
    """
    loads = loads_of(treated)
    controls = Controls(_draw_controls(loads, knobs))
    keys = list(GENE if knobs.level == "gene" else CONDITION)
    roles = sorted({"perturbation", "positive_control"} - {knobs.controls})
    enters = pl.col("role").is_in(roles) & pl.col(keys[1]).is_not_null()
    listed = survey(loads, enters, keys)
    table = listed.group_by(keys).agg(pl.exclude("n_wells").first(), pl.col("n_wells").sum())
    enough = table.filter(pl.col("n_wells") >= knobs.min_wells)
    if not enough.height:
        raise UserError(
            f"none of {table.height} conditions has {knobs.min_wells} wells, wanted some"
        )
    nulls = {n: _null(controls, n, knobs) for n in sorted(enough["n_wells"].unique())}

    def measure(condition: tuple[dict[str, Any], Floats]) -> dict[str, Any]:
        row, x_ND = condition
        null = nulls[row["n_wells"]]
        energy, p_value = controls.judge(x_ND, null)
        mean = None if null is None else float(null.energy_K.mean())
        return row | {"energy_distance": energy, "null": mean, "p_value": p_value}

    measured: list[dict[str, Any]] = []
    for portion in portions(listed, enough, keys, WELLS_A_PORTION):
        gathered = gather(loads, enters, listed, portion, keys)
        rows = portion.iter_rows(named=True)
        measured += side_by_side(measure, zip(rows, gathered, strict=True))
    schema = {name: dtype for name, (dtype, _) in MAGNITUDES.columns.items()}
    columns = {name: [row.get(name) for row in measured] for name in schema}
    return pl.DataFrame(columns, schema=schema).sort(keys)


def _null(controls: Controls, n: int, knobs: MagnitudeKnobs) -> Null | None:
    """Draw the null for n wells; None where the controls are too few to be split."""
    if 2 * n > len(controls.x_CD):
        print(f"{len(controls.x_CD)} controls are too few for a null of {n} wells")
        return None
    return controls.null(n, knobs.null_draws, generator(knobs.seed, "magnitude", n))


def _draw_controls(loads: Sequence[Load], knobs: MagnitudeKnobs) -> Floats:
    """Embeddings of the control wells, a seeded choice of them where there are many."""
    is_control = pl.col("role") == knobs.controls
    if knobs.held_out_controls:
        is_control &= ~pl.col("fitted")
    n_controls = [load().wells.filter(is_control).height for load in loads]
    total = sum(n_controls)
    if total < 2:
        held_out = " that no fit saw" if knobs.held_out_controls else ""
        raise UserError(
            f"{total} wells of role {knobs.controls!r}{held_out}, wanted at least 2"
        )
    drawn_C = np.arange(total)
    if total > knobs.max_controls:
        rng = generator(knobs.seed, "magnitude", "controls")
        drawn_C = np.sort(rng.choice(drawn_C, knobs.max_controls, replace=False))
    first, parts = 0, []
    for load, n in zip(loads, n_controls, strict=True):
        mine_C = drawn_C[(drawn_C >= first) & (drawn_C < first + n)] - first
        first += n
        if len(mine_C):
            treated = load()
            at_C = treated.wells.select(is_control).to_series().fill_null(value=False)
            parts.append(treated.x_WD[np.flatnonzero(at_C.to_numpy())[mine_C]])
    return np.concatenate(parts)


def summarize_magnitudes(table: pl.DataFrame, knobs: MagnitudeKnobs) -> list[dict[str, Any]]:
    """Rows of results: mean and spread of the energy distance over conditions.

    Returns
    -------
    list of mapping
        Metrics ``energy_distance`` (mean, interval by resampling conditions) and
        ``energy_distance_mad`` (median absolute deviation from the median, not scaled:
        Table 3's "±"); of the conditions with a null ``energy_distance_null`` (mean of the
        nulls) and ``share_below_0.01`` of the p-values.
    """
    rng = generator(knobs.seed, "magnitude", "bootstrap")
    energy = table["energy_distance"].to_numpy()
    drawn = rng.integers(len(energy), size=(knobs.bootstraps, len(energy)))
    low, high = np.quantile(energy[drawn].mean(axis=1), [0.025, 0.975])
    mad = np.median(np.abs(energy - np.median(energy)))
    rows: list[dict[str, Any]] = [
        {"metric": "energy_distance", "value": energy.mean(), "low": low, "high": high},
        {"metric": "energy_distance_mad", "value": mad},
    ]
    judged = table.drop_nulls("p_value")
    if judged.height:
        small = (judged["p_value"] < 0.01).mean()
        rows += [
            {"metric": "energy_distance_null", "value": judged["null"].mean()}
            | {"n": judged.height},
            {"metric": "share_below_0.01", "value": small, "n": judged.height},
        ]
    shared = {"source": knobs.level, "n": table.height, "seed": knobs.seed}
    return [{**shared, **row} for row in rows]


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``benchmark_magnitude``."""
    files, knobs = parse_step(
        MagnitudeKnobs,
        inputs=["aligned*", "arms?"],
        outputs=["magnitude", "magnitude_perturbations"],
        names=["benchmark", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    arms = read_table(files.arms, ARMS) if files.arms else None
    treated = TreatedFiles(files.aligned, arms, knobs)
    table = magnitudes(treated, knobs)
    results = tidy(
        summarize_magnitudes(table, knobs),
        encoder=files.encoder,
        benchmark=files.benchmark,
        **treated.facts,
    )
    write_table(files.magnitude, results, RESULTS, files.stamp)
    write_table(files.magnitude_perturbations, table, MAGNITUDES, files.stamp)


if __name__ == "__main__":
    run_step(main)
