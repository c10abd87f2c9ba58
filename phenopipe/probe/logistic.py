"""The linear probe: one block's features, one logistic regression (A.4).

Shape suffixes: N wells, D features, K blocks.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from phenopipe.classifier import linear_classifier

MAX_ITER = 2000
Labels = NDArray[Any]


def fit_probe(
    x_train_ND: NDArray[np.floating], y_train_N: Labels, *, max_iter: int = MAX_ITER
) -> Pipeline:
    """Fit the probe: standardized features, then a multinomial logistic regression.

    Parameters
    ----------
    x_train_ND : float array of shape (n_wells, n_features)
        Raw features of one block; nothing is done to them but standardization.
    y_train_N : array of shape (n_wells,)
        Class of each well.
    max_iter : int
        Iterations at most; scikit-learn warns if they do not suffice.

    Returns
    -------
    Pipeline
        Scaler and classifier, as :func:`balanced_accuracy` wants them.

    Notes
    -----
    Solver lbfgs, 2,000 iterations, balanced class weights. Features stay in single
    precision and one thread computes: two are slower.
    """
    probe = linear_classifier(max_iter=max_iter)
    with threadpool_limits(limits=1):
        return probe.fit(np.asarray(x_train_ND, dtype=np.float32), y_train_N)


def predict(probe: Pipeline, x_ND: NDArray[np.floating]) -> Labels:
    """Class that the probe gives each well."""
    with threadpool_limits(limits=1):
        return np.asarray(probe.predict(np.asarray(x_ND, dtype=np.float32)))


def balanced_accuracy(
    probe: Pipeline, x_test_ND: NDArray[np.floating], y_test_N: Labels
) -> float:
    """Mean over classes of the share of their test wells that the probe gets right.

    Parameters
    ----------
    probe : Pipeline
        What :func:`fit_probe` returned.
    x_test_ND : float array of shape (n_wells, n_features)
        Raw features of the same block, of experiments that the probe has not seen.
    y_test_N : array of shape (n_wells,)
        Class of each well.

    Returns
    -------
    float
        From 0 to 1; guessing gives one over the number of classes.
    """
    return float(balanced_accuracy_score(y_test_N, predict(probe, x_test_ND)))


def iterations(probe: Pipeline) -> int:
    """Iterations that the solver took; as many as allowed means that it did not converge."""
    return int(np.max(probe[-1].n_iter_))


def choose_block(accuracy_K: NDArray[np.float64]) -> int:
    """Position of the best block (Eq. 1); of equals, the earliest, which costs least.

    Examples
    --------
    >>> choose_block(np.array([0.1, 0.4, 0.4]))
    1
    """
    return int(np.argmax(accuracy_K))
