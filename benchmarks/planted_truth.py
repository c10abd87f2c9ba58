"""Run the demo at three seeds, and each run again with one correction switched off.

    python benchmarks/planted_truth.py --cores 2 --work build/planted_truth

Prints Markdown tables: a row a figure of the planted truth, a column a seed; then, for qc,
alignment and arm correction, the figure that each of them is there for, on and off. A
switch starts from a copy of the whole run, so that only what follows from it is repeated;
the first judge stands for the trained encoder there. Last, encoders that differ by how long
they learned and by nothing else: is their order in the probe that in the benchmark? The
demo's own are too much alike to tell. Then, at the first seed, one of these on screens that
differ by how far groups are moved and by nothing else. Runs that are complete are not repeated.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import yaml

from phenopipe.report.config import TruthKnobs
from phenopipe.report.sections.across import probed_maps, rank_correlation

ROOT = Path(__file__).parents[1]
SEEDS = (0, 1, 2)
JUDGE = "mae-all"
# What is switched off, and the figures that it is there for.
SWITCHES = {
    "qc": ({"qc": {"wells": {"enabled": False}}}, ("qc_recall",)),
    "alignment": ({"align": {"fit": {"method": "none"}}}, ("apart_after",)),
    "arm correction": ({"align": {"arms": {"enabled": False}}}, ("arm_bias_removed",)),
}
# Updates of encoders that learn like the demo's first judge (6,000), for less long.
LADDER = (100, 400, 1500)
# What an encoder can be too poor for: more genes that change less, no known pair without an
# effect, and a map of one cell type's two experiments. With all that the demo has, 400 updates
# find every planted pair, and recall tells no more.
HARDER = {"strength": 2.0, "active_groups": 12, "genes_per_group": 4, "silent_groups": 0}
HARDER |= {"compounds": 0}
MAPPED = {"cell_type": "ARPE-19"}
# How far groups are moved, in units of a trait, on screens that one encoder looks at.
STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
RISING = ("ks", "cvm", "ks_permuted", "cvm_permuted", "recall_all_pairs_0.05_0.95")
RISING += ("recall_permuted_all_pairs_0.05_0.95",)


def demo(seed):
    """Return the demo's configuration at a seed."""
    return {**yaml.safe_load((ROOT / "workflow_config.yaml").read_text()), "seed": seed}


def only_judge(config):
    """Return the demo cut down to its first judge: what a switch changes, and no more."""
    encoders = {JUDGE: config["encoders"][JUDGE]}
    benchmark = {**config["benchmarks"]["genome"], "encoders": [JUDGE]}
    kept = ("screen", "manifests", "pairs", "recall", "encoders")
    return {
        **{key: config[key] for key in ("seed", "undersample", "align")},
        "screens": {"simulated": config["screens"]["simulated"]},
        "encoders": encoders,
        "manifests": {"all": config["manifests"]["all"]},
        "benchmarks": {"genome": {k: v for k, v in benchmark.items() if k in kept}},
        "pretrain": {"mae": config["pretrain"]["mae"]},
        "report": {"truth": {"trained": JUDGE}},
    }


def only_qc(config):
    """Return the demo cut down to its images and what qc says of them."""
    return {
        **{key: config[key] for key in ("seed", "undersample")},
        "screens": {"simulated": config["screens"]["simulated"]},
        "manifests": {"all": config["manifests"]["all"]},
    }


def only_learning(config):
    """Return the demo with the first judge, and encoders like it that learned for less.

    Random weights are left out: they are read at another token, as in the paper.
    """
    lean = only_judge(config)
    judge = lean["encoders"][JUDGE]
    steps = {f"{JUDGE}-{updates}": {**judge, "updates": updates} for updates in LADDER}
    screen = {**config["screens"]["simulated"], **HARDER}
    encoders = {**steps, JUDGE: judge}
    names = {"encoders": list(encoders)}
    genome = {**lean["benchmarks"]["genome"], "replicates": {}, "aggregate": MAPPED}
    return {
        **lean,
        "screens": {"simulated": screen},
        "encoders": encoders,
        "probes": {"anax": {**config["probes"]["anax"], **names}},
        "benchmarks": {"genome": {**genome, **names}},
    }


