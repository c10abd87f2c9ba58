"""What aligning on controls has in common: a shared fit, then each experiment's own map.

Shape suffixes: W wells, N controls of one experiment, D features, R aligned features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phenopipe.align.statistics import Moments, moments

Floats = NDArray[np.floating]
Aligner = Callable[[Floats], NDArray[np.float64]]


@dataclass(frozen=True)
class LinearMap:
    """What aligns the wells of one experiment: ``(x - shift) @ matrix - offset``.

    Attributes
    ----------
    shift : float array of shape (n_features,)
        Subtracted first.
    matrix : float array of shape (n_features, n_aligned_features)
        Turns and scales features.
    offset : float array of shape (n_aligned_features,)
        Subtracted last.
    """

    shift: NDArray[np.float64]
    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    def __call__(self, x_WD: Floats) -> NDArray[np.float64]:
        """Align wells: ``(n_wells, n_features)`` to ``(n_wells, n_aligned_features)``."""
        aligned_WR: NDArray[np.float64] = (x_WD - self.shift) @ self.matrix
        if self.offset.any():
            aligned_WR -= self.offset
        return aligned_WR


class ControlNormalizer(ABC):
    """Alignment in two parts: one fitted on all controls, one on each experiment's own.

    Attributes
    ----------
    trim : float
        Share of wells that a middle leaves out at either end of each component.
    center_ : float array of shape (n_features,)
        Mean of all controls; zero if each experiment has its own centre.
    projection_ : float array of shape (n_features, n_components)
        ``(x - center) @ projection_`` has unit variances on all controls.
    middle_ : float array of shape (n_components,)
        Where the middle well lies as seen from the controls, over all experiments; zero
        if centres come from controls.
    """

    trim: float = 0.1
    center_: NDArray[np.float64]
    projection_: NDArray[np.float64]
    middle_: NDArray[np.float64]

    @property
    @abstractmethod
    def centers_each(self) -> bool:
        """Whether each experiment has its own centre."""

    @abstractmethod
    def fit_shared(self, parts: Iterable[Moments]) -> Self:
        """Fit what all experiments share, from the moments of each one's controls.

        Raises
        ------
        ValueError
            If there are no controls, or they do not vary.
        """

    @abstractmethod
    def even_out(self, own: Moments, control_ND: Floats) -> NDArray[np.float64]:
        """Matrix (R, R) that evens out the spread of one experiment's controls."""

    def fit(
        self,
        x_WD: Floats,
        is_control_W: ArrayLike,
        experiment_W: ArrayLike,
        is_center_W: ArrayLike | None = None,
    ) -> Self:
        """Learn from the controls of all experiments and of each.

        Parameters
        ----------
        x_WD : float array of shape (n_wells, n_features)
            Well embeddings.
        is_control_W : bool array of shape (n_wells,)
            Which wells are controls.
        experiment_W : array of shape (n_wells,)
            Experiment of each well.
        is_center_W : bool array of shape (n_wells,), optional
            Wells that show where their experiment lies among the others, see
            :meth:`fit_middle`. Default: its controls, and no other well is looked at.

        Raises
        ------
        ValueError
            If an experiment has no control, or the controls do not vary.
        """
        controls = rows_by_experiment(x_WD, is_control_W, experiment_W)
        own = {name: moments(x_ND) for name, x_ND in controls.items()}
        self.fit_shared(own.values())
        middles: dict[Any, NDArray[np.float64]] = {}
        if is_center_W is not None:
            central = rows_by_experiment(x_WD, is_center_W, experiment_W)
            middles = {n: self.middle_of(x_ND, central[n]) for n, x_ND in controls.items()}
            self.fit_middle(middles.values())
        self.maps_ = {
            name: self._map(own[name], x_ND, middles.get(name))
            for name, x_ND in controls.items()
        }
        return self

    def fit_middle(self, middles: Iterable[NDArray[np.float64]]) -> Self:
        """Fit where the middle well lies as seen from the controls.

        Parameters
        ----------
        middles : iterable of float arrays of shape (n_components,)
            What :meth:`middle_of` tells of each experiment, in a fixed order.

        Notes
        -----
        n controls give a centre that is off by 1/sqrt(n) standard deviations in each of R
        directions, alike for all wells: with few controls, enough to tell experiments
        apart. The middle of all wells is nearer the truth, and strong phenotypes hardly
        move it, since each component's mean leaves out its ends. It is not where the
        controls are, so the mean over experiments is added back: experiments are put in
        line by their wells, all together by their controls.
        """
        self.middle_ = np.mean(list(middles), axis=0)
        return self

    def middle_of(self, control_ND: Floats, central_WD: Floats) -> NDArray[np.float64]:
        """Where one experiment's middle well lies, as seen from its controls.

        Parameters
        ----------
        control_ND : float array of shape (n_controls, n_features)
            Its controls.
        central_WD : float array of shape (n_wells, n_features)
            Wells of any role.

        Returns
        -------
        float array of shape (n_components,)
            Middles of projected features: middles of raw ones err independently, and where
            these are nearly dependent, whitening would make much of that.
        """
        mean_D = control_ND.mean(axis=0, dtype=np.float64)
        sorted_WR = np.sort((central_WD - mean_D) @ self.projection_, axis=0)
        cut = int(self.trim * len(sorted_WR))
        # The trimmed mean of scipy.stats, which takes longer to import than this step to run.
        middle_R: NDArray[np.float64] = sorted_WR[cut : len(sorted_WR) - cut].mean(axis=0)
        return middle_R

    def map_of(self, control_ND: Floats, central_WD: Floats | None = None) -> LinearMap:
        """Map of one experiment, whether or not the shared part was fitted on it.

        Parameters
        ----------
        control_ND : float array of shape (n_controls, n_features)
            Its controls.
        central_WD : float array of shape (n_wells, n_features), optional
            Wells that show where it lies among the others. Default: its controls.
        """
        middle_R = None if central_WD is None else self.middle_of(control_ND, central_WD)
        return self._map(moments(control_ND), control_ND, middle_R)

    def _map(
        self, own: Moments, control_ND: Floats, middle_R: NDArray[np.float64] | None
    ) -> LinearMap:
        even_RR = self.even_out(own, control_ND)
        offset_R = np.zeros(len(even_RR))
        if middle_R is not None and self.centers_each:
            offset_R = (middle_R - self.middle_) @ even_RR
        shift_D = own.mean if self.centers_each else self.center_
        return LinearMap(shift_D, self.projection_ @ even_RR, offset_R)

    def transform(self, x_WD: Floats, experiment_W: ArrayLike) -> NDArray[np.float64]:
        """Align wells of the experiments that were fitted.

        Returns
        -------
        float array of shape (n_wells, n_components)
            Aligned embeddings.

        Raises
        ------
        ValueError
            If an experiment was not fitted.
        """
        return map_each(x_WD, experiment_W, self.maps_)


