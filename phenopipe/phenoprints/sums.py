"""Sums over experiments of what a combination needs to know of every condition.

Shape suffixes: C conditions of one judge, map type and level (here: units), N tests.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.combination import cauchy_score
from phenopipe.errors import UserError

UNIT = ("encoder", "map_type", "level", "kind", "perturbation", "gene", "concentration_um")
# Between the fields of a unit where it is one text, and in place of an empty field.
_BETWEEN, _NOTHING = "\x1f", "\x1e"
# What is kept of a unit, and with what it begins.
_BEGIN: dict[str, float] = {
    "score": 0.0,
    "weight": 0.0,
    "statistic": 0.0,
    "n_replicates": 0,
    "n_experiments": 0,
    "p_any": np.inf,
    "n_null": np.iinfo(np.int32).max,
    "last": -1,
}


class Sums:
    """Tests of any number of experiments, added one experiment after another.

    Parameters
    ----------
    ceiling : float
        Larger p-values are moved here.
    by_replicates : bool
        Whether an experiment weighs as much as it has replicates; else all alike.

    Notes
    -----
    About 150 bytes a unit, whatever the number of experiments. A unit's sums run in the order
    in which experiments are added, and know nothing of other units.
    """

    def __init__(self, ceiling: float, *, by_replicates: bool) -> None:
        self._ceiling, self._by_replicates = ceiling, by_replicates
        self._texts = pl.Categorical(pl.Categories.random())
        # The numbers are forgotten when no series is left that uses them.
        self._kept = pl.Series([], dtype=self._texts)
        self._n = self._added = 0
        self._of: dict[str, NDArray[np.float64]] = {name: np.empty(0) for name in _BEGIN}

    def add(self, tests: pl.DataFrame) -> None:
        """Add the tests of one experiment by one or more judges.

        Raises
        ------
        UserError
            If a judge has two p-values for one condition in the experiment.
        """
        if tests.is_empty():
            return
        fields = [pl.col(name).cast(pl.String).fill_null(_NOTHING) for name in UNIT]
        code = tests.select(pl.concat_str(fields, separator=_BETWEEN).cast(self._texts))
        code_N = code.to_series().to_physical().to_numpy()
        self._grow(int(code_N.max()) + 1)
        again_N = np.ones(len(code_N), dtype=bool)
        again_N[np.unique(code_N, return_index=True)[1]] = False
        again_N |= self._of["last"][code_N] == self._added
        if again_N.any():
            row = tests.filter(pl.Series(again_N)).select(*UNIT, "experiment").row(0)
            raise UserError(
                f"two p-values for {row}, wanted one a judge, condition, experiment"
            )
        weight_N = np.ones(len(code_N))
        if self._by_replicates:
            weight_N = tests["n_replicates"].cast(pl.Float64).to_numpy()
        added = {
            "score": _scores(tests, self._ceiling) * weight_N,
            "weight": weight_N,
            "statistic": tests["statistic"].to_numpy(),
            "n_replicates": tests["n_replicates"].to_numpy(),
            "n_experiments": 1,
        }
        for name, value_N in added.items():
            self._of[name][code_N] += value_N
        for name, column in (("p_any", "p_value"), ("n_null", "n_null")):
            least_N = np.minimum(self._of[name][code_N], tests[column].to_numpy())
            self._of[name][code_N] = least_N
        self._of["last"][code_N] = self._added

    def close_experiment(self) -> None:
        """Tell that what is added from now on comes from another experiment."""
        self._added += 1

    def _grow(self, n: int) -> None:
        self._n = max(self._n, n)
        if n > len(self._of["score"]):
            for name, begin in _BEGIN.items():
                more = np.full(max(n, 2 * len(self._of[name])) - len(self._of[name]), begin)
                self._of[name] = np.concatenate([self._of[name], more])

    def table(self) -> pl.DataFrame:
        """List the units, unsorted, with ``score`` (a weighted mean) and the counts."""
        texts = pl.Series(np.arange(self._n, dtype=np.uint32)).cat.to(self._texts)
        fields = texts.cast(pl.String).str.split_exact(_BETWEEN, len(UNIT)).struct.unnest()
        if fields.to_series(len(UNIT)).is_not_null().any():
            raise UserError("a perturbation or gene has a control character (1F) in its name")
        of = {name: values[: self._n] for name, values in self._of.items()}
        counts = {name: of[name] for name in ("n_replicates", "n_experiments", "n_null")}
        return fields.select(
            pl.col(f"field_{i}").replace(_NOTHING, None).alias(name)
            for i, name in enumerate(UNIT)
        ).with_columns(
            pl.col("concentration_um").cast(pl.Float64),
            *(pl.Series(name, values).cast(pl.Int32) for name, values in counts.items()),
            score=of["score"] / of["weight"],
            statistic=of["statistic"] / of["n_experiments"],
            p_any=of["p_any"],
        )


def _scores(tests: pl.DataFrame, ceiling: float) -> NDArray[np.float64]:
    """Cauchy variable of each p-value; the floor is that of its own null."""
    p_N, n_null_N = tests["p_value"].to_numpy(), tests["n_null"].to_numpy()
    score_N = np.empty(len(p_N))
    for n_null in np.unique(n_null_N).tolist():
        of_null = n_null_N == n_null
        score_N[of_null] = cauchy_score(p_N[of_null], floor=1 / n_null, ceiling=ceiling)
    return score_N
