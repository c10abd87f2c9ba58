"""Multinomial logistic regression by L-BFGS whose first Hessian is one Cholesky factor.

Shape suffixes: N wells, D features (the last a constant one), K classes.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Floats = NDArray[np.floating]
Double = NDArray[np.float64]

# Steps whose curvature is remembered.
MEMORY = 20
# A step is long enough where the slope has fallen to this share of its first value; logits
# are cached along it, so a finer search costs little beside the two products of a step.
SLOPE_LEFT = 0.5
ENOUGH_DESCENT = 1e-4
# Differences of the objective below this share of it are rounding; slopes still tell.
ROUNDING = 1e-7
TRIALS = 25
# Logits are worked on in pieces of this many numbers, which stay in a core's cache.
PIECE = 1 << 17
# What single precision leaves uncertain of the matrix that is factorized.
RIDGE = 1e-7


@dataclass(frozen=True)
class Solution:
    """Weights and how the solver came by them.

    Attributes
    ----------
    weight_DK : float array of shape (n_features + 1, n_classes)
        The last row holds the intercepts.
    objective : float
        Weighted mean cross entropy plus penalty.
    gap : float
        Estimated distance of the objective from its minimum.
    gradient : float
        Largest absolute entry of the gradient.
    iterations : int
        Steps taken.
    converged : bool
        Whether the criterion was met.
    """

    weight_DK: Double
    objective: float
    gap: float
    gradient: float
    iterations: int
    converged: bool


class Objective:
    """Weighted mean cross entropy plus an L2 penalty on all weights but the intercepts.

    Parameters
    ----------
    x_ND : float array of shape (n_wells, n_features + 1)
        Standardized features and a constant one; their precision is that of all products.
    class_N : int array of shape (n_wells,)
        Class of each well.
    n_classes : int
        Number of classes.
    strength : float
        Inverse of the penalty, scikit-learn's ``C``.

    Notes
    -----
    With balanced weights w_i = n / (n_classes · n_of_class), the objective is that of
    scikit-learn: Σ w_i CE_i / n + |W|² / (2 C n). Two classes count the penalty twice,
    because scikit-learn then fits one vector, the difference of ours.
    """

    def __init__(
        self, x_ND: Floats, class_N: NDArray[np.intp], n_classes: int, strength: float = 1.0
    ) -> None:
        self.x_ND, self.class_N, self.n_classes = x_ND, class_N, n_classes
        share_K = 1 / (n_classes * np.bincount(class_N, minlength=n_classes))
        self.share_N = share_K[class_N].astype(x_ND.dtype)
        l2 = (2 if n_classes == 2 else 1) / (strength * len(x_ND))
        self.l2_D1 = np.full((x_ND.shape[1], 1), l2)
        self.l2_D1[-1] = 0
        self.residual_NK = np.empty((len(x_ND), n_classes), dtype=x_ND.dtype)
        rows = max(1, PIECE // n_classes)
        self.pieces = [slice(at, at + rows) for at in range(0, len(x_ND), rows)]

    def logits(self, weight_DK: Double) -> Floats:
        """Logits of all wells."""
        return self.x_ND @ weight_DK.astype(self.x_ND.dtype)

    def penalty(self, a_DK: Double, b_DK: Double) -> float:
        """Twice the penalty, as an inner product of weights."""
        return float(np.vdot(a_DK, self.l2_D1 * b_DK))

    def along(self, z_NK: Floats, step_NK: Floats | None, length: float) -> tuple[float, float]:
        """Cross entropy and its slope at a point of a line in the space of logits.

        The residuals (probability less truth, weighted) of that point stay in
        ``residual_NK``, from which :meth:`gradient` goes on.
        """
        entropy = slope = 0.0
        for rows in self.pieces:
            class_n, share_n = self.class_N[rows], self.share_N[rows]
            at_n = np.arange(len(class_n))
            r_nK = self.residual_NK[rows]
            if step_NK is None:
                r_nK[:] = z_NK[rows]
            else:
                np.multiply(step_NK[rows], r_nK.dtype.type(length), out=r_nK)
                r_nK += z_NK[rows]
            r_nK -= r_nK.max(axis=1, keepdims=True)
            true_n = r_nK[at_n, class_n]
            np.exp(r_nK, out=r_nK)
            sum_n = r_nK.sum(axis=1)
            entropy += float(np.dot(share_n, np.log(sum_n) - true_n))
            r_nK *= (share_n / sum_n)[:, None]
            r_nK[at_n, class_n] -= share_n
            if step_NK is not None:
                slope += float(np.vdot(r_nK, step_NK[rows]))
        return entropy, slope

    def gradient(self, weight_DK: Double) -> Double:
        """Gradient at the point that :meth:`along` saw last."""
        return (self.x_ND.T @ self.residual_NK) + self.l2_D1 * weight_DK

    def preconditioner(self) -> Callable[[Double], Double]:
        """Inverse of (1/K) Xᵀ diag(w) X + λI, which bounds the Hessian at equal odds."""
        n_features = self.x_ND.shape[1]
        gram_DD = np.zeros((n_features, n_features))
        for at in range(0, len(self.x_ND), 4096):
            x_nD = self.x_ND[at : at + 4096]
            gram_DD += x_nD.T @ (x_nD * self.share_N[at : at + 4096, None])
        gram_DD /= self.n_classes
        gram_DD.flat[:: n_features + 1] += self.l2_D1[:, 0] + RIDGE * gram_DD.diagonal().max()
        factor = cho_factor(gram_DD, lower=True, overwrite_a=True, check_finite=False)
        return lambda g_DK: cho_solve(factor, g_DK, check_finite=False)


class Curvature:
    """Inverse Hessian of L-BFGS: the last steps, over a first guess."""

    def __init__(self, first: Callable[[Double], Double]) -> None:
        self.first = first
        self.pairs: deque[tuple[Double, Double, float]] = deque(maxlen=MEMORY)
        self.scale = 1.0

    def remember(self, step_DK: Double, change_DK: Double) -> None:
        """Take in a step and the change of the gradient along it."""
        product = float(np.vdot(step_DK, change_DK))
        if product > 0:
            self.pairs.append((step_DK, change_DK, product))
            self.scale = product / float(np.vdot(change_DK, self.first(change_DK)))

    def solve(self, g_DK: Double) -> Double:
        """Apply the inverse Hessian to a gradient."""
        q_DK, shares = g_DK.copy(), []
        for step_DK, change_DK, product in reversed(self.pairs):
            shares.append(float(np.vdot(step_DK, q_DK)) / product)
            q_DK -= shares[-1] * change_DK
        q_DK = self.scale * self.first(q_DK)
        for step_DK, change_DK, product in self.pairs:
            share = shares.pop() - float(np.vdot(change_DK, q_DK)) / product
            q_DK += share * step_DK
        return q_DK


def search_line(
    value: Callable[[float], tuple[float, float]], start: float, slope: float
) -> tuple[float, float] | None:
    """Length of a step along a convex line, and the value there (strong Wolfe conditions).

    Parameters
    ----------
    value : callable
        Gives value and slope at a length; it has seen the returned length last.
    start, slope : float
        Value and (negative) slope at length 0.

    Returns
    -------
    tuple of float, or None
        None where rounding hides any descent.
    """
    low, slope_low, high, slope_high = 0.0, slope, np.inf, np.nan
    length = 1.0
    for _ in range(TRIALS):
        there, slope_there = value(length)
        descends = there <= start + ENOUGH_DESCENT * length * slope + ROUNDING * abs(start)
        if descends and abs(slope_there) <= SLOPE_LEFT * abs(slope):
            return length, there
        if slope_there < 0 and descends:
            low, slope_low = length, slope_there
        else:
            high, slope_high = length, slope_there
        if np.isinf(high):
            length *= 3
            continue
        # The slope of a convex line grows: its zero lies between, where a secant puts it.
        share = -slope_low / (slope_high - slope_low) if slope_high > 0 else 0.5
        length = low + (high - low) * min(max(share, 0.1), 0.9)
    return None


def minimize(
    x_ND: Floats,
    class_N: NDArray[np.intp],
    n_classes: int,
    *,
    max_iter: int,
    tolerance: float,
    strength: float = 1.0,
    start_DK: Double | None = None,
) -> Solution:
    """Minimize the objective in single precision, and in double where that hides the rest.

    Parameters
    ----------
    x_ND, class_N, n_classes, strength
        As :class:`Objective` wants them.
    max_iter : int
        Steps at most.
    tolerance : float
        The solver stops where the estimated gap to the minimum is at most this share of the
        objective, and no entry of the gradient is above it.
    start_DK : float array of shape (n_features + 1, n_classes), optional
        Where to start, if that is better than zero.

    Notes
    -----
    The gap is half of gᵀHg, with H the solver's inverse Hessian. Unlike a bound on the
    gradient alone, it does not loosen as classes multiply and each gets a smaller share.
    """
    single = Objective(np.asarray(x_ND, dtype=np.float32), class_N, n_classes, strength)
    found = descend(single, max_iter=max_iter, tolerance=tolerance, start_DK=start_DK)
    left = max_iter - found.iterations
    if found.converged or not left:
        return found
    double = Objective(np.asarray(x_ND, dtype=np.float64), class_N, n_classes, strength)
    more = descend(double, max_iter=left, tolerance=tolerance, start_DK=found.weight_DK)
    return replace(more, iterations=found.iterations + more.iterations)


def descend(
    objective: Objective, *, max_iter: int, tolerance: float, start_DK: Double | None = None
) -> Solution:
    """Take steps until the criterion of :func:`minimize` is met or rounding stops them."""
    weight_DK, z_NK = _start(objective, start_DK)
    now = objective.along(z_NK, None, 0)[0] + objective.penalty(weight_DK, weight_DK) / 2
    g_DK = objective.gradient(weight_DK)
    curvature = Curvature(objective.preconditioner())
    for iteration in range(max_iter + 1):
        step_DK = -curvature.solve(g_DK)
        slope = float(np.vdot(g_DK, step_DK))
        gap, largest = -slope / 2, float(np.abs(g_DK).max())
        converged = gap <= tolerance * now and largest <= tolerance
        if converged or iteration == max_iter:
            break
        step_NK = objective.logits(step_DK)
        found = search_line(_line(objective, weight_DK, step_DK, z_NK, step_NK), now, slope)
        if found is None:
            break
        length, now = found
        weight_DK = weight_DK + length * step_DK
        step_NK *= step_NK.dtype.type(length)
        z_NK += step_NK
        before_DK, g_DK = g_DK, objective.gradient(weight_DK)
        curvature.remember(length * step_DK, g_DK - before_DK)
    return Solution(weight_DK, now, gap, largest, iteration, converged)


def _start(objective: Objective, start_DK: Double | None) -> tuple[Double, Floats]:
    """Weights and logits to begin with: the given ones if better than equal odds."""
    if start_DK is not None:
        z_NK = objective.logits(start_DK)
        there = objective.along(z_NK, None, 0)[0] + objective.penalty(start_DK, start_DK) / 2
        if there < np.log(objective.n_classes):
            return start_DK, z_NK
    zero_DK = np.zeros((objective.x_ND.shape[1], objective.n_classes))
    return zero_DK, np.zeros_like(objective.residual_NK)


def _line(
    objective: Objective, weight_DK: Double, step_DK: Double, z_NK: Floats, step_NK: Floats
) -> Callable[[float], tuple[float, float]]:
    """Objective and slope along a step, from cached logits."""
    own = objective.penalty(weight_DK, weight_DK)
    cross = objective.penalty(weight_DK, step_DK)
    other = objective.penalty(step_DK, step_DK)

    def value(length: float) -> tuple[float, float]:
        entropy, slope = objective.along(z_NK, step_NK, length)
        penalty = own / 2 + length * cross + length**2 * other / 2
        return entropy + penalty, slope + cross + length * other

    return value
