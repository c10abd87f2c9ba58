"""Curate a made-up screen of 93 million wells, and let DuckDB do the same.

    python benchmarks/curation_at_scale.py --folder build/curation --rows 93000000

Makes the screen where it is not there yet (1.5 GB at 93 million), then runs the functions
that the steps ``undersample wells`` and ``phenoprints select`` call, and the same query in
DuckDB, each in a process of its own. Prints one line a figure: name, figure, unit, bound.
``--repeats`` gives medians. DuckDB is no dependency: ``--peer PYTHON`` names an interpreter
that has it (see README.md beside this file); without one, its lines are left out. Exits with
1 if a bound is not kept.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

WALL, MEMORY, RATIO, GROWTH = 60.0, 4.0, 1.3, 1.3
LARGE = 93_000_000
JUDGES = ("mae", "classifier")


def undersample(folder, rows):
    """Steps 1 to 4, as the rule runs them; writes the wells and the funnel."""
    from benchmarks.curation_data import tables
    from phenopipe.formats.funnels import write_funnel
    from phenopipe.undersample.config import WellsKnobs
    from phenopipe.undersample.wells import undersample_files

    out = folder / f"undersample-{rows}"
    start = time.perf_counter()
    funnel = undersample_files(tables(folder, rows), out / "wells.parquet", WellsKnobs(), {})
    seconds = time.perf_counter() - start
    write_funnel(out / "funnel.json", funnel, {})
    counts = {one["name"]: one["wells"] for one in funnel["steps"]}
    return {"seconds": seconds, "replicated": counts["replication"]}


def select(folder, rows):
    """Step 5, as the rule runs it: join, alternatives, manifest."""
    from phenopipe.formats.funnels import read_funnel
    from phenopipe.formats.pvalues import COMBINED
    from phenopipe.formats.tables import read_table
    from phenopipe.phenoprints.config import SelectKnobs
    from phenopipe.phenoprints.select import select_file

    before = folder / f"undersample-{rows}"
    out = folder / f"phenoprints-{rows}" / "manifest.parquet"
    combined = read_table(pvalues(folder), COMBINED)
    start = time.perf_counter()
    funnel = select_file(
        before / "wells.parquet",
        combined,
        read_funnel(before / "funnel.json"),
        out,
        SelectKnobs(),
        {},
    )
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "kept": funnel["steps"][-1]["wells"]}


def pvalues(folder):
    """Combined p-values of two judges for every condition and gene, a fifth of them small."""
    from benchmarks.curation_data import catalogue
    from phenopipe.formats.pvalues import COMBINED
    from phenopipe.formats.tables import write_table

    path = folder / "pvalues.parquet"
    if path.exists():
        return path
    listed = catalogue().select("perturbation", "kind", "gene", "concentration_um")
    genes = listed.filter(pl.col("gene").is_not_null()).select("kind", "gene").unique()
    genes = genes.sort("kind", "gene").with_columns(level=pl.lit("gene"))
    tests = pl.concat([listed.with_columns(level=pl.lit("condition")), genes], how="diagonal")
    frames = []
    for number, judge in enumerate(JUDGES):
        rng = np.random.default_rng(number)
        active = rng.random(tests.height) < 0.1
        p_value = np.where(active, 1e-3, rng.uniform(0.02, 1, tests.height))
        frames.append(
            tests.with_columns(
                pl.lit(judge).alias("encoder"),
                pl.format("made-up|HUVEC|{}|none", "kind").alias("map_type"),
                pl.lit(20, pl.Int32).alias("n_replicates"),
                pl.lit(3, pl.Int32).alias("n_experiments"),
                pl.lit(0.5).alias("statistic"),
                pl.Series("p_value", p_value),
                pl.Series("p_any", p_value),
                pl.lit(1.0).alias("q_value"),
                pl.lit(1000, pl.Int32).alias("n_null"),
            ).select(*COMBINED.columns)
        )
    write_table(path, pl.concat(frames), COMBINED, {"inputs": {"pvalues": list(JUDGES)}})
    return path


def measured(task, folder, rows, python):
    """Run a task in a process of its own; its figures, CPU seconds and peak memory in GB."""
    script = Path(__file__) if task != "duckdb" else ROOT / "benchmarks" / "curation_duckdb.py"
    command = [python, script, "--task", task, "--folder", folder, "--rows", rows]
    env = {**os.environ, "POLARS_MAX_THREADS": "2"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        list(map(str, command)), env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(done.stdout.splitlines()[-1]), "cpu": cpu}


def tell(name, figure, unit, bound="", kept=True):
    missed = "" if kept else "  NOT KEPT"
    print(f"{name:50} {figure:12.3f} {unit:8} {bound}{missed}", flush=True)
    return kept


def told_task(task, rows, one):
    """Print one task's medians; whether its bounds are kept."""
    wall, peak = one["seconds"], one["peak"]
    if task == "duckdb":
        tell(f"{task}, {rows} rows", wall, "s")
        tell(f"{task}, {rows} rows, processor", one["cpu"], "cpu s")
        tell(f"{task}, {rows} rows, peak", peak, "GB")
        return []
    kept = [tell(f"{task}, {rows} rows", wall, "s", f"<= {WALL:g}", wall <= WALL)]
    tell(f"{task}, {rows} rows, processor", one["cpu"], "cpu s")
    return [
        *kept,
        tell(f"{task}, {rows} rows, peak", peak, "GB", f"<= {MEMORY:g}", peak <= MEMORY),
    ]


