"""From embeddings of a whole genome on disk to a row of Table 1, without holding them.

    python benchmarks/whole_genome.py --wells 200000 2200000

Writes simulated embeddings of 384 features (176 experiments of 12,500 wells: 3.4 GB at 2.2
million; 17,072 genes, chromosome arms with a bias, two experiments a layout, groups of eight
genes that act alike), then runs the steps as the rules do, with the rules' settings: align
(moments, fit, center, apply), arm offsets, replicate consistency of corrected wells, the map,
recall. Each step has a process of its own, which runs it over all experiments in turn; seconds
and peak memory are of these processes, imports apart. Fewer wells are fewer experiments of the
same size with the same genes, so that memory can be compared.

Prints one line a figure: name, figure, unit, bound. Exits with 1 if a bound is not kept.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl

WELLS, CONTROLS, PLATES, FEATURES = 12_500, 2_024, 9, 384
GENES, ARMS, UNEXPRESSED = 17_072, 40, 0.3
SAME = ["--screen", "s", "--encoder", "e"]
STEPS = (
    "align.moments",
    "align.fit",
    "align.center",
    "align.apply",
    "align.arms",
    "benchmark.replicates",
    "benchmark.aggregate",
    "benchmark.recall",
)


def peak_memory():
    """Peak of this process in GB: ru_maxrss would count what its parent held when it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e6


def say(name, figure, unit, bound="", kept=True):
    print(
        f"{name:46s} {figure:>12.4g} {unit:8s} {bound}{'' if kept else '  NOT KEPT'}",
        flush=True,
    )
    return kept


def gene_names():
    return [f"G{at:05d}" for at in range(GENES)]


