"""How far a value lies from those of its own plate, in robust standard deviations.

Shape suffixes: N sites, C channels.
"""

import numpy as np
from numpy.typing import NDArray

# Wells that show what cells look like when nothing was done to them.
REFERENCE_ROLES = ("negative_control", "empty")
# Median absolute deviation of a normal law with standard deviation 1, inverted.
_NORMAL = 1.4826


def deviations(
    values_NC: NDArray[np.floating],
    plate_N: NDArray[np.str_],
    is_reference_N: NDArray[np.bool_],
    *,
    min_reference: int,
) -> NDArray[np.float64]:
    """Signed distance from the median of a plate's reference sites, in robust deviations.

    Parameters
    ----------
    values_NC : float array of shape (n_sites, n_channels)
        A metric; NaN where it is unknown.
    plate_N : str array of shape (n_sites,)
        Plate of each site.
    is_reference_N : bool array of shape (n_sites,)
        Sites that show what is usual, such as those of negative controls.
    min_reference : int
        A plate with fewer reference sites is compared with all of its sites.

    Returns
    -------
    float array of shape (n_sites, n_channels)
        NaN stays NaN.

    Notes
    -----
    The unit is 1.4826 times the median absolute deviation: of the reference sites or of
    all sites, whichever is larger. Where most perturbations do something, a phenotype is
    then nothing unusual, and a handful of controls that look alike by chance flag nothing.
    """
    out_NC = np.full(values_NC.shape, np.nan)
    for plate in np.unique(plate_N):
        on_plate_N = plate_N == plate
        all_NC = values_NC[on_plate_N]
        reference_NC = values_NC[on_plate_N & is_reference_N]
        if len(reference_NC) < min_reference:
            reference_NC = all_NC
        centre_C = _median(reference_NC)
        unit_C = np.fmax(_spread(reference_NC), _spread(all_NC))
        # Where all values are equal, any other is infinitely far; 0/0 is no distance.
        away_NC = all_NC - centre_C
        with np.errstate(divide="ignore", invalid="ignore"):
            far_NC = np.where(away_NC == 0, 0.0, away_NC / unit_C)
        out_NC[on_plate_N] = np.where(np.isnan(away_NC), np.nan, far_NC)
    return out_NC


def plate_medians(
    values_N: NDArray[np.floating],
    plate_N: NDArray[np.str_],
    is_reference_N: NDArray[np.bool_],
    *,
    min_reference: int,
) -> NDArray[np.float64]:
    """Median of the reference sites of each site's plate; see :func:`deviations`."""
    out_N = np.full(values_N.shape, np.nan)
    for plate in np.unique(plate_N):
        on_plate_N = plate_N == plate
        reference_N = values_N[on_plate_N & is_reference_N]
        usual_N = reference_N if len(reference_N) >= min_reference else values_N[on_plate_N]
        out_N[on_plate_N] = _median(usual_N[:, None])[0]
    return out_N


def _spread(values_NC: NDArray[np.floating]) -> NDArray[np.float64]:
    return _NORMAL * _median(np.abs(values_NC - _median(values_NC)))


def _median(values_NC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Median of each column without its NaN; NaN where nothing is left."""
    known_C = (~np.isnan(values_NC)).any(axis=0)
    median_C = np.full(values_NC.shape[1], np.nan)
    if known_C.any():
        median_C[known_C] = np.nanmedian(values_NC[:, known_C], axis=0)
    return median_C