def only_strength(config, strength, encoder):
    """Return the harder screen at another strength, seen by an encoder that learned already."""
    lean = only_learning(config)
    screen = {**lean["screens"]["simulated"], "strength": strength}
    genome = {**lean["benchmarks"]["genome"], "encoders": [JUDGE]}
    return {
        **{key: lean[key] for key in ("seed", "undersample", "align")},
        "screens": {"simulated": screen},
        "encoders": {JUDGE: {"kind": "imported", "weights": str(encoder)}},
        "benchmarks": {"genome": genome},
    }


def merged(config, change):
    """Return the configuration with some knobs of some sections set."""
    result = dict(config)
    for stage, steps in change.items():
        section = dict(result.get(stage, {}))
        for step, knobs in steps.items():
            section[step] = {**section.get(step, {}), **knobs}
        result[stage] = section
    return result


def run(config, folder, cores, target):
    """Run the workflow in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    command = ["-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--configfile", path]
    command += ["--directory", folder, "--cores", cores, "--rerun-incomplete", target]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    log = folder / "snakemake.log"
    with log.open("w") as handle:
        done = subprocess.run(
            [sys.executable, *map(str, command)], stdout=handle, stderr=handle, env=env
        )
    if done.returncode:
        sys.exit(f"{folder}: the run failed, see {log}")


def run_truth(config, folder, cores):
    """Run the workflow in a folder and return its planted-truth figures."""
    run(config, folder, cores, "results/report/truth.parquet")
    return pl.read_parquet(folder / "results" / "report" / "truth.parquet")


def table(runs):
    """Return one row a figure and one column a run, as Markdown."""
    keys = ["metric", "source", "encoder"]
    wide = None
    for name, found in runs.items():
        one = found.select(*keys, pl.col("value").alias(name)).unique(keys, keep="first")
        wide = one if wide is None else wide.join(one, on=keys, how="full", coalesce=True)
    return markdown(wide.sort(keys), 3)


def markdown(frame, digits):
    """Return a table as Markdown, its numbers with so many digits."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    for row in frame.rows():
        cells = [f"{v:.{digits}f}" if isinstance(v, float) else str(v or "") for v in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def planted_pairs(results):
    """Return, an encoder a row, the recall of planted pairs and their mean rank in the null."""
    low, high = TruthKnobs().tails
    truth = pl.concat(map(pl.read_parquet, results.glob("screen/simulated/*/truth.parquet")))
    active = truth.filter(pl.col("status") == "active")["gene"].drop_nulls().unique().implode()
    rows = []
    for path in results.glob(f"benchmark/genome/{JUDGE}*/recall_pairs.parquet"):
        pairs = pl.read_parquet(path).filter(
            pl.col("entity1").is_in(active) & pl.col("entity2").is_in(active)
        )
        inner = pairs["rank"].is_between(low, high, closed="none")
        rows.append((path.parent.name, 1 - inner.mean(), pairs["rank"].mean()))
    columns = ["encoder", "recall, planted", "rank, planted"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def reached(folder):
    """Return what each encoder reaches in probe and benchmark, the least accurate first.

    Probe and benchmark look at the same block of each encoder: the one that embeds.
    """
    found = {
        name: pl.concat(map(pl.read_parquet, sorted((folder / "results").glob(where))))
        for name, where in (
            ("recall", f"benchmark/genome/{JUDGE}*/recall.parquet"),
            ("replicates", f"benchmark/genome/{JUDGE}*/replicates.parquet"),
            ("blocks", f"probe/{JUDGE}*/anax/blocks.parquet"),
        )
    }
    maps, blocks = pl.concat([found["recall"], found["replicates"]]), found["blocks"]
    points = probed_maps(maps, blocks, {}).sort("accuracy", "encoder")
    wide = points.pivot("what", index=["encoder", "accuracy"], values="value")
    return wide.join(planted_pairs(folder / "results"), on="encoder", maintain_order="left")


def order(wide):
    """Return, as Markdown, what :func:`reached` found, and how far the orders agree."""
    lines = [markdown(wide, 4), ""]
    for what in wide.columns[2:]:
        rho, _ = rank_correlation(wide["accuracy"].to_numpy(), wide[what].to_numpy())
        lines.append(f"Rank correlation of probe and {what}: {rho:.2f}.")
    return "\n".join(lines)


def run_demo(chosen):
    """Print the demo's figures, a column a seed."""
    runs = {
        f"seed {seed}": run_truth(demo(seed), chosen.work / f"seed-{seed}", chosen.cores)
        for seed in chosen.seeds
    }
    print("## The demo\n\n" + table(runs), flush=True)


def run_switches(chosen):
    """Print what each correction is there for, with it and without."""
    for seed in chosen.seeds:
        whole = chosen.work / f"seed-{seed}"
        for name, (change, figures) in SWITCHES.items():
            lean = (only_qc if name == "qc" else only_judge)(demo(seed))
            runs = {}
            for state, config in (("on", lean), ("off", merged(lean, change))):
                folder = chosen.work / f"seed-{seed}-{name.replace(' ', '-')}-{state}"
                if not folder.exists():
                    shutil.copytree(whole, folder)
                found = run_truth(config, folder, chosen.cores)
                runs[state] = found.filter(pl.col("metric").is_in(figures))
            print(f"\n## {name}, seed {seed}\n\n{table(runs)}", flush=True)


def learned(chosen, seed):
    """Return the folder of the run whose encoders learned for longer and longer."""
    folder = chosen.work / f"seed-{seed}-order"
    run(only_learning(demo(seed)), folder, chosen.cores, "all")
    return folder


def run_order(chosen):
    """Print how encoders that learned for longer order in probe and benchmark."""
    found = {}
    for seed in chosen.seeds:
        found[seed] = reached(learned(chosen, seed))
        print(
            f"\n## Encoders that learned for longer, seed {seed}\n\n{order(found[seed])}",
            flush=True,
        )
    if len(found) > 1:
        mean = pl.concat(found.values()).group_by("encoder").mean().sort("accuracy")
        print(f"\n## Encoders that learned for longer, mean over seeds\n\n{order(mean)}")


def run_strength(chosen):
    """Print what the benchmarks say as groups are moved farther, a column a strength."""
    seed = chosen.seeds[0]
    encoder = learned(chosen, seed) / "results" / "encoders" / JUDGE
    runs = {}
    for strength in STRENGTHS:
        folder = chosen.work / f"seed-{seed}-strength-{strength:g}"
        config = only_strength(demo(seed), strength, encoder.resolve())
        run(config, folder, chosen.cores, "all")
        place = folder / "results" / "benchmark" / "genome" / JUDGE
        both = (place / "replicates.parquet", place / "recall.parquet")
        figures = pl.concat(map(pl.read_parquet, both))
        runs[f"{strength:g}"] = figures.filter(pl.col("metric").is_in(RISING))
    print(f"\n## Groups moved farther, seed {seed}\n\n{table(runs)}", flush=True)


PARTS = {
    "demo": run_demo,
    "switches": run_switches,
    "order": run_order,
    "strength": run_strength,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", default="2")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "planted_truth")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--only", choices=PARTS, help="leave out the rest")
    chosen = parser.parse_args()
    for name, part in PARTS.items():
        if chosen.only in (None, name):
            part(chosen)


if __name__ == "__main__":
    main()