def plan(layout, n_layouts):
    """Gene (-1: control), guide, plate and address of every well of a layout."""
    treated = WELLS - CONTROLS
    mine = np.arange(GENES)[layout::n_layouts]
    slot = np.arange(WELLS)
    gene = np.where(slot < treated, mine[slot % len(mine)], -1)
    guide = slot // len(mine) % 6
    # Every plate gets its share of controls, and turns the arrangement of the one before.
    plate = slot % PLATES
    address = (slot // PLATES + 97 * plate) % (WELLS // PLATES + 1)
    return gene, guide, plate, address


def planted():
    """Direction of every gene: what its group of eight shares, its own, and its arm's bias."""
    rng = np.random.default_rng(0)
    group_GD = rng.standard_normal((GENES // 8, FEATURES), dtype=np.float32)
    own_GD = rng.standard_normal((GENES, FEATURES), dtype=np.float32)
    arm_AD = rng.standard_normal((ARMS, FEATURES), dtype=np.float32)
    arm_G = np.arange(GENES) * 7 % ARMS
    active_G1 = (np.arange(GENES) % 10 >= 10 * UNEXPRESSED)[:, None]
    effect_GD = 0.25 * group_GD[np.arange(GENES) // 8] + 0.25 * own_GD
    return active_G1 * effect_GD + 0.3 * arm_AD[arm_G], arm_G, active_G1[:, 0]


def write_experiment(folder, number, n_experiments, effect_GD):
    from phenopipe.formats.embeddings import write_embeddings
    from phenopipe.formats.qc import write_qc_wells
    from phenopipe.formats.wells import COLUMNS

    layout = number % (n_experiments // 2)
    gene_W, guide_W, plate_W, address_W = plan(layout, n_experiments // 2)
    rng = np.random.default_rng([1, number])
    x_WD = rng.standard_normal((WELLS, FEATURES), dtype=np.float32)
    x_WD += np.where(gene_W[:, None] >= 0, effect_GD[gene_W], 0)
    x_WD *= rng.gamma(9, 1 / 9, FEATURES).astype(np.float32)
    x_WD += 2 * rng.standard_normal(FEATURES, dtype=np.float32)
    name = f"e{number:03d}"
    wells = pl.DataFrame(
        {
            "gene_at": gene_W,
            "guide_at": guide_W,
            "plate_at": plate_W,
            "row": address_W // 48 + 1,
            "column": address_W % 48 + 1,
        }
    ).with_row_index("at")
    gene = pl.format("G{}", pl.col("gene_at").cast(pl.String).str.zfill(5))
    guide = pl.format("{}_guide_{}", gene, pl.col("guide_at") + 1)
    treatment = pl.struct(
        perturbation=guide,
        kind=pl.lit("knockout"),
        gene=gene,
        guide=guide,
        concentration_um=pl.lit(None, pl.Float64),
    )
    control = pl.col("gene_at") < 0
    wells = wells.with_columns(
        screen=pl.lit("s"),
        experiment=pl.lit(name),
        plate=pl.format("p{}", "plate_at"),
        well=pl.format("R{}C{}", "row", "column"),
        cell_type=pl.lit("HUVEC"),
        role=pl.when(control)
        .then(pl.lit("negative_control"))
        .otherwise(pl.lit("perturbation")),
        treatments=pl.when(control).then([]).otherwise(pl.concat_list(treatment)),
        layout=pl.format(f"L{layout}-{{}}", "plate_at"),
        well_id=pl.format(name + "/{}", pl.col("at").cast(pl.String).str.zfill(5)),
    )
    schema = {column: dtype for column, (dtype, _) in COLUMNS.items()}
    wells = wells.select(list(schema)).cast(schema)
    n_images = pl.lit(1, pl.Int32)
    passed = wells.with_columns(n_images=n_images, passes=pl.lit(True), reason=pl.lit(""))
    write_qc_wells(folder / f"{name}.parquet", passed, {})
    write_embeddings(
        folder / f"{name}.zarr",
        x_WD[:, None],
        wells["well_id"].to_list(),
        block_numbers=[1],
        block_dims=[FEATURES],
        stamp={},
    )


def write_screen(folder, n_experiments):
    from phenopipe.formats.genes import GENES as GENES_FORMAT
    from phenopipe.formats.tables import write_table

    effect_GD, arm_G, active_G = planted()
    for number in range(n_experiments):
        write_experiment(folder, number, n_experiments, effect_GD)
    genes = pl.DataFrame(
        {
            "gene": gene_names(),
            "arm": [f"chr{1 + arm // 2}{'pq'[arm % 2]}" for arm in arm_G],
            "expression": np.where(active_G, 1.0, -5.0),
        }
    )
    write_table(folder / "genes.parquet", genes, GENES_FORMAT, {})
    groups = pl.DataFrame({"group": (np.arange(GENES) // 8).astype(str), "gene": gene_names()})
    groups.filter(pl.Series(active_G)).write_csv(folder / "groups.csv")


def commands(step, folder):
    """Arguments of a step, one list a job, as the rules write them."""
    names = sorted(path.stem for path in folder.glob("e*.zarr"))

    def at(name):
        return str(folder / name)

    def inputs(name):
        files = ["--embeddings", at(f"{name}.zarr"), "--wells", at(f"{name}.parquet")]
        return [*files, *SAME, "--experiment", name]

    aligned = ["--aligned", *(at(f"{name}-aligned.parquet") for name in names)]
    genes, arms = ["--genes", at("genes.parquet")], ["--arms", at("arms.parquet")]
    of_benchmark = ["--benchmark", "genome", "--encoder", "e"]
    transform = ["--transform", at("transform.npz")]
    axes = ["--axes", at("axes.npz")]
    pairs = ["--replicates-pairs", at("replicates_pairs.parquet")]
    matches = ["--replicates-matches", at("replicates_matches.parquet")]
    given = ["--map", at("map.parquet")]
    ranked = ["--recall-pairs", at("recall_pairs.parquet"), *of_benchmark]
    moments = ["--moments", *(at(f"{n}.npz") for n in names)]
    jobs = {
        "align.moments": [[*inputs(n), "--moments", at(f"{n}.npz")] for n in names],
        "align.fit": [[*moments, *axes, "--controls", at("controls.parquet"), *SAME]],
        "align.center": [[*axes, *transform, *SAME]],
        "align.apply": [
            [*inputs(n), *transform, "--aligned", at(f"{n}-aligned.parquet")] for n in names
        ],
        "align.arms": [[*aligned, *genes, *arms, *SAME]],
        "benchmark.replicates": [
            [*aligned, *arms, *genes, "--replicates", at("replicates.parquet"), *pairs]
        ],
        "benchmark.aggregate": [
            [*aligned, *arms, *genes, *given, "--neighbours", at("neighbours.parquet")]
        ],
        "benchmark.recall": [
            [*given, "--pairs", at("groups.csv"), *genes, "--recall", at("recall.parquet")]
        ],
    }
    jobs["benchmark.replicates"][0] += matches + of_benchmark
    jobs["benchmark.aggregate"][0] += of_benchmark
    jobs["benchmark.recall"][0] += ranked
    return jobs[step]


def worker(step, folder):
    """Run one step over all its jobs; prints seconds and the peak memory of this process."""
    module = import_module(f"phenopipe.{step}")
    started, used = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        for argv in commands(step, folder):
            module.main(argv)
    spent = {"wall": time.perf_counter() - started, "cpu": time.process_time() - used}
    peak = peak_memory()
    print(json.dumps({**spent, "peak": peak}))


def run_screen(n_wells):
    """Run all steps at one size; returns seconds and peak of each, and what they found."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as made:
        folder = Path(made)
        write_screen(folder, n_wells // WELLS)
        told = {}
        for step in STEPS:
            command = [sys.executable, __file__, "--worker", step, "--folder", made]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            told[step] = json.loads(done.stdout.splitlines()[-1])
            name = f"genome_{n_wells}_{step.replace('.', '_')}"
            say(f"{name}_wall_seconds", told[step]["wall"], "s")
            say(f"{name}_cpu_seconds", told[step]["cpu"], "s")
            say(f"{name}_peak", told[step]["peak"], "GB")
        wanted = {
            "replicates": ("ks", "cvm", "ks_over_position", "ks_unexpressed"),
            "recall": ("recall_all_pairs_0.05_0.95", "recall_permuted_all_pairs_0.05_0.95"),
        }
        for name, metrics in wanted.items():
            found = pl.read_parquet(folder / f"{name}.parquet")
            for metric in metrics:
                value = found.row(by_predicate=pl.col("metric") == metric, named=True)["value"]
                say(f"genome_{n_wells}_{metric}", value, "")
    return told


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wells", type=int, nargs="*", default=[200_000, 2_200_000])
    parser.add_argument("--worker", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        worker(chosen.worker, chosen.folder)
        return
    kept, peaks = [], {}
    for n_wells in chosen.wells:
        told = run_screen(n_wells)
        minutes, cpu = (sum(one[k] for one in told.values()) / 60 for k in ("wall", "cpu"))
        largest = max(one["peak"] for one in told.values())
        for step, one in told.items():
            peaks.setdefault(step, []).append(one["peak"])
        say(f"genome_{n_wells}_cpu_minutes", cpu, "min")
        kept += [
            say(f"genome_{n_wells}_minutes", minutes, "min", "< 15", minutes < 15),
            say(f"genome_{n_wells}_peak", largest, "GB", "< 4", largest < 4),
        ]
    if len(chosen.wells) > 1:
        for step, (first, *_, last) in peaks.items():
            name = f"genome_{step.replace('.', '_')}_memory_growth"
            kept.append(say(name, last / first, "x", "<= 1.25", last <= 1.25 * first))
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
