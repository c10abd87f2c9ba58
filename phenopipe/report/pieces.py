"""What a section of the page is made of: prose, figures, tables, pictures, searches.

Sections are built from these plain values; only the template knows how they look.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Prose:
    """A paragraph; ``is_quiet`` for asides."""

    text: str
    is_quiet: bool = False
    kind: ClassVar[str] = "prose"


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Facts:
    """Headline numbers: (number, what it counts)."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Figure:
    """A Vega-Lite chart with its data, and what to see in it."""

    spec: dict[str, Any]
    caption: str
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Table:
    """Rows of text under a header.

    ``numeric`` are positions of right-aligned columns, ``best`` (row, column) of bold
    cells, ``groups`` rows that open a group: position to its title.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: frozenset[int] = frozenset()
    best: frozenset[tuple[int, int]] = frozenset()
    groups: dict[int, str] = field(default_factory=dict)
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Pictures:
    """Small images as data URIs: (uri, label), in rows of equal size."""

    items: Sequence[tuple[str, str]]
    caption: str
    size: int = 128
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Drawing:
    """An SVG element of our own."""

    svg: str
    caption: str
    kind: ClassVar[str] = "drawing"


@dataclass(frozen=True)
class Search:
    """Nearest entities on the map of each encoder, searched by the page's own script."""

    data: dict[str, Any]
    caption: str
    first: str = ""
    kind: ClassVar[str] = "search"


@dataclass(frozen=True)
class Fold:
    """Pieces that open on demand."""

    title: str
    pieces: Sequence["Piece"]
    kind: ClassVar[str] = "fold"


@dataclass(frozen=True)
class Code:
    """Commands to be pasted into a shell."""

    text: str
    kind: ClassVar[str] = "code"


Piece = Prose | Heading | Facts | Figure | Table | Pictures | Drawing | Search | Fold | Code


@dataclass(frozen=True)
class Section:
    """One part of the page; ``name`` is its anchor, a stage's name where it has one.

    A section without pieces shows ``absent``, which says what the run did without;
    ``answer`` is the question's answer in one line, for the overview.
    """

    name: str
    title: str
    question: str
    pieces: Sequence[Piece]
    source: str = ""
    absent: str = "Not part of this run."
    answer: str = ""


def tell(value: object, digits: int = 3) -> str:
    """Write a value for a reader: thousands apart, few digits, a dash for nothing.

    Examples
    --------
    >>> tell(12345), tell(0.12345), tell(None), tell(float("nan")), tell(0.00012)
    ('12,345', '0.123', '–', '–', '0.00012')
    """
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    number = float(value)  # type: ignore[arg-type]
    if number and abs(number) < 10.0**-digits:
        return f"{number:.2g}"
    return f"{number:,.{digits}f}"


def table_of(frame: pl.DataFrame, header: dict[str, str], caption: str = "") -> Table:
    """Show some columns of a frame, under the names that ``header`` gives them."""
    shown = frame.select(list(header))
    numeric = frozenset(i for i, t in enumerate(shown.dtypes) if t.is_numeric())
    rows = [[tell(value) for value in row] for row in shown.iter_rows()]
    return Table(list(header.values()), rows, caption, numeric)