def told_peer(rows, middle, runs):
    """Print what the peer took; whether the bounds are kept."""
    ratio = middle["duckdb"]["seconds"] / middle["undersample"]["seconds"]
    # The bound is for the whole size: small screens are half start and half work.
    bound = f">= {RATIO:g}" if rows >= LARGE else ""
    name = f"duckdb / undersample, {rows} rows"
    kept = [tell(name, ratio, "times", bound, not bound or ratio >= RATIO)]
    in_cpu = middle["duckdb"]["cpu"] / middle["undersample"]["cpu"]
    tell(f"{name}, processor", in_cpu, "times")
    theirs = runs["duckdb"][0]["replicated"]
    if theirs is not None:
        same = theirs == runs["undersample"][0]["replicated"]
        kept.append(
            tell("replicated wells are those of duckdb", float(same), "yes", "= 1", same)
        )
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--task", choices=("undersample", "select"))
    given = parser.parse_args()
    if given.task:
        figures = globals()[given.task](given.folder, given.rows[0])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({**figures, "peak": peak}))
        return
    from benchmarks.curation_data import make_up

    pvalues(given.folder)
    per_row, kept = {}, []
    for rows in given.rows:
        make_up(given.folder, rows)
        tasks = {"undersample": sys.executable, "select": sys.executable}
        tasks |= {"duckdb": given.peer} if given.peer else {}
        runs = {task: [] for task in tasks}
        for _ in range(given.repeats):
            for task, python in tasks.items():
                runs[task].append(measured(task, given.folder, rows, python))
        middle = {
            task: {
                key: statistics.median(one[key] for one in every)
                for key in ("seconds", "cpu", "peak")
            }
            for task, every in runs.items()
        }
        for task, one in middle.items():
            kept += told_task(task, rows, one)
        if given.peer:
            kept += told_peer(rows, middle, runs)
        per_row[rows] = {task: one["cpu"] / rows for task, one in middle.items()}
    if len(per_row) > 1:
        for task in ("undersample", "select"):
            growth = per_row[max(per_row)][task] / per_row[min(per_row)][task]
            name = f"{task}, processor a row, most / least rows"
            kept.append(tell(name, growth, "times", f"<= {GROWTH:g}", growth <= GROWTH))
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
