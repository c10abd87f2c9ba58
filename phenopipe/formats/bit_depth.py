"""Pixels of 16 bits as 8: a look-up table for every plate and channel."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

VALUES = 1 << 16
Limits = Mapping[str, Mapping[str, tuple[int, int]]]
"""Plate, then channel: the values that become 0 and 255."""
Tables = Mapping[str, NDArray[np.uint8]]
"""Plate: the 8-bit value of each 16-bit one in every channel, (channels, 65536)."""


def lookup(limits: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    """For every channel, the 8-bit value of each 16-bit one: (channels, 65536).

    Examples
    --------
    >>> lookup([(100, 355)])[0, [0, 100, 101, 355, 60000]].tolist()
    [0, 0, 1, 255, 255]
    """
    value_V = np.arange(VALUES, dtype=np.float64)
    tables = [np.rint((value_V - low) * 255 / (high - low)) for low, high in limits]
    cut: NDArray[np.uint8] = np.clip(np.stack(tables), 0, 255).astype(np.uint8)
    return cut


def lookups(limits: Limits, channels: Sequence[str]) -> Tables:
    """Look-up tables of every plate; plates with equal limits share one."""
    made: dict[tuple[tuple[int, int], ...], NDArray[np.uint8]] = {}
    found = {}
    for plate, of_channel in limits.items():
        low_high = [of_channel[name] for name in channels]
        key = tuple((int(low), int(high)) for low, high in low_high)
        if key not in made:
            made[key] = lookup(key)
        found[plate] = made[key]
    return found


def to_8_bit(pixels_CHW: NDArray[np.integer], table_CV: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels of one site by the table of its plate."""
    return np.stack([table[one] for table, one in zip(table_CV, pixels_CHW, strict=True)])
