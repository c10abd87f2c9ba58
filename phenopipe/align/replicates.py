"""How alike replicates of different experiments are: by cosine, and by rank among strangers.

Shape suffixes: N wells, D features, C conditions, P pairs, B bootstraps.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class Alikeness(NamedTuple):
    """A figure, its interval over resampled conditions, and the number of conditions."""

    value: float
    low: float
    high: float
    n: int


def replicate_similarity(
    x_ND: Floats,
    condition_N: NDArray[np.str_],
    experiment_N: NDArray[np.str_],
    *,
    bootstraps: int,
    rng: np.random.Generator,
) -> dict[str, Alikeness]:
    """Tell how alike wells of one condition are across experiments.

    Parameters
    ----------
    x_ND : float array of shape (n_wells, n_features)
        Embeddings as seen from an origin that all experiments share; none of length zero.
    condition_N, experiment_N : str array of shape (n_wells,)
        Of each well.
    bootstraps : int
        Resamples of conditions.
    rng : Generator
        Source of the resamples.

    Returns
    -------
    dict of str to Alikeness
        ``alike``: mean cosine of pairs of one condition in different experiments, less that
        of pairs of different conditions in different experiments; from -2 to 2, 0 where
        replicates are as alike as strangers. ``rank``: share of strangers' cosines below a
        replicates' cosine, from 0 to 1, 0.5 by chance; it does not depend on the scale that
        an alignment gives to cosines. Empty where there are no such pairs.
    """
    unit_ND = np.asarray(x_ND, dtype=np.float64)
    unit_ND = unit_ND / np.linalg.norm(unit_ND, axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit_ND), k=1)
    cosine_P = (unit_ND @ unit_ND.T)[first, second]
    across_P = experiment_N[first] != experiment_N[second]
    same_P = condition_N[first] == condition_N[second]
    stranger_P = np.sort(cosine_P[across_P & ~same_P])
    matched_P = across_P & same_P
    if not (matched_P.any() and stranger_P.size):
        return {}
    below = np.searchsorted(stranger_P, cosine_P[matched_P], side="left")
    up_to = np.searchsorted(stranger_P, cosine_P[matched_P], side="right")
    of_pair = {
        "alike": cosine_P[matched_P] - stranger_P.mean(),
        "rank": (below + up_to) / (2 * stranger_P.size),
    }
    names_C, code_P = np.unique(condition_N[first[matched_P]], return_inverse=True)
    n_pairs_C = np.bincount(code_P)
    drawn_BC = rng.multinomial(
        len(names_C), np.full(len(names_C), 1 / len(names_C)), size=bootstraps
    )
    found = {}
    for name, value_P in of_pair.items():
        mean_B = drawn_BC @ np.bincount(code_P, value_P) / (drawn_BC @ n_pairs_C)
        low, high = np.quantile(mean_B, [0.025, 0.975])
        found[name] = Alikeness(float(value_P.mean()), float(low), float(high), len(names_C))
    return found
