"""Section rounds: what each training set and the encoder it trained were worth.

A training set whose judges were trained here is a further round of curation; the paper
suggests to curate again with the best model so far.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from phenopipe.report.pieces import Piece, Section, Table, tell
from phenopipe.report.scoreboard import recall_metric
from phenopipe.report.sections.probe import split_control

PLANTED = {"phenoprint_precision": "planted precision", "phenoprint_recall": "planted recall"}


def rounds_section(
    trained_on: Mapping[str, str],
    funnels: Mapping[str, Mapping[str, Any]],
    combined: Mapping[str, pl.DataFrame],
    blocks: pl.DataFrame,
    results: pl.DataFrame,
    truth: pl.DataFrame,
) -> Section:
    """Compare training sets: who chose them, their size, and what they taught.

    Parameters
    ----------
    trained_on : mapping of str to str
        Manifest that each trained encoder learned from.
    funnels : mapping of str to mapping
        Funnel of each manifest.
    combined : mapping of str to DataFrame
        Combined p-values of each manifest's judges.
    blocks, results : DataFrame
        Tidy results of the probes and of the benchmarks.
    truth : DataFrame
        Tidy figures of the planted truth; may be empty.
    """
    judges = {
        manifest: sorted(table["encoder"].unique()) for manifest, table in combined.items()
    }
    rounds = {
        encoder: round_of(manifest, trained_on, judges)
        for encoder, manifest in trained_on.items()
        if manifest in funnels
    }
    scores = _scores(blocks, results)
    tasks = sorted({name for one in scores.values() for name in one})
    planted = [metric for metric in PLANTED if _value(truth, metric) is not None]
    rows = []
    for encoder, number in sorted(rounds.items(), key=lambda item: (item[1], item[0])):
        manifest = trained_on[encoder]
        last = funnels[manifest]["steps"][-1]
        rows.append(
            [
                str(number),
                manifest,
                ", ".join(judges.get(manifest, [])) or "none",
                tell(last["wells"]),
                tell(last["conditions"]),
                *(tell(_value(truth, metric, manifest), 2) for metric in planted),
                encoder,
                *(tell(scores.get(encoder, {}).get(task)) for task in tasks),
            ]
        )
    header = ["round", "training set", "judges", "wells", "conditions"]
    header += [PLANTED[metric] for metric in planted]
    header += ["encoder", *tasks]
    text = frozenset({1, 2, 5 + len(planted)})
    caption = (
        "Round 0 learns from the uncurated set; a further round from what judges of the "
        "round before it kept. Accuracy is that of the best block."
    )
    table = Table(header, rows, caption, frozenset(range(len(header))) - text)
    pieces: list[Piece] = [table] if rows else []
    return Section(
        "rounds",
        "Rounds of curation",
        "Did curating, and curating again, help?",
        pieces,
        "results/phenoprints",
        "No encoder was trained on a manifest.",
        _answer(rounds, scores, tasks),
    )


def round_of(
    manifest: str, trained_on: Mapping[str, str], judges: Mapping[str, list[str]]
) -> int:
    """Count the rounds of curation behind a manifest; 0 if no judge chose it.

    Examples
    --------
    >>> round_of("again", {"mae": "once"}, {"once": ["cnn"], "again": ["mae"]})
    2
    """
    behind = [
        round_of(trained_on[judge], trained_on, judges)
        for judge in judges.get(manifest, [])
        if judge in trained_on
    ]
    return 1 + max(behind, default=0) if judges.get(manifest) else 0


def _scores(blocks: pl.DataFrame, results: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Best accuracy of each probe and mean recall of each benchmark, by encoder."""
    scores: dict[str, dict[str, float]] = {}
    best = (
        split_control(blocks)[0].group_by("encoder", "source").agg(pl.col("value").max())
        if blocks.height
        else blocks
    )
    for encoder, task, value in best.select("encoder", "source", "value").iter_rows():
        scores.setdefault(encoder, {})[f"accuracy, {task}"] = value
    for (name,), part in results.group_by("benchmark", maintain_order=True):
        recall = part.filter(metric=recall_metric(part)).group_by("encoder")
        for encoder, value in recall.agg(pl.col("value").mean()).sort("encoder").iter_rows():
            scores.setdefault(encoder, {})[f"recall, {name}"] = value
    return scores


def _value(truth: pl.DataFrame, metric: str, manifest: str | None = None) -> float | None:
    """Look up one figure of the planted truth; of any manifest if none is named."""
    if truth.is_empty():
        return None
    of_metric = truth.filter(metric=metric)
    found = of_metric if manifest is None else of_metric.filter(source=manifest)
    known = found["value"].drop_nulls()
    return float(known[0]) if len(known) else None


def _answer(
    rounds: Mapping[str, int], scores: Mapping[str, Mapping[str, float]], tasks: list[str]
) -> str:
    """Tell the first score of the best encoder of each round."""
    if not tasks:
        return ""
    best: dict[int, float] = {}
    for encoder, number in rounds.items():
        value = scores.get(encoder, {}).get(tasks[0])
        if value is not None:
            best[number] = max(best.get(number, value), value)
    told = [f"round {number}: {value:.2f}" for number, value in sorted(best.items())]
    return f"{tasks[0]}: {', '.join(told)}" if told else ""
