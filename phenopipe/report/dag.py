"""The figure of the stages and the files between them, as one SVG.

It is drawn from the two tables below, with no layout program, so that the README and the
report show the same picture, in light and in dark.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from phenopipe.formats.atomic import atomic

WIDTH, HEIGHT = 1068, 414
BOX_WIDTH, BOX_HEIGHT = 172, 74
CORNER = 9


@dataclass(frozen=True)
class Stage:
    """One stage: its box, and the question that it answers.

    ``x`` and ``y`` are the centre of the box; ``question`` is one or two lines. What comes
    after the page has no section on it.
    """

    name: str
    question: tuple[str, ...]
    x: int
    y: int
    width: int = BOX_WIDTH
    on_page: bool = True


@dataclass(frozen=True)
class Edge:
    """What one stage hands to another, and the way its line takes.

    ``points`` are corners of the line from box to box; ``label_at`` the label's middle.
    """

    source: str
    target: str
    label: str
    points: tuple[tuple[int, int], ...]
    label_at: tuple[int, int]
    is_encoder: bool = False


STAGES = (
    Stage("screen", ("what was done to a well,", "where are its pixels?"), 98, 54),
    Stage("qc", ("which images and wells", "can be trusted?"), 314, 54),
    Stage("undersample", ("enough replicates?", "how many controls?"), 530, 54),
    Stage("phenoprints", ("which wells make", "the training set?"), 746, 54),
    Stage("pretrain", ("train an encoder",), 966, 54),
    Stage("embed", ("what does the encoder", "see at every block?"), 314, 196),
    Stage("align", ("what of that", "is batch effect?"), 530, 196),
    Stage("consistency", ("which conditions change", "cells the same way?"), 746, 196),
    Stage("export", ("how do other tools", "read what we made?"), 98, 356, on_page=False),
    Stage("probe", ("which block separates", "biology best?"), 314, 356),
    Stage("benchmark", ("how good is the map?",), 530, 356),
    Stage("report", ("what did we learn?", "reads every table above"), 856, 356, 392),
)

EDGES = (
    Edge("screen", "qc", "wells", ((184, 54), (228, 54)), (205, 45)),
    Edge("qc", "undersample", "flags", ((400, 54), (444, 54)), (421, 45)),
    Edge("undersample", "phenoprints", "wells", ((616, 54), (660, 54)), (637, 45)),
    Edge("phenoprints", "pretrain", "manifest", ((832, 54), (880, 54)), (856, 45)),
    Edge("screen", "embed", "pixels", ((98, 91), (98, 196), (228, 196)), (162, 187)),
    Edge(
        "qc",
        "align",
        "trusted wells",
        ((344, 91), (344, 126), (530, 126), (530, 159)),
        (440, 117),
    ),
    Edge("embed", "align", "blocks", ((400, 196), (444, 196)), (421, 187)),
    Edge("align", "consistency", "wells", ((616, 196), (660, 196)), (637, 187)),
    Edge("consistency", "phenoprints", "p-values", ((746, 159), (746, 91)), (776, 129)),
    Edge("embed", "probe", "blocks", ((262, 233), (262, 319)), (238, 280)),
    Edge("align", "benchmark", "aligned wells", ((530, 233), (530, 319)), (574, 300)),
    Edge(
        "align",
        "export",
        "aligned wells, maps",
        ((480, 233), (480, 286), (98, 286), (98, 319)),
        (160, 277),
    ),
    Edge("benchmark", "report", "tables", ((616, 356), (660, 356)), (637, 347)),
    Edge("probe", "embed", "trimmed encoder", ((308, 319), (308, 233)), (360, 300), True),
    Edge(
        "pretrain",
        "embed",
        "encoder",
        ((966, 91), (966, 262), (360, 262), (360, 233)),
        (856, 253),
        True,
    ),
)

STYLE = """
.dag{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',
Arial,sans-serif;--dag-ink:#22272e;--dag-soft:#68717d;--dag-box:#ffffff;--dag-rim:#c9cfd6;
--dag-line:#8b95a1;--dag-accent:#2f6f9f;--dag-paper:#fbfaf8}
@media (prefers-color-scheme:dark){.dag{--dag-ink:#e4e7eb;--dag-soft:#9aa4b0;--dag-box:#22272e;
--dag-rim:#444d58;--dag-line:#75808d;--dag-accent:#7db7e0;--dag-paper:#16191d}}
.dag rect{fill:var(--dag-box);stroke:var(--dag-rim);stroke-width:1.2}
.dag path.line{fill:none;stroke:var(--dag-line);stroke-width:1.6}
.dag path.halo{fill:none;stroke:var(--dag-paper);stroke-width:7}
.dag path.encoder{stroke:var(--dag-accent);stroke-dasharray:6 4}
.dag path.tip{fill:var(--dag-line);stroke:none}
.dag path.tip-encoder{fill:var(--dag-accent);stroke:none}
.dag text{text-anchor:middle;fill:var(--dag-soft);font-size:11px}
.dag text.name{fill:var(--dag-ink);font-size:15px;font-weight:600}
.dag text.label{font-size:10.5px;paint-order:stroke;stroke:var(--dag-paper);stroke-width:4px}
.dag text.encoder{fill:var(--dag-accent)}
.dag a{text-decoration:none}
.dag a:hover rect{stroke:var(--dag-accent)}
.dag .absent{opacity:.45}
"""


def dag_svg(*, absent: Collection[str] = (), linked: bool = False) -> str:
    """Draw the stages, their questions and the files between them.

    Parameters
    ----------
    absent : collection of str
        Stages that were not part of a run; they are drawn faint.
    linked : bool
        Whether each box leads to the element whose id is the stage's name.

    Returns
    -------
    str
        An SVG element that needs no other file and follows the reader's colour scheme.
    """
    edges = [_draw_edge(edge, absent) for edge in EDGES]
    boxes = [_draw_box(stage, absent, linked) for stage in STAGES]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="dag" role="img" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="Stages of phenopipe">',
            f"<style>{STYLE}</style>",
            _marker("dag-tip", "tip"),
            _marker("dag-tip-encoder", "tip-encoder"),
            *edges,
            *boxes,
            "</svg>\n",
        ]
    )


def _marker(name: str, shape: str) -> str:
    return (
        f'<defs><marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        f'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path class="{shape}" d="M0 0.6 8 4 0 7.4z"/></marker></defs>'
    )


def _draw_box(stage: Stage, absent: Collection[str], linked: bool) -> str:
    left, top = stage.x - stage.width // 2, stage.y - BOX_HEIGHT // 2
    first = stage.y - (14 if len(stage.question) > 1 else 6)
    lines = [f'<text class="name" x="{stage.x}" y="{first}">{stage.name}</text>']
    for number, line in enumerate(stage.question):
        y = first + 19 + 15 * number
        lines.append(f'<text x="{stage.x}" y="{y}">{escape(line)}</text>')
    box = (
        f'<rect x="{left}" y="{top}" width="{stage.width}" height="{BOX_HEIGHT}" rx="10"/>'
        + "".join(lines)
    )
    if linked and stage.on_page:
        box = f'<a href="#{stage.name}">{box}</a>'
    return f'<g class="absent">{box}</g>' if stage.name in absent else f"<g>{box}</g>"


def _draw_edge(edge: Edge, absent: Collection[str]) -> str:
    route = _rounded(edge.points)
    kind, tip = ("line encoder", "dag-tip-encoder") if edge.is_encoder else ("line", "dag-tip")
    label_kind = "label encoder" if edge.is_encoder else "label"
    x, y = edge.label_at
    faint = ' class="absent"' if {edge.source, edge.target} & set(absent) else ""
    return (
        f'<g{faint}><path class="halo" d="{route}"/>'
        f'<path class="{kind}" d="{route}" marker-end="url(#{tip})"/>'
        f'<text class="{label_kind}" x="{x}" y="{y}">{escape(edge.label)}</text></g>'
    )


def _rounded(points: Sequence[tuple[int, int]]) -> str:
    """Write a line through corners as an SVG path whose corners are round."""
    path = [f"M{points[0][0]} {points[0][1]}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        path.append("L{} {}".format(*_towards(corner, before)))
        path.append("Q{} {} {} {}".format(*corner, *_towards(corner, after)))
    path.append(f"L{points[-1][0]} {points[-1][1]}")
    return "".join(path)


def _towards(corner: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """Step from a corner by its radius towards another point of a horizontal or vertical."""
    step_x = max(-CORNER, min(CORNER, other[0] - corner[0]))
    step_y = max(-CORNER, min(CORNER, other[1] - corner[1]))
    return corner[0] + step_x, corner[1] + step_y


def main(argv: Sequence[str] | None = None) -> None:
    """Write the figure: ``python -m phenopipe.report.dag docs/dag.svg``."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if len(arguments) != 1:
        sys.exit("usage: python -m phenopipe.report.dag FILE.svg")
    with atomic(Path(arguments[0])) as part:
        part.write_text(dag_svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
