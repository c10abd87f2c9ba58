"""How well a linear classifier tells labels apart: experiments that should look alike, say.

Shape suffixes: N wells, D features, R repeats of a cross-validation, B bootstraps.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold, cross_val_predict

from phenopipe.classifier import bootstrap_accuracies, linear_classifier

BOOTSTRAPS = 500
# One draw of the folds moves the accuracy on 200 wells by 0.02 either way (standard
# deviation, simulated screen); the mean of so many draws is steadier.
REPEATS = 5
# What is asked is whether a linear boundary exists; this many steps find it.
MAX_ITER = 300


@dataclass(frozen=True)
class Separability:
    """Balanced accuracy of held-out predictions, its interval, and what chance gives."""

    accuracy: float
    low: float
    high: float
    chance: float
    n: int


def separability(
    x_ND: NDArray[np.floating],
    label_N: NDArray[np.str_],
    *,
    rng: np.random.Generator,
    folds: int = 5,
    group_N: NDArray[np.str_] | None = None,
) -> Separability | None:
    """Cross-validated balanced accuracy of a logistic regression that predicts the labels.

    Parameters
    ----------
    x_ND : float array of shape (n_wells, n_features)
        Embeddings.
    label_N : str array of shape (n_wells,)
        What is to be told apart.
    rng : Generator
        For folds and resamples.
    folds : int
        Most folds; fewer where a label has fewer wells. They are drawn ``REPEATS`` times.
    group_N : str array of shape (n_wells,), optional
        Wells of one group are predicted by a classifier that saw none of them; replaces
        the random folds.

    Returns
    -------
    Separability or None
        None where fewer than two labels have two wells, or one group holds all wells. The
        accuracy is a mean over repeats; the interval resamples wells, predictions held
        fixed. Chance is one over the number of labels.
    """
    label_N = np.asarray(label_N, dtype=np.str_)
    names, counts = np.unique(label_N, return_counts=True)
    enough = np.isin(label_N, names[counts >= 2])
    x_ND, label_N = np.asarray(x_ND, dtype=np.float32)[enough], label_N[enough]
    if group_N is not None:
        group_N = np.asarray(group_N)[enough]
    names, counts = np.unique(label_N, return_counts=True)
    if len(names) < 2 or (group_N is not None and len(np.unique(group_N)) < 2):
        return None
    splits: list[LeaveOneGroupOut | StratifiedKFold] = [LeaveOneGroupOut()]
    if group_N is None:
        n_folds = min(folds, int(counts.min()))
        seeds = rng.integers(2**31, size=REPEATS).tolist()
        splits = [StratifiedKFold(n_folds, shuffle=True, random_state=one) for one in seeds]
    with warnings.catch_warnings():
        # A fit that is short of convergence still predicts; the figure says how well.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = linear_classifier(max_iter=MAX_ITER)
        predicted_RN = np.stack(
            [cross_val_predict(model, x_ND, label_N, cv=one, groups=group_N) for one in splits]
        )
    resampled_BR = bootstrap_accuracies(label_N, predicted_RN, bootstraps=BOOTSTRAPS, rng=rng)
    low, high = np.quantile(resampled_BR.mean(axis=1), [0.025, 0.975])
    accuracy = float(np.mean([balanced_accuracy_score(label_N, one) for one in predicted_RN]))
    return Separability(accuracy, float(low), float(high), 1 / len(names), len(label_N))
