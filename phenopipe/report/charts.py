"""Charts of the page: aggregated frames in, Vega-Lite specifications out.

Colours and type come from :func:`theme`, once for light and once for dark; a chart only says
what it shows.
"""

from typing import Any

import altair as alt
import polars as pl

CATEGORIES = (
    "#3e7cb1", "#d98032", "#4a9b6e", "#b65a8c", "#8a6fc0", "#c2a23a", "#48a3ad", "#c4554d",
    "#7f8a96", "#7a9a3b",
)  # fmt: skip
# From nothing to much, on light and on dark paper.
SEQUENCES = {
    False: ("#e8eef2", "#a9c8dc", "#5f9cc4", "#2f6f9f", "#173f63"),
    True: ("#20282f", "#2b4a60", "#3b749c", "#6aa9d4", "#c3e1f5"),
}
# Colours of roles, the same wherever roles are coloured.
ROLES = {
    "perturbation": "#3e7cb1",
    "negative control": "#8d97a3",
    "positive control": "#d9603b",
    "empty": "#c2a23a",
}
FONT = (
    'system-ui, -apple-system, "Segoe UI", Inter, Roboto, "Helvetica Neue", Arial, sans-serif'
)
# Altair's own limit; a chart that reaches it should have been aggregated.
MAX_ROWS = 5000


def theme(*, dark: bool) -> dict[str, Any]:
    """Vega-Lite configuration of the page in one of its two colour schemes."""
    ink, soft, rim = (
        ("#e4e7eb", "#9aa4b0", "#323941") if dark else ("#22272e", "#68717d", "#e2dfd8")
    )
    axis = {
        "labelColor": soft, "titleColor": soft, "gridColor": rim, "domainColor": rim,
        "tickColor": rim, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": 400,
        "titlePadding": 8, "domain": False, "tickSize": 4,
    }  # fmt: skip
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": axis,
        "axisX": {"grid": False},
        "legend": {
            "labelColor": soft, "titleColor": soft, "labelFontSize": 11.5,
            "titleFontSize": 12, "titleFontWeight": 400, "symbolStrokeWidth": 2,
            "gradientLength": 120,
        },
        "header": {
            "labelColor": ink, "titleColor": soft, "labelFontSize": 12.5, "titleFontSize": 12,
        },
        "title": {"color": ink, "fontSize": 13, "fontWeight": 600, "anchor": "start"},
        "range": {
            "category": list(CATEGORIES),
            "ramp": list(SEQUENCES[dark]), "heatmap": list(SEQUENCES[dark]),
        },
        "bar": {"color": CATEGORIES[0]},
        "line": {"strokeWidth": 2},
        "point": {"filled": True, "size": 46},
        "rule": {"color": soft},
        "text": {"color": soft, "fontSize": 11.5},
    }  # fmt: skip


def data_of(frame: pl.DataFrame) -> alt.Data:
    """Hand a frame's rows to a chart."""
    assert frame.height <= MAX_ROWS, f"{frame.height} rows for a chart: aggregate first"
    return alt.Data(values=frame.to_dicts())


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Write a chart as a specification, without the address of its schema."""
    spec: dict[str, Any] = chart.to_dict(validate=True)
    spec.pop("$schema", None)
    # The page's theme rules; altair's own default configuration would override it.
    spec.pop("config", None)
    return spec
