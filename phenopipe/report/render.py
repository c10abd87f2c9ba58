"""From sections to one HTML text that opens offline: styles, script and charts inside it."""

import functools
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup, escape

from phenopipe import __version__
from phenopipe.report.charts import theme
from phenopipe.report.pieces import Section

# Digits that a chart can show; more would only swell the file.
DIGITS = 5


def render_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Write the page.

    Parameters
    ----------
    title, lead : str
        Heading, and the sentence under it.
    sections : list of Section
        In the order in which data flow.

    Returns
    -------
    str
        HTML that loads nothing from outside; its own content security policy forbids it.
    """
    data: dict[str, str] = {}

    def embedded(content: dict[str, Any]) -> str:
        name = f"data-{len(data) + 1}"
        data[name] = script_json(content)
        return name

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["ticks"] = ticks
    template = environment.from_string(_package_text("page.html.jinja"))
    return template.render(
        title=title,
        lead=lead,
        sections=sections,
        version=__version__,
        embedded=embedded,
        data=data,
        themes=script_json({"light": theme(dark=False), "dark": theme(dark=True)}),
        style=_package_text("page.css"),
        script=_package_text("page.js"),
        library=chart_library(),
    )


@functools.cache
def chart_library() -> str:
    """Return the JavaScript that draws all charts; it goes into the page once."""
    version = ".".join(alt.VEGALITE_VERSION.split(".")[:2])
    bundle = vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]
    return str(bundle).replace("</script", "<\\/script")


def script_json(content: object) -> str:
    r"""Write JSON that can stand between script tags, its numbers rounded.

    Examples
    --------
    >>> script_json({"a": 0.123456789, "b": "</script>"})
    '{"a":0.12346,"b":"\\u003c/script>"}'
    """
    text = json.dumps(_rounded(content), separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c")


def ticks(text: str) -> Markup:
    """Escape text for HTML and set what stands between backticks as code.

    Examples
    --------
    >>> str(ticks("a < b in `x_ND`"))
    'a &lt; b in <code>x_ND</code>'
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _rounded(content: object) -> object:
    if isinstance(content, float):
        return float(f"{content:.{DIGITS}g}") if content == content else None
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    return content


def _package_text(name: str) -> str:
    return resources.files("phenopipe.report").joinpath("templates", name).read_text("utf-8")
