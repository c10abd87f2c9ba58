"""The linear probe: one block's features, one logistic regression (A.4).

Shape suffixes: N wells, D features, K classes (blocks in ``choose_block``).
"""

import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from phenopipe.classifier import linear_classifier
from phenopipe.probe.config import MAX_ITER, TOLERANCE, Solver
from phenopipe.probe.solver import minimize

Labels = NDArray[Any]


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe, and what the solver says of the fit.

    Attributes
    ----------
    classes_K : array of shape (n_classes,)
        Classes, sorted.
    weight_DK : float array of shape (n_features + 1, n_classes)
        Weights of standardized features; the last row holds the intercepts.
    scaler : StandardScaler
        Means and deviations of the training wells.
    iterations : int
        Steps that the solver took.
    converged : bool
        Whether it met its own criterion.
    gap : float or None
        Estimated distance of the objective from its minimum, as a share of it; scikit-learn
        tells none.
    """

    classes_K: Labels
    weight_DK: NDArray[np.float64]
    scaler: StandardScaler
    iterations: int
    converged: bool
    gap: float | None = None


def fit_probe(
    x_train_ND: NDArray[np.floating],
    y_train_N: Labels,
    *,
    solver: Solver = "preconditioned",
    max_iter: int = MAX_ITER,
    tolerance: float = TOLERANCE,
    start: LinearProbe | None = None,
    threads: int | None = None,
) -> LinearProbe:
    """Fit the probe: standardized features, then a multinomial logistic regression.

    Parameters
    ----------
    x_train_ND : float array of shape (n_wells, n_features)
        Raw features of one block; nothing is done to them but standardization.
    y_train_N : array of shape (n_wells,)
        Class of each well, two or more.
    solver : {"preconditioned", "sklearn"}
        Ours, or scikit-learn's lbfgs; both minimize the same objective.
    max_iter : int
        Iterations at most; ``converged`` tells whether they sufficed.
    tolerance : float
        See :func:`phenopipe.probe.solver.minimize`; scikit-learn keeps its own.
    start : LinearProbe, optional
        A probe of the same classes and width to start from; scikit-learn starts from zero.
    threads : int, optional
        Threads of our solver, which change no result; left out, those that the job has
        (``OMP_NUM_THREADS``). scikit-learn gets one.

    Returns
    -------
    LinearProbe
        As :func:`balanced_accuracy` wants it.

    Notes
    -----
    Balanced class weights, C = 1, intercepts without penalty, 2,000 iterations. Features
    stay in single precision. BLAS keeps to one thread: ours works on pieces of wells side by
    side, and scikit-learn gains little from two.
    """
    if threads is None:
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    x_ND = np.asarray(x_train_ND, dtype=np.float32)
    with threadpool_limits(limits=1):
        if solver == "sklearn":
            return _fit_sklearn(x_ND, y_train_N, max_iter)
        classes_K, class_N = np.unique(y_train_N, return_inverse=True)
        scaler = StandardScaler().fit(x_ND)
        found = minimize(
            _with_ones(scaler, x_ND),
            class_N,
            len(classes_K),
            max_iter=max_iter,
            tolerance=tolerance,
            start_DK=_start_of(start, classes_K, x_ND.shape[1]),
            threads=threads,
        )
    share = found.gap / found.objective
    return LinearProbe(
        classes_K, found.weight_DK, scaler, found.iterations, found.converged, share
    )


def _fit_sklearn(x_ND: NDArray[np.float32], y_N: Labels, max_iter: int) -> LinearProbe:
    with warnings.catch_warnings():
        # ``converged`` says so; whoever fits a probe tells it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        scaler, model = linear_classifier(max_iter=max_iter).fit(x_ND, y_N)
    weight_DK = np.vstack([model.coef_.T, model.intercept_]).astype(np.float64)
    if weight_DK.shape[1] == 1:
        # Of two classes, scikit-learn keeps the difference of their weights.
        weight_DK = weight_DK * [-0.5, 0.5]
    iterations = int(np.max(model.n_iter_))
    return LinearProbe(model.classes_, weight_DK, scaler, iterations, iterations < max_iter)


def _with_ones(scaler: StandardScaler, x_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standardized features and a last column of ones."""
    out_ND = np.ones((x_ND.shape[0], x_ND.shape[1] + 1), dtype=np.float32)
    out_ND[:, :-1] = scaler.transform(x_ND)
    return out_ND


def _start_of(
    start: LinearProbe | None, classes_K: Labels, n_features: int
) -> NDArray[np.float64] | None:
    if start is None or start.weight_DK.shape != (n_features + 1, len(classes_K)):
        return None
    return start.weight_DK if np.array_equal(start.classes_K, classes_K) else None


def predict(probe: LinearProbe, x_ND: NDArray[np.floating]) -> Labels:
    """Class that the probe gives each well."""
    with threadpool_limits(limits=1):
        x_ND = _with_ones(probe.scaler, np.asarray(x_ND, dtype=np.float32))
        logits_NK = x_ND @ probe.weight_DK.astype(np.float32)
    return np.asarray(probe.classes_K[logits_NK.argmax(axis=1)])


def balanced_accuracy(
    probe: LinearProbe, x_test_ND: NDArray[np.floating], y_test_N: Labels
) -> float:
    """Mean over classes of the share of their test wells that the probe gets right.

    Parameters
    ----------
    probe : LinearProbe
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


def choose_block(accuracy_K: NDArray[np.float64]) -> int:
    """Position of the best block (Eq. 1); of equals, the earliest, which costs least.

    Examples
    --------
    >>> choose_block(np.array([0.1, 0.4, 0.4]))
    1
    """
    return int(np.argmax(accuracy_K))
