"""Run the demo at three seeds, and its first stages with each correction switched off.

    python benchmarks/planted_truth.py --cores 2 --work build/planted_truth

Prints one Markdown table: a row a figure of the planted truth, a column a seed; then, for
qc, alignment and arm correction, the figure that each of them is there for, on and off.
Runs that are complete are not repeated.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import yaml

ROOT = Path(__file__).parents[1]
SEEDS = (0, 1, 2)
# What is switched off, and the figure that it is there for.
SWITCHES = {
    "qc": {"qc": {"wells": {"enabled": False}}},
    "alignment": {"align": {"fit": {"method": "none"}}},
    "arm correction": {"align": {"arms": {"enabled": False}}},
}


def demo(seed):
    """Return the demo's configuration at a seed."""
    return {**yaml.safe_load((ROOT / "workflow_config.yaml").read_text()), "seed": seed}


def without_training(config):
    """Return the demo cut down to what the switches touch: no encoder is trained."""
    kinds = ("timm", "pixels")
    keep = {name: one for name, one in config["encoders"].items() if one["kind"] in kinds}
    judge = next(name for name, one in keep.items() if one["kind"] == "timm")
    screen = {name: one for name, one in config["screens"].items() if name == "simulated"}
    return {
        **config,
        "screens": screen,
        "encoders": keep,
        "manifests": {"phenoprints": {"screens": ["simulated"], "judges": [judge]}},
        "probes": {
            name: {**one, "encoders": list(keep)} for name, one in config["probes"].items()
        },
        "benchmarks": {
            name: {**one, "encoders": [judge]} for name, one in config["benchmarks"].items()
        },
        "report": {},
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
    """Run the workflow in a folder and return its planted-truth figures."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
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
    return pl.read_parquet(folder / "results" / "report" / "truth.parquet")


def table(runs):
    """Return one row a figure and one column a run, as Markdown."""
    keys = ["metric", "source", "encoder"]
    wide = None
    for name, found in runs.items():
        one = found.select(*keys, pl.col("value").alias(name)).unique(keys, keep="first")
        wide = one if wide is None else wide.join(one, on=keys, how="full", coalesce=True)
    lines = ["| " + " | ".join(wide.columns) + " |", "|" + "---|" * len(wide.columns)]
    for row in wide.sort(keys).rows():
        cells = [f"{v:.3f}" if isinstance(v, float) else str(v or "") for v in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", default="2")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "planted_truth")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--skip-demo", action="store_true", help="only the switches")
    chosen = parser.parse_args()
    target = "results/report/truth.parquet"
    if not chosen.skip_demo:
        runs = {
            f"seed {seed}": run(demo(seed), chosen.work / f"seed-{seed}", chosen.cores, target)
            for seed in chosen.seeds
        }
        print("## The demo\n\n" + table(runs), flush=True)
    for seed in chosen.seeds:
        lean = without_training(demo(seed))
        runs = {"all on": run(lean, chosen.work / f"lean-{seed}", chosen.cores, target)}
        for name, change in SWITCHES.items():
            folder = chosen.work / f"lean-{seed}-no-{name.replace(' ', '-')}"
            runs[f"no {name}"] = run(merged(lean, change), folder, chosen.cores, target)
        print(f"\n## Switched off, seed {seed}, untrained encoder\n\n{table(runs)}", flush=True)


if __name__ == "__main__":
    main()
