"""Tidy results: one row a number, the same columns for every probe and benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from phenopipe.formats.tables import Schema

RESULTS = Schema(
    "results",
    {
        "encoder": (pl.String, "encoder that saw the wells"),
        "block": (pl.Int32, "block counted from 1; 0 where blocks do not apply"),
        "trimmed": (pl.Boolean, "the encoder was cut after its best block"),
        "screen": (pl.String, "screen"),
        "benchmark": (pl.String, "name of the benchmark or probe task"),
        "source": (pl.String, "source of truth, or what the number is split by"),
        "metric": (pl.String, "what was measured"),
        "value": (pl.Float64, "the number"),
        "low": (pl.Float64, "lower end of the 95 % interval; null if none"),
        "high": (pl.Float64, "upper end; null if none"),
        "n": (pl.Int64, "items behind the number"),
        "seed": (pl.Int64, "seed of its draws; null if none"),
    },
)


def tidy(rows: Sequence[Mapping[str, Any]], **shared: Any) -> pl.DataFrame:  # noqa: ANN401
    """Make a results table of rows that give only what sets them apart.

    Examples
    --------
    >>> row = {"source": "CORUM", "metric": "recall", "value": 0.6}
    >>> tidy([row], encoder="mae", block=0, trimmed=False).row(0)[:6]
    ('mae', 0, False, None, None, 'CORUM')
    """
    schema = {name: dtype for name, (dtype, _) in RESULTS.columns.items()}
    unknown = {name for row in rows for name in row} | set(shared)
    assert unknown <= set(schema), unknown - set(schema)
    columns = {name: [{**shared, **row}.get(name) for row in rows] for name in schema}
    return pl.DataFrame(columns, schema=schema)
