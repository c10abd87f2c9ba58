"""Multinomial logistic regression by L-BFGS whose first Hessian is one Cholesky factor.

Shape suffixes: N wells, D features (the last a constant one), K classes; n, some wells.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

Floats = NDArray[np.floating]
Double = NDArray[np.float64]
Inverse = Callable[[Floats], Floats]

# Steps whose curvature is remembered.
MEMORY = 20
ENOUGH_DESCENT = 1e-4
# A searched step is long enough where the slope has fallen to this share of its first value.
SLOPE_LEFT = 0.5
# Differences of the objective below this share of it are rounding; slopes still tell.
ROUNDING = 1e-7
TRIALS = 25
# Wells of a piece: enough for products at full speed; no array of all wells by classes.
PIECE = 2048
# Sums of exponentials between this and its inverse need no shift of the logits.
SAFE = 1e20
# What rounding leaves uncertain of the matrix that is factorized.
RIDGE = 1e-7
# Where the gap is this share of the objective, the first Hessian is made once more.
NEAR = 1e-2


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


@dataclass(frozen=True)
class Point:
    """The objective at some weights.

    Attributes
    ----------
    own_N : float array of shape (n_wells,)
        Probability that each well gives its own class.
    """

    weight_DK: Floats
    value: float
    gradient_DK: Floats
    own_N: Floats


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
    threads : int
        Pieces of wells worked on at once; sums are the same to the last bit.

    Notes
    -----
    With balanced weights w_i = n / (n_classes · n_of_class), the objective is that of
    scikit-learn: Σ w_i CE_i / n + |W|² / (2 C n). Two classes count the penalty twice,
    because scikit-learn then fits one vector, the difference of ours.
    """

    def __init__(
        self,
        x_ND: Floats,
        class_N: NDArray[np.intp],
        n_classes: int,
        strength: float = 1.0,
        threads: int = 1,
    ) -> None:
        self.x_ND, self.class_N, self.n_classes = x_ND, class_N, n_classes
        self.threads = threads
        count_K = np.bincount(class_N, minlength=n_classes)
        self.share_N = (1 / (n_classes * count_K))[class_N].astype(x_ND.dtype)
        l2 = (2 if n_classes == 2 else 1) / (strength * len(x_ND))
        self.l2_D1 = np.full((x_ND.shape[1], 1), l2, dtype=x_ND.dtype)
        self.l2_D1[-1] = 0
        of_class = np.split(np.argsort(class_N, kind="stable"), np.cumsum(count_K)[:-1])
        # The part of the gradient that no weights change: each class's own wells.
        own_KD = [self.share_N[rows] @ x_ND[rows] for rows in of_class]
        self.own_DK = np.stack(own_KD, axis=1)
        # With more wells than features, a class's own part would cost more than it saves.
        self.small = {k: rows for k, rows in enumerate(of_class) if len(rows) < x_ND.shape[1]}
        self.gram_DD = np.zeros((x_ND.shape[1], x_ND.shape[1]))
        for at in range(0, len(x_ND), PIECE):
            x_nD = x_ND[at : at + PIECE]
            self.gram_DD += x_nD.T @ (x_nD * self.share_N[at : at + PIECE, None])
        self.gram_DD /= n_classes

    def at(self, weight_DK: Floats) -> Point:
        """Value and gradient at some weights, in one pass over the wells."""
        gradient_DK = self.l2_D1 * weight_DK
        value = float(np.vdot(weight_DK, gradient_DK)) / 2
        gradient_DK -= self.own_DK
        own_N = np.empty_like(self.share_N)
        for rows, entropy, part_DK, own_n in self._pieces(weight_DK):
            value += entropy
            gradient_DK += part_DK
            own_N[rows] = own_n
        return Point(weight_DK, value, gradient_DK, own_N)

    def equal_odds(self) -> Point:
        """Value and gradient at weights of zero."""
        zero_DK, n_classes = np.zeros_like(self.own_DK), self.n_classes
        gradient_DK = (self.share_N @ self.x_ND)[:, None] / n_classes - self.own_DK
        own_N = np.full_like(self.share_N, 1 / n_classes)
        return Point(zero_DK, float(np.log(n_classes)), gradient_DK, own_N)

    def _pieces(self, weight_DK: Floats) -> Iterator[tuple[slice, float, Floats, Floats]]:
        pieces = [slice(at, at + PIECE) for at in range(0, len(self.x_ND), PIECE)]
        if self.threads == 1:
            yield from (self._piece(rows, weight_DK) for rows in pieces)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            yield from pool.map(lambda rows: self._piece(rows, weight_DK), pieces)

    def _piece(self, rows: slice, weight_DK: Floats) -> tuple[slice, float, Floats, Floats]:
        """Cross entropy of some wells, its gradient but for ``own_DK``, own probabilities."""
        x_nD, class_n, share_n = self.x_ND[rows], self.class_N[rows], self.share_N[rows]
        e_nK, true_n, sum_n = _exponentials(x_nD @ weight_DK, class_n)
        if not ((sum_n > 1 / SAFE).all() and (sum_n < SAFE).all()):
            z_nK = x_nD @ weight_DK
            z_nK -= z_nK.max(axis=1, keepdims=True)
            e_nK, true_n, sum_n = _exponentials(z_nK, class_n)
        own_n = e_nK[np.arange(len(class_n)), class_n] / sum_n
        entropy = float(np.dot(share_n.astype(np.float64), np.log(sum_n) - true_n))
        return rows, entropy, (x_nD * (share_n / sum_n)[:, None]).T @ e_nK, own_n

    def preconditioner(self, own_N: Floats | None = None) -> Inverse:
        """Inverse of a matrix near the Hessian, one block a class.

        Parameters
        ----------
        own_N : float array of shape (n_wells,), optional
            Probability that each well gives its own class; left out, that of equal odds.

        Notes
        -----
        At equal odds the block is (1/K) Xᵀ diag(w) X + λI, which bounds the Hessian. Later a
        small class's own wells count by p (1 - p) each, by Woodbury's identity. All others
        keep the share u = 1 - mean(p_own) of what they had at equal odds, concentrated in few
        wells: for some directions u is right and for some almost 1, so that (1 + u) / 2 of
        the first term is taken.
        """
        wrong = 1.0 if own_N is None else float(self.share_N @ (1 - own_N))
        near_DD = self.gram_DD * (1 + wrong) / 2
        ridge = RIDGE * self.gram_DD.diagonal().max()
        near_DD.flat[:: len(near_DD) + 1] += self.l2_D1[:, 0] + ridge
        lower_DD = cholesky(near_DD, lower=True)
        # As a product with its own transpose it stays positive however it is rounded.
        root_DD = solve_triangular(lower_DD, np.eye(len(near_DD)), lower=True)
        root_DD = root_DD.astype(self.x_ND.dtype)
        if own_N is None:
            return lambda g_DK: root_DD.T @ (root_DD @ g_DK)
        own = {k: self._own(rows, own_N[rows], root_DD) for k, rows in self.small.items()}

        def inverse(g_DK: Floats) -> Floats:
            q_DK = root_DD @ g_DK
            for k, own_nD in own.items():
                q_DK[:, k] -= (own_nD @ q_DK[:, k]) @ own_nD
            return np.asarray(root_DD.T @ q_DK)

        return inverse

    def _own(self, rows: NDArray[np.intp], own_n: Floats, root_DD: Floats) -> Floats:
        """What Woodbury's identity takes off the inverse for a class's own wells."""
        weight_n = np.sqrt(self.share_N[rows] * own_n * (1 - own_n))
        u_nD = (self.x_ND[rows] * weight_n[:, None]) @ root_DD.T
        gram_nn = u_nD @ u_nD.T
        gram_nn.flat[:: len(rows) + 1] += 1
        return np.asarray(solve_triangular(cholesky(gram_nn, lower=True), u_nD, lower=True))


