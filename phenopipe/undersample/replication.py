"""Which conditions have been seen often enough, and in enough experiments?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phenopipe.formats.applied import Applied, Mask
from phenopipe.threads import side_by_side
from phenopipe.undersample.survey import Run


def replicated_targets(
    applied: Applied,
    known_W: Mask,
    runs: Sequence[Run],
    *,
    min_experiments: int,
    min_wells: int,
) -> Mask:
    """Which conditions enough distinct experiments and wells have seen.

    Parameters
    ----------
    applied : Applied
        All wells.
    known_W : bool array of shape (n_wells,)
        Wells that passed qc; only these count.
    runs : list of ((screen, experiment), int)
        Experiments of the wells, in their order.
    min_experiments, min_wells : int
        Least number of distinct experiments, and of distinct wells.

    Returns
    -------
    bool array of shape (n_targets,)

    Notes
    -----
    Paper A.1 step 3. A well with several perturbations counts for each of its conditions.
    """
    condition_T, n = applied.conditions
    condition_T = np.append(condition_T, np.uint32(n))
    wells_C = np.zeros(n, dtype=np.int64)
    experiments_C = np.zeros(n, dtype=np.int32)

    def counted(spans: list[tuple[int, int]]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        each = [_conditions_of(applied, condition_T, known_W, *span) for span in spans]
        found, wells = np.unique(np.concatenate(each), return_counts=True)
        return found, wells

    for found, wells in side_by_side(counted, _spans(runs).values()):
        wells_C[found] += wells
        experiments_C[found] += 1
    enough_C = (experiments_C >= min_experiments) & (wells_C >= min_wells)
    return enough_C[condition_T[:-1]]


def _spans(runs: Sequence[Run]) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Gather the stretches of wells of each experiment: (first, last + 1)."""
    spans: dict[tuple[str, str], list[tuple[int, int]]] = {}
    first = 0
    for name, n in runs:
        spans.setdefault(name, []).append((first, first + n))
        first += n
    return spans


def _conditions_of(
    applied: Applied, condition_T: NDArray[np.uint32], known_W: Mask, first: int, stop: int
) -> NDArray[np.uint32]:
    """List the conditions of a stretch of wells, each once a well that has it."""
    of_first_W = condition_T[applied.first_W[first:stop]]
    known_W = known_W[first:stop] & (of_first_W < condition_T[-1])
    low, high = np.searchsorted(applied.owner_E, (first, stop))
    owner_E = applied.owner_E[low:high] - first
    more_E = condition_T[applied.more_E[low:high]]
    new_E = known_W[owner_E] & (more_E != of_first_W[owner_E])
    # A well counts once for a condition that it has twice.
    n = np.int64(len(condition_T))
    pair = np.unique(owner_E[new_E] * n + more_E[new_E])
    return np.concatenate([of_first_W[known_W], (pair % n).astype(np.uint32)])
