"""Step ``tables``: benchmarks in the shape of the paper's tables, as CSV, Markdown, HTML."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from markupsafe import escape

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic
from phenopipe.formats.benchmarks import REPLICATE_PAIRS
from phenopipe.formats.tables import read_any
from phenopipe.knobs import parse_step, run_step
from phenopipe.report.config import TablesKnobs
from phenopipe.report.gather import read_named, read_results, stack
from phenopipe.report.pieces import tell
from phenopipe.report.scoreboard import ABOUT, compound_board, map_board, marks

PAPER = ("table", "model", "data", "block", "trimmed", "baseline", "metric", "value", "spread")
INPUTS = ("recall", "replicates", "replicates_pairs", "magnitude", "compounds")
TITLES = {
    "maps": "Recall of known relationships and replicate consistency (paper Tables 1 and 2)",
    "compounds": "Compound-gene precision and magnitude (paper Tables 3 and 6)",
}
NOTES = (
    "Higher is better; best bold, best baseline italic, for each benchmark. b: the block that "
    "embeds. KS and CVM are medians over the technical pairs that all encoders of a benchmark "
    "have alike. Rows of the paper stand here for reference: other screens, other cells."
)
EMPTY = "–"


def read_paper(path: Path | None) -> pl.DataFrame:
    """Read the paper's numbers; an empty frame if there is no file.

    Raises
    ------
    UserError
        If a column is absent.
    """
    if path is None:
        return pl.DataFrame()
    table = read_any(path)
    absent = [name for name in PAPER if name not in table.columns]
    if absent:
        raise UserError(f"{path}: no column {absent[0]!r}, wanted {', '.join(PAPER)}")
    return table.with_columns(
        pl.col("table").cast(pl.String),
        pl.col("block").cast(pl.Int64),
        pl.col("value", "spread").cast(pl.Float64),
    )


def to_markdown(board: pl.DataFrame) -> str:
    """Write a board as a Markdown table."""
    lines = ["| " + " | ".join(board.columns) + " |", "|---" * len(board.columns) + "|"]
    for cells in _cells(board, "**{}**", "*{}*"):
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def to_html(board: pl.DataFrame) -> str:
    """Write a board as an HTML table."""
    head = "".join(f"<th>{escape(name)}</th>" for name in board.columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for cells in _cells(board, "<b>{}</b>", "<i>{}</i>", html=True)
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _cells(
    board: pl.DataFrame, bold: str, italic: str, *, html: bool = False
) -> list[list[str]]:
    """Text of every cell, marked where it is the best."""
    best, best_baseline = marks(board)
    rows = []
    for at, row in enumerate(board.iter_rows(named=True)):
        cells = []
        for name, value in row.items():
            text = _text(name, value)
            text = str(escape(text)) if html else text
            if (at, name) in best_baseline:
                text = italic.format(text)
            cells.append(bold.format(text) if (at, name) in best else text)
        rows.append(cells)
    return rows


def _text(name: str, value: object) -> str:
    if name == "trimmed":
        return "trimmed" if value else ""
    return tell(value) if name not in ABOUT or name == "b" else str(value or EMPTY)


def write_document(boards: dict[str, pl.DataFrame], *, html: bool) -> str:
    """Write all boards under their titles, as Markdown or as one HTML page."""
    parts = []
    for name, board in boards.items():
        title = TITLES[name]
        if board.is_empty():
            table = "Not part of this run."
        else:
            table = to_html(board) if html else to_markdown(board)
        parts.append(f"<h2>{title}</h2>\n{table}" if html else f"## {title}\n\n{table}")
    if not html:
        return "\n\n".join([*parts, NOTES]) + "\n"
    style = "td,th{padding:.2em .7em;text-align:left}body{font-family:sans-serif}"
    head = f'<meta charset="utf-8"><title>Benchmarks</title><style>{style}</style>'
    return f"<!doctype html>\n{head}\n" + "\n".join(parts) + f"\n<p>{NOTES}</p>\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``report_tables``."""
    files, knobs = parse_step(
        TablesKnobs,
        inputs=[
            "recall*",
            "replicates*",
            "replicates_pairs*",
            "magnitude*",
            "compounds*",
            "paper?",
        ],
        outputs=["maps", "doses", "markdown", "html"],
        doc=__doc__,
        argv=argv,
    )
    paper = read_paper(files.paper)
    pairs = stack(read_named(path, REPLICATE_PAIRS) for path in files.replicates_pairs)
    maps = read_results([*files.recall, *files.replicates])
    doses = read_results([*files.compounds, *files.magnitude])
    boards = {
        "maps": map_board(maps, pairs, knobs.baselines, paper),
        "compounds": compound_board(doses, knobs.baselines, knobs.random, paper),
    }
    written = {
        files.maps: boards["maps"].write_csv() if boards["maps"].width else "",
        files.doses: boards["compounds"].write_csv() if boards["compounds"].width else "",
        files.markdown: write_document(boards, html=False),
        files.html: write_document(boards, html=True),
    }
    for path, text in written.items():
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_step(main)