def _exponentials(z_nK: Floats, class_n: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
    """Exponentials of logits (in their place), logits of the true class, sums of the former."""
    true_n = z_nK[np.arange(len(class_n)), class_n]
    with np.errstate(over="ignore"):
        np.exp(z_nK, out=z_nK)
        return z_nK, true_n, z_nK @ np.ones(z_nK.shape[1], dtype=z_nK.dtype)


class Curvature:
    """Inverse Hessian of L-BFGS: the last steps, over a first guess."""

    def __init__(self, first: Inverse) -> None:
        self.first = first
        self.pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=MEMORY)

    def remember(self, step_DK: Floats, change_DK: Floats) -> None:
        """Take in a step and the change of the gradient along it."""
        product = float(np.vdot(step_DK, change_DK))
        if 0 < product < np.inf:
            self.pairs.append((step_DK, change_DK, product))

    def solve(self, g_DK: Floats) -> Floats:
        """Apply the inverse Hessian to a gradient."""
        q_DK, shares = g_DK.copy(), []
        for step_DK, change_DK, product in reversed(self.pairs):
            shares.append(float(np.vdot(step_DK, q_DK)) / product)
            q_DK -= shares[-1] * change_DK
        q_DK = self.first(q_DK)
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
    threads: int = 1,
) -> Solution:
    """Minimize the objective in single precision, and in double where that hides the rest.

    Parameters
    ----------
    x_ND, class_N, n_classes, strength, threads
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
    single = Objective(
        np.asarray(x_ND, dtype=np.float32), class_N, n_classes, strength, threads
    )
    found = descend(single, max_iter=max_iter, tolerance=tolerance, start_DK=start_DK)
    left = max_iter - found.iterations
    if found.converged or not left:
        return found
    double = Objective(
        np.asarray(x_ND, dtype=np.float64), class_N, n_classes, strength, threads
    )
    more = descend(double, max_iter=left, tolerance=tolerance, start_DK=found.weight_DK)
    return replace(more, iterations=found.iterations + more.iterations)


def descend(
    objective: Objective, *, max_iter: int, tolerance: float, start_DK: Double | None = None
) -> Solution:
    """Take steps until the criterion of :func:`minimize` is met or rounding stops them.

    Notes
    -----
    A step that does not descend is not taken, but its curvature is remembered, which mends
    the next; only if that fails too is a line searched.
    """
    now = _start(objective, start_DK)
    curvature = Curvature(objective.preconditioner())
    refused, anew = False, bool(objective.small)
    for iteration in range(max_iter + 1):
        step_DK, gap = _step(curvature, now)
        largest = float(np.abs(now.gradient_DK).max())
        converged = gap <= tolerance * now.value and largest <= tolerance
        if converged or iteration == max_iter:
            break
        if anew and gap <= NEAR * now.value:
            anew = False
            curvature.first = objective.preconditioner(now.own_N)
            step_DK, gap = _step(curvature, now)
        there = objective.at(now.weight_DK + step_DK)
        curvature.remember(step_DK, there.gradient_DK - now.gradient_DK)
        taken = there if _descends(now, there, step_DK, -2 * gap) else None
        if taken is None and refused:
            taken = _search(objective, now, step_DK, -2 * gap)
        if taken is None and refused:
            break
        refused = taken is None
        now = taken or now
    weight_DK = now.weight_DK.astype(np.float64)
    return Solution(weight_DK, now.value, gap, largest, iteration, converged)


def _step(curvature: Curvature, now: Point) -> tuple[Floats, float]:
    """The next step, and half its descent to first order: the estimated gap."""
    step_DK = -curvature.solve(now.gradient_DK)
    return step_DK, -float(np.vdot(now.gradient_DK, step_DK)) / 2


def _descends(now: Point, there: Point, step_DK: Floats, slope: float) -> bool:
    """Whether a step lowers the objective, or, within rounding, does not overshoot."""
    change = there.value - now.value - ENOUGH_DESCENT * slope
    rounding = ROUNDING * now.value
    if -rounding < change <= rounding:
        return float(np.vdot(there.gradient_DK, step_DK)) <= SLOPE_LEFT * abs(slope)
    return change <= -rounding


def _start(objective: Objective, start_DK: Double | None) -> Point:
    """Where to begin: at the given weights if better than equal odds."""
    if start_DK is not None:
        # What all classes share changes no probability and only costs penalty.
        start_DK = start_DK - start_DK.mean(axis=1, keepdims=True)
        there = objective.at(start_DK.astype(objective.x_ND.dtype))
        if there.value < np.log(objective.n_classes):
            return there
    return objective.equal_odds()


def _search(objective: Objective, now: Point, step_DK: Floats, slope: float) -> Point | None:
    """The point that a search along a step finds."""
    seen = [now]

    def value(length: float) -> tuple[float, float]:
        seen[0] = objective.at(now.weight_DK + length * step_DK)
        return seen[0].value, float(np.vdot(seen[0].gradient_DK, step_DK))

    return None if search_line(value, now.value, slope) is None else seen[0]
