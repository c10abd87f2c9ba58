"""Intervals of shares and of differences, as rows of results."""

from typing import Any

import numpy as np
from scipy.stats import binomtest

Row = dict[str, Any]


def share_row(metric: str, hits: int, n: int, **names: str) -> Row:
    """Write a share with its 95 % interval (Wilson); no value where nothing was counted.

    Examples
    --------
    >>> row = share_row("qc_recall", 9, 10, source="all")
    >>> row["value"], round(row["low"], 2), round(row["high"], 2)
    (0.9, 0.6, 0.98)
    """
    row: Row = {"metric": metric, "n": n, **names}
    if n == 0:
        return row
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return row | {"value": hits / n, "low": float(interval.low), "high": float(interval.high)}


def difference(first: Row, second: Row) -> tuple[float, float, float]:
    """Difference of two independent numbers, and its interval from theirs.

    Notes
    -----
    Each end lies as far from the difference as the distances of the two numbers' own ends,
    added in squares.

    References
    ----------
    Zou and Donner (2008), Construction of confidence limits about effect measures,
    Statistics in Medicine 27, 1693-1702.
    """
    value = first["value"] - second["value"]
    below = np.hypot(first["value"] - first["low"], second["high"] - second["value"])
    above = np.hypot(first["high"] - first["value"], second["value"] - second["low"])
    return value, value - float(below), value + float(above)
