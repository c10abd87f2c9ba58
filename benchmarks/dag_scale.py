"""How long the DAG of hundreds and thousands of experiments takes, and how much memory.

A screen with one encoder, six jobs an experiment: import, two of qc, embed, moments, align;
behind them the aggregates and the report. Dry runs of nothing made, then (where asked for by
``--made``) of everything made: files are put there empty and marked by ``snakemake --touch``.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[1]
# Experiments: seconds of a dry run; the check of a finished run may take twice as long.
BOUNDS = {180: 15.0, 2200: 60.0}
MEMORY_MB = 1000.0


def configuration(experiments):
    """A screen of so many experiments, one encoder, one test of its map."""
    return {
        "screens": {
            "screen": {
                "source": "simulated",
                "experiments": {f"e-{n:04d}": {"layout": "A"} for n in range(experiments)},
            }
        },
        "encoders": {"pixels": {"kind": "pixels"}},
        "benchmarks": {"map": {"screen": "screen", "encoders": ["pixels"], "recall": {}}},
    }


def busy():
    """Seconds of processors that children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(*command):
    """Seconds by the clock and of processors, peak megabytes and output of a command."""
    peak = 0
    started, before = time.monotonic(), busy()
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = []
    reader = threading.Thread(target=lambda: said.append(process.stdout.read()))
    reader.start()
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(one.memory_info().rss for one in family))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.05)
    reader.join()
    if process.returncode:
        sys.exit(said[0][-2000:])
    return time.monotonic() - started, busy() - before, peak / 1e6, said[0]


def told(name, figure, unit, bound):
    """Print one line; whether the bound is kept."""
    print(f"{name:<44} {figure:>10.1f} {unit:<8} {bound if bound else ''}")
    return not bound or figure <= bound


def measure(experiments, made, folder):
    """Figures of one size; whether all bounds are kept."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(configuration(experiments)))
    flags = ["-s", ROOT / "Snakefile", "--configfile", path, "-d", folder, "--cores", "1"]
    snakemake = [sys.executable, "-m", "snakemake", "all", *flags]
    seconds, processor, memory, said = measured(*snakemake, "--dry-run")
    jobs = int(re.search(r"^total +(\d+)$", said, re.MULTILINE)[1])
    bound = BOUNDS.get(experiments)
    good = told(f"{experiments} experiments, jobs", jobs, "jobs", None)
    good &= told(f"{experiments} experiments, jobs each", jobs / experiments, "jobs", None)
    good &= told(f"{experiments} experiments, dry run", seconds, "s", bound)
    good &= told(f"{experiments} experiments, of a processor", processor, "s", None)
    good &= told(f"{experiments} experiments, memory", memory, "MB", MEMORY_MB)
    if made:
        outputs = re.findall(r"^ {4}output: (.*)$", said, re.MULTILINE)
        for output in (one for line in outputs for one in line.split(", ")):
            place = folder / output
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir(exist_ok=True) if place.suffix == ".zarr" else place.touch()
        touched = measured(*snakemake, "--touch", "--quiet", "all")[0]
        good &= told(f"{experiments} experiments, marking as made", touched, "s", None)
        again, processor_again, memory, said = measured(*snakemake, "--dry-run")
        assert "Nothing to be done" in said, said[-2000:]
        good &= told(
            f"{experiments} experiments, nothing to do", again, "s", bound and 2 * bound
        )
        good &= told(
            f"{experiments} experiments, nothing to do, ratio",
            processor_again / processor,
            "x",
            2.0,
        )
        good &= told(f"{experiments} experiments, memory then", memory, "MB", MEMORY_MB)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, nargs="+", default=list(BOUNDS))
    parser.add_argument("--made", type=int, nargs="*", default=[180], help="also when made")
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    good = True
    for experiments in args.experiments:
        with tempfile.TemporaryDirectory() as folder:
            good &= measure(experiments, experiments in args.made, Path(folder))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
