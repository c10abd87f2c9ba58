"""Explain how two manifests differ: which wells only one of them has, and why.

    python -m phenopipe.phenoprints.diff results/phenoprints/A results/phenoprints/B

Reads the manifest, the combined p-values and the funnel of both folders, and the
undersampled wells that each was chosen from. It is a command for people, no step of the
workflow. Peak memory: at most a kilobyte a well, and half of that a test.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from phenopipe.formats.applied import Applied, Vocabulary
from phenopipe.formats.conditions import condition_texts
from phenopipe.formats.funnels import read_funnel
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.pvalues import COMBINED
from phenopipe.formats.tables import read_table
from phenopipe.formats.wells import N_IMAGES, WELLS, conditions
from phenopipe.knobs import run_step
from phenopipe.phenoprints.rescue import Judgement, saved_wells
from phenopipe.phenoprints.select import UNTESTABLE_ROLES

EARLIER = "lost in an earlier step"
LEFT_OUT = "kept untested, left out by a knob"
NOT_TESTED = "no condition tested"
OTHER_JUDGE = "its judge did not vote"
NOT_SIGNIFICANT = "condition not significant"
UNTESTED = "kept untested in both"
SAME = "saved by the same test"
ANOTHER = "saved by another test"
P_CHANGED = "saved by the same test, another p-value"
_READ = ["well_id", "role", "treatments", "saved_by", "judge", "p_value"]


@dataclass(frozen=True)
class Manifest:
    """A manifest and what it was chosen from.

    Attributes
    ----------
    wells : DataFrame
        ``well_id, role, treatments, saved_by, judge, p_value`` of its wells.
    came_in : Series
        ``well_id`` of the wells that the steps before left.
    combined : DataFrame
        Combined p-values of its judges; empty without judges.
    choice : dict
        The knobs that were in force; empty without judges.
    """

    wells: pl.DataFrame
    came_in: pl.Series
    combined: pl.DataFrame
    choice: dict[str, Any]


def read_manifest(folder: Path) -> Manifest:
    """Read the folder ``results/phenoprints/{manifest}``."""
    undersampled = folder.resolve().parents[1] / "undersample" / folder.resolve().name
    return Manifest(
        wells=read_table(folder / "manifest.parquet", MANIFEST, columns=_READ),
        came_in=read_table(undersampled / "wells.parquet", WELLS, ["well_id"])["well_id"],
        combined=read_table(folder / "pvalues.parquet", COMBINED),
        choice=read_funnel(folder / "funnel.json").get("choice", {}),
    )


def differences(a: Manifest, b: Manifest) -> pl.DataFrame:
    """Say of every well of two manifests which of them have it, and why.

    Returns
    -------
    DataFrame
        ``well_id, role, kind, found`` (``both``, ``only A``, ``only B``), ``reason``,
        ``condition``, ``judge_a``, ``judge_b``, ``p_a``, ``p_b``; sorted. For a well of one
        manifest, the other's p-value is the smallest that its conditions have there.
    """
    names = {"saved_by": "saved_by_b", "judge": "judge_b", "p_value": "p_b"}
    other = b.wells.select("well_id", *names).rename(names)
    both = a.wells.join(other, on="well_id").rename({"judge": "judge_a", "p_value": "p_a"})
    same = pl.col("saved_by").eq_missing(pl.col("saved_by_b")) & pl.col("judge_a").eq_missing(
        pl.col("judge_b")
    )
    both = both.with_columns(
        found=pl.lit("both"),
        reason=pl.when(~same)
        .then(pl.lit(ANOTHER))
        .when(pl.col("saved_by").is_null())
        .then(pl.lit(UNTESTED))
        .when(pl.col("p_a").eq_missing(pl.col("p_b")))
        .then(pl.lit(SAME))
        .otherwise(pl.lit(P_CHANGED)),
    )
    only_a = _unmatched(a, b).with_columns(found=pl.lit("only A"), judge_b=_NO_TEXT)
    only_a = only_a.rename({"judge": "judge_a", "p_value": "p_a", "p_other": "p_b"})
    only_b = _unmatched(b, a).with_columns(found=pl.lit("only B"), judge_a=_NO_TEXT)
    only_b = only_b.rename({"judge": "judge_b", "p_value": "p_b", "p_other": "p_a"})
    columns = ["well_id", "role", "treatments", "found", "reason", "saved_by"]
    columns += ["judge_a", "judge_b", "p_a", "p_b"]
    rows = pl.concat([part.select(columns) for part in (both, only_a, only_b)])
    kinds = conditions(rows).group_by("well_id").agg(kind=pl.col("kind").unique().sort())
    return (
        rows.drop("treatments")
        .rename({"saved_by": "condition"})
        .join(kinds, on="well_id", how="left")
        .with_columns(pl.col("kind").list.join("+").fill_null("none"))
        .sort("well_id")
    )


_NO_TEXT = pl.lit(None, pl.String)


def _unmatched(one: Manifest, other: Manifest) -> pl.DataFrame:
    """Wells of one manifest that another has not, with ``reason`` and ``p_other``."""
    gone = one.wells.join(other.wells.select("well_id"), on="well_id", how="anti")
    came = pl.col("well_id").is_in(other.came_in.implode())
    untestable = pl.col("role").is_in(UNTESTABLE_ROLES)
    judges = other.combined["encoder"].unique().implode()
    return gone.with_columns(p_other=_smallest(gone, other)).with_columns(
        reason=pl.when(~came)
        .then(pl.lit(EARLIER))
        .when(untestable)
        .then(pl.lit(LEFT_OUT))
        .when(pl.col("p_other").is_null())
        .then(pl.lit(NOT_TESTED))
        .when(~pl.col("judge").is_in(judges))
        .then(pl.lit(OTHER_JUDGE))
        .otherwise(pl.lit(NOT_SIGNIFICANT))
    )


def _smallest(wells: pl.DataFrame, manifest: Manifest) -> pl.Series:
    """Smallest p-value that could have kept each well; null where there is none."""
    if not manifest.choice:
        return pl.repeat(None, wells.height, dtype=pl.Float64, eager=True)
    vocabulary = Vocabulary()
    texts = condition_texts(wells["treatments"])
    no_images = pl.lit(0, pl.Int32).alias(N_IMAGES)
    coded = vocabulary.code(wells.with_columns(texts, no_images))
    applied = Applied.of(vocabulary, [coded])
    judgement = Judgement(applied.targets, manifest.combined)
    ranked = judgement.ranked(manifest.choice["evidence"], np.inf)
    reach = {name: manifest.choice[name] for name in ("rescue", "levels")}
    best_T = judgement.best(ranked, **reach)
    testable_W = ~applied.has_role(*UNTESTABLE_ROLES)
    rank = pl.Series(saved_wells(applied, best_T, testable_W, ranked.height))
    return ranked["saving_p"].gather(rank.replace(ranked.height, None))


def summary(rows: pl.DataFrame, top: int = 10) -> dict[str, Any]:
    """Count the wells of :func:`differences` by reason, role, kind and condition.

    Returns
    -------
    dict
        ``wells`` by where they are found; ``reasons``, ``roles`` and ``kinds``: lists of
        counts, the largest first; ``conditions``: for each reason the conditions that
        most wells have, with their judges and the medians of both p-values.
    """

    def counted(*names: str) -> list[dict[str, Any]]:
        keys = ["found", *names]
        counts = rows.group_by(keys).agg(
            wells=pl.len(), p_a=pl.col("p_a").median(), p_b=pl.col("p_b").median()
        )
        order = ["found", "wells", *names]
        return counts.sort(order, descending=[one == "wells" for one in order]).to_dicts()

    every = counted("reason", "condition", "judge_a", "judge_b")
    shown: dict[tuple[str, str], int] = {}
    conditions_shown = []
    for one in every:
        key = (one["found"], one["reason"])
        shown[key] = shown.get(key, 0) + 1
        if shown[key] <= top and one["reason"] not in (SAME, UNTESTED):
            conditions_shown.append(one)
    found = {name: rows.filter(found=name).height for name in ("both", "only A", "only B")}
    return {
        "wells": found,
        "reasons": counted("reason"),
        "roles": counted("reason", "role"),
        "kinds": counted("reason", "kind"),
        "conditions": conditions_shown,
    }


def told(counts: dict[str, Any], a: Path, b: Path) -> str:
    """Write a summary for people to read."""
    wells = counts["wells"]
    lines = [f"A  {a}: {wells['both'] + wells['only A']} wells"]
    lines += [f"B  {b}: {wells['both'] + wells['only B']} wells"]
    for found in ("both", "only A", "only B"):
        lines += ["", f"{found}: {wells[found]} wells"]
        for reason in (one for one in counts["reasons"] if one["found"] == found):
            lines.append(f"  {reason['wells']:>9}  {reason['reason']}{_p_values(reason)}")
            for what in ("role", "kind"):
                parts = [
                    f"{one[what]} {one['wells']}"
                    for one in counts[f"{what}s"]
                    if (one["found"], one["reason"]) == (found, reason["reason"])
                ]
                lines.append(f"{'':13}{what}s: {', '.join(parts)}")
            for one in counts["conditions"]:
                if (one["found"], one["reason"]) == (found, reason["reason"]):
                    judges = " -> ".join(sorted({one["judge_a"], one["judge_b"]} - {None}))
                    name = " by ".join(filter(None, (one["condition"] or "untested", judges)))
                    lines.append(f"{'':13}{one['wells']:>9}  {name}{_p_values(one)}")
    return "\n".join(lines)


def _p_values(one: dict[str, Any]) -> str:
    known = [f"{one[f'p_{side}']:.2g} in {side.upper()}" for side in "ab" if one[f"p_{side}"]]
    return f" (median p {', '.join(known)})" if known else ""


def main(argv: Sequence[str] | None = None) -> None:
    """Compare the two folders of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("a", type=Path, metavar="A", help="folder of a manifest")
    parser.add_argument("b", type=Path, metavar="B", help="folder of another")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts here too")
    parser.add_argument("--top", type=int, default=10, help="conditions told for each reason")
    given = parser.parse_args(argv)
    counts = summary(differences(read_manifest(given.a), read_manifest(given.b)), given.top)
    if given.json:
        given.json.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n")
    print(told(counts, given.a, given.b))


if __name__ == "__main__":
    run_step(main)