def rows_by_experiment(
    x_WD: Floats, is_chosen_W: ArrayLike, experiment_W: ArrayLike
) -> dict[Any, Floats]:
    """Chosen rows of each experiment, such as its controls; experiments sorted.

    Raises
    ------
    ValueError
        If an experiment has no such row, an array's length differs from the number of
        wells, or a chosen row is not finite.
    """
    x_WD, chosen_W = np.asarray(x_WD), np.asarray(is_chosen_W, dtype=bool)
    names_W = np.asarray(experiment_W)
    if not len(x_WD) == len(chosen_W) == len(names_W):
        lengths = f"{len(x_WD)}, {len(chosen_W)} and {len(names_W)}"
        raise ValueError(f"wells, controls and experiments of lengths {lengths}, wanted one")
    if not np.isfinite(x_WD[chosen_W]).all():
        raise ValueError("a control has a value that is not finite")
    found: dict[Any, Floats] = {}
    for name in np.unique(names_W).tolist():
        found[name] = x_WD[chosen_W & (names_W == name)]
        if not len(found[name]):
            raise ValueError(f"experiment {name} has no control, wanted at least one")
    return found


def map_each(
    x_WD: Floats, experiment_W: ArrayLike, map_of: Mapping[Any, Aligner]
) -> NDArray[np.float64]:
    """Align wells of several experiments, each by its experiment's map.

    Raises
    ------
    ValueError
        If a well's experiment has no map.
    """
    x_WD, names_W = np.asarray(x_WD), np.asarray(experiment_W)
    parts: list[tuple[NDArray[np.intp], NDArray[np.float64]]] = []
    for name in np.unique(names_W).tolist():
        if name not in map_of:
            raise ValueError(f"experiment {name} was not fitted, wanted one of {list(map_of)}")
        rows = np.flatnonzero(names_W == name)
        parts.append((rows, map_of[name](x_WD[rows])))
    width = parts[0][1].shape[1] if parts else x_WD.shape[1]
    aligned_WR = np.empty((len(x_WD), width))
    for rows, aligned in parts:
        aligned_WR[rows] = aligned
    return aligned_WR
