"""Which conditions have a phenoprint, and which wells that keeps.

A test is a row of the combined p-values: one judge, map type, level and condition. A
target is something that a well can be kept for: a condition that was applied to it.
"""

from collections.abc import Collection, Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.formats.applied import Applied, Mask
from phenopipe.formats.wells import CONDITION

# How a test reaches the conditions that it keeps, by level and rescue.
_REACH = {
    ("condition", "condition"): CONDITION,
    ("condition", "perturbation"): ("kind", "perturbation"),
    ("gene", "condition"): ("kind", "gene"),
    ("gene", "perturbation"): ("kind", "gene"),
}
P_OF = {"combined": "p_value", "any_experiment": "p_any"}
Ranks = NDArray[np.int64]


class Judgement:
    """Targets and the tests that could keep them.

    Parameters
    ----------
    targets : DataFrame
        ``kind, perturbation, concentration_um, gene``, one row a target.
    tests : DataFrame
        Combined p-values of all judges.
    counted_T : bool array of shape (n_targets,), optional
        Targets that some well with something to test has; the others count nowhere.
    """

    def __init__(
        self, targets: pl.DataFrame, tests: pl.DataFrame, counted_T: Mask | None = None
    ) -> None:
        self.tests = tests
        self._of_test: dict[tuple[str, ...], Ranks] = {}
        self._of_target: dict[tuple[str, ...], Ranks] = {}
        for (level, _), reach in _REACH.items():
            if reach not in self._of_target:
                keys = _numbers(targets, tests, reach, needed="gene" if level == "gene" else "")
                self._of_target[reach], self._of_test[reach] = keys
        self._of_condition_T, _ = _numbers(targets, targets.clear(), CONDITION, needed="")
        counted = np.arange(targets.height) if counted_T is None else np.flatnonzero(counted_T)
        _, first = np.unique(self._of_condition_T[counted], return_index=True)
        self._counted = counted[first]
        self._level_N = tests["level"].to_numpy()

    def ranked(self, evidence: str, threshold: float) -> pl.DataFrame:
        """Tests under the threshold, the smallest ``saving_p`` first, ties by their names."""
        names = ("level", "encoder", "map_type", *CONDITION, "gene")
        numbered = self.tests.with_row_index("test").with_columns(saving_p=P_OF[evidence])
        return numbered.filter(pl.col("saving_p") < threshold).sort("saving_p", *names)

    def best(self, ranked: pl.DataFrame, *, rescue: str, levels: Collection[str]) -> Ranks:
        """Rank of the test with the smallest p-value that keeps each target.

        Parameters
        ----------
        ranked : DataFrame
            From :meth:`ranked`.
        rescue : str
            ``perturbation``: a test of one concentration speaks for all of them;
            ``condition``: for its own alone.
        levels : collection of str
            Levels that count.

        Returns
        -------
        int64 array of shape (n_targets,)
            Rows of ``ranked``, or their number where nothing keeps the target.
        """
        n = ranked.height
        rank_N = np.full(self.tests.height, n)
        rank_N[ranked["test"].to_numpy()] = np.arange(n)
        best_C = np.full(int(self._of_condition_T.max(initial=0)) + 1, n)
        for test_M, key_M, key_T in self._reaches(rescue, levels):
            best_K = np.full(_size(key_M, key_T), n)
            np.minimum.at(best_K, key_M, rank_N[test_M])
            reached = key_T >= 0
            of_T = best_K[key_T[reached]]
            np.minimum.at(best_C, self._of_condition_T[reached], of_T)
        return best_C[self._of_condition_T]

    def tries(self, evidence: str, *, rescue: str, levels: Collection[str]) -> Ranks:
        """Number of tests that could keep each target; of experiments, if each may do so."""
        tries_N = np.ones(self.tests.height, dtype=np.int64)
        if evidence == "any_experiment":
            tries_N = self.tests["n_experiments"].to_numpy().astype(np.int64)
        tries_T = np.zeros(len(self._of_condition_T), dtype=np.int64)
        for test_M, key_M, key_T in self._reaches(rescue, levels):
            tries_K = np.zeros(_size(key_M, key_T), dtype=np.int64)
            np.add.at(tries_K, key_M, tries_N[test_M])
            tries_T[key_T >= 0] += tries_K[key_T[key_T >= 0]]
        # A condition that is listed with two genes has the tests of both.
        tries_C = np.zeros(int(self._of_condition_T.max(initial=0)) + 1, dtype=np.int64)
        np.maximum.at(tries_C, self._of_condition_T, tries_T)
        return tries_C[self._of_condition_T]

    def noise_admitted(
        self, evidence: str, *, rescue: str, levels: Collection[str], threshold: float
    ) -> float:
        """Share of conditions that would be kept if none of them did anything.

        Notes
        -----
        A condition that m tests can save is kept by chance with 1 - (1 - threshold)^m,
        where m counts judges, map types, levels, with rescue ``perturbation``
        concentrations too, and with evidence ``any_experiment`` experiments. The mean is
        over the conditions with a test. Judges see the same wells, so that their tests
        agree in part: the true share lies between the threshold and this number.
        """
        tries_T = self.tries(evidence, rescue=rescue, levels=levels)
        tries_C = tries_T[self._counted]
        # Summed by their number: the order of targets is that in which threads met them.
        tried, n = np.unique(tries_C[tries_C > 0], return_counts=True)
        return float(np.average(1 - (1 - threshold) ** tried, weights=n)) if len(n) else 0.0

    def _reaches(
        self, rescue: str, levels: Collection[str]
    ) -> Iterator[tuple[Ranks, Ranks, Ranks]]:
        """Yield for each level: its tests, the key of each, and the key of every target."""
        for level in sorted(levels):
            reach = _REACH[level, rescue]
            of_test_N = self._of_test[reach]
            test_M = np.flatnonzero((self._level_N == level) & (of_test_N >= 0))
            yield test_M, of_test_N[test_M], self._of_target[reach]


def _size(*keys: Ranks) -> int:
    return max(int(one.max(initial=-1)) for one in keys) + 1


def _numbers(
    targets: pl.DataFrame, tests: pl.DataFrame, names: tuple[str, ...], *, needed: str
) -> tuple[Ranks, Ranks]:
    """Number what targets and tests have in some columns; -1 where a needed one is null."""
    both = pl.concat([targets.select(names), tests.select(names)])
    known = both.filter(pl.col(needed).is_not_null()) if needed else both
    numbers = known.unique().with_row_index("number")
    number = both.join(numbers, on=names, how="left", nulls_equal=True, maintain_order="left")[
        "number"
    ]
    number_B = number.cast(pl.Int64).fill_null(-1).to_numpy()
    return number_B[: targets.height], number_B[targets.height :]


def saved_wells(
    applied: Applied, best_T: Ranks, testable_W: Mask, none: int
) -> NDArray[np.int32]:
    """Rank of the best test among the targets of each well, or ``none``.

    Parameters
    ----------
    applied : Applied
        All wells.
    best_T : int64 array of shape (n_targets,)
        From :meth:`Judgement.best`.
    testable_W : bool array of shape (n_wells,)
        Wells that a test may save.
    none : int
        Rank of what nothing keeps.
    """
    rank_T = np.append(best_T, none).astype(np.int32)
    rank_W = rank_T[applied.first_W]
    np.minimum.at(rank_W, applied.owner_E, rank_T[applied.more_E])
    rank_W[~testable_W] = none
    return rank_W
