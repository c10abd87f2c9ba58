"""Sections overview, run and rerun: the stages, which knobs they ran with, how again."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from phenopipe.report.dag import STAGES, dag_svg
from phenopipe.report.pieces import Code, Drawing, Fold, Piece, Prose, Section, Table, tell

JOBS_SHOWN = 12
# Knobs that say what a job is about rather than how it works are the same in no two jobs.
LONG = 60


def overview_section(sections: Sequence[Section], ran: set[str]) -> Section:
    """Draw the stages, and answer each one's question in one line.

    Parameters
    ----------
    sections : list of Section
        The sections that follow.
    ran : set of str
        Stages that were part of the run.
    """
    absent = {stage.name for stage in STAGES if stage.on_page} - ran - {"report"}
    caption = (
        "Boxes are stages, lines the main files between them; dashed lines are encoders. A "
        "trained encoder embeds the wells again, so that it can curate the next training set."
    )
    if absent:
        caption += " Faint stages were not part of this run."
    rows = [[s.title, s.question, s.answer] for s in sections if s.answer]
    return Section(
        "overview",
        "Overview",
        "What did the chain make of this screen?",
        [
            Drawing(dag_svg(absent=absent, linked=True), caption),
            Table(["stage", "question", "answer"], rows),
        ],
    )


def run_section(stamps: Sequence[Mapping[str, Any]]) -> Section:
    """List every step that left a file here, with its knobs, seeds and code version.

    Parameters
    ----------
    stamps : list of mapping
        The stamp of every file that the page read.
    """
    steps: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for stamp in stamps:
        steps.setdefault((str(stamp.get("stage")), str(stamp.get("step"))), []).append(stamp)
    order = {stage.name: at for at, stage in enumerate(STAGES)}
    keys = sorted(steps, key=lambda key: (order.get(key[0], 99), key[1]))
    versions = sorted({str(stamp.get("version")) for stamp in stamps})
    rows = [
        [
            ".".join(key),
            tell(len(jobs_of(steps[key]))),
            ", ".join(sorted(_values(steps[key]).get("seed", {"–"}))),
            _differences(steps[key]),
        ]
        for key in keys
    ]
    header = ["step", "jobs", "seed", "knobs that differ between its jobs"]
    table = Table(header, rows, "", frozenset({1}))
    folds = [_knobs_of_step(".".join(key), steps[key]) for key in keys]
    text = (
        f"Made by phenopipe {', '.join(versions)}. Every file carries the step that made it, "
        "its knobs and the fingerprints of its inputs; host, job and times stand in "
        "`logs/provenance/`."
    )
    return Section(
        "run",
        "What was run",
        "Which steps, with which knobs and seeds?",
        [Prose(text), table, Fold("All knobs of every step", folds)] if rows else [],
        answer=f"{len(rows)} steps, {sum(len(jobs_of(v)) for v in steps.values())} jobs",
    )


def rerun_section() -> Section:
    """Say how to make this page again, and how to rerun a part."""
    pieces: list[Piece] = [
        Prose("What is up to date is not run again; this says what would be, and why:"),
        Code("snakemake --profile local --dry-run all"),
        Prose("Run everything, here or on a cluster:"),
        Code("snakemake --profile local all\nsnakemake --profile slurm all"),
        Prose("Run up to one stage, or one stage again:"),
        Code(
            "snakemake --profile local align\n"
            "snakemake --profile local --forcerun align_fit -- all"
        ),
        Prose(
            "A knob is changed in `workflow_config.yaml`; the steps that read it, and what "
            "follows from them, run again. A new experiment is one more line among a screen's "
            "experiments."
        ),
    ]
    return Section("rerun", "How to rerun", "How is this page made again?", pieces)


def jobs_of(stamps: Sequence[Mapping[str, Any]]) -> set[str]:
    """Tell the jobs of a step apart by names and inputs; a job may leave several files."""
    return {json.dumps([s.get("names"), s.get("inputs")], sort_keys=True) for s in stamps}


def _values(stamps: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Every value that each knob of a step had, written as JSON."""
    values: dict[str, set[str]] = {}
    for stamp in stamps:
        for name, value in stamp.get("knobs", {}).items():
            values.setdefault(name, set()).add(json.dumps(value, sort_keys=True))
    return values


def _differences(stamps: Sequence[Mapping[str, Any]]) -> str:
    different = [name for name, values in _values(stamps).items() if len(values) > 1]
    return ", ".join(f"`{name}`" for name in different) or "none"


def _knobs_of_step(name: str, stamps: Sequence[Mapping[str, Any]]) -> Piece:
    """Tabulate the knobs of a step, one column for each group of jobs that differ."""
    rows = []
    for knob, values in sorted(_values(stamps).items()):
        shown = sorted(value if len(value) <= LONG else value[:LONG] + "…" for value in values)
        more = f" and {len(shown) - JOBS_SHOWN} more" if len(shown) > JOBS_SHOWN else ""
        rows.append([f"`{knob}`", "  |  ".join(shown[:JOBS_SHOWN]) + more])
    return Table(["knob", "value"], rows, f"`{name}`")
