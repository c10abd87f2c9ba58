"""The linear classifier of probes and of the report, and resamples of its accuracy.

Shape suffixes: N wells, B bootstraps, K predictions, C classes, U units (experiments, say).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Labels = NDArray[Any]


def linear_classifier(*, max_iter: int) -> Pipeline:
    """Standardized features, then a multinomial logistic regression, not yet fitted.

    Notes
    -----
    Paper A.4: solver lbfgs, balanced class weights.
    """
    return make_pipeline(
        StandardScaler(),
        LogisticRegression(solver="lbfgs", max_iter=max_iter, class_weight="balanced"),
    )


def bootstrap_accuracies(
    y_N: Labels, predicted_KN: Labels, *, bootstraps: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Balanced accuracy of several predictions, each resample of wells shared by all.

    Parameters
    ----------
    y_N : array of shape (n_wells,)
        Class of each well.
    predicted_KN : array of shape (n_predictions, n_wells)
        Predicted classes, one row a block.
    bootstraps : int
        Number of resamples.
    rng : Generator
        Source of randomness.

    Returns
    -------
    float array of shape (n_bootstraps, n_predictions)
        A class that a resample leaves out does not count in it.
    """
    n_wells = len(y_N)
    order_N = np.argsort(np.unique(y_N, return_inverse=True)[1], kind="stable")
    y_N, hit_KN = y_N[order_N], (predicted_KN == y_N)[:, order_N]
    first_C = np.flatnonzero(np.concatenate([[True], y_N[1:] != y_N[:-1]]))
    accuracy_BK = np.empty((bootstraps, len(hit_KN)))
    for at in range(bootstraps):
        times_N = np.bincount(rng.integers(n_wells, size=n_wells), minlength=n_wells)
        drawn_C = np.add.reduceat(times_N, first_C)
        hits_KC = np.add.reduceat(hit_KN * times_N, first_C, axis=1)
        there_C = drawn_C > 0
        accuracy_BK[at] = (hits_KC[:, there_C] / drawn_C[there_C]).mean(axis=1)
    return accuracy_BK


def bootstrap_accuracies_of_units(
    y_N: Labels,
    predicted_KN: Labels,
    unit_N: Labels,
    *,
    bootstraps: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Balanced accuracy of several predictions where whole units are drawn, not wells.

    Parameters
    ----------
    y_N : array of shape (n_wells,)
        Class of each well.
    predicted_KN : array of shape (n_predictions, n_wells)
        Predicted classes, one row a block.
    unit_N : array of shape (n_wells,)
        What is drawn with all its wells: the experiment, say.
    bootstraps : int
        Number of resamples.
    rng : Generator
        Source of randomness.

    Returns
    -------
    float array of shape (n_bootstraps, n_predictions)
        A class that a resample leaves out does not count in it.
    """
    class_N = np.unique(y_N, return_inverse=True)[1]
    units, unit_N = np.unique(unit_N, return_inverse=True)
    cell_N = unit_N * (class_N.max() + 1) + class_N
    shape_UC = (len(units), int(class_N.max()) + 1)
    wells_UC = np.bincount(cell_N, minlength=shape_UC[0] * shape_UC[1]).reshape(shape_UC)
    hits_KUC = np.stack(
        [
            np.bincount(cell_N, weights=hit_N, minlength=wells_UC.size).reshape(shape_UC)
            for hit_N in predicted_KN == y_N
        ]
    )
    accuracy_BK = np.empty((bootstraps, len(hits_KUC)))
    for at in range(bootstraps):
        drawn_U = rng.integers(len(units), size=len(units))
        times_U = np.bincount(drawn_U, minlength=len(units))
        drawn_C = times_U @ wells_UC
        there_C = drawn_C > 0
        accuracy_BK[at] = (times_U @ hits_KUC[:, :, there_C] / drawn_C[there_C]).mean(axis=1)
    return accuracy_BK
