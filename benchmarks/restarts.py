"""Kill a training again and again, through Snakemake: does it end with the same weights?

    python benchmarks/restarts.py [--kills 10] [--processes 1] [--inputs FOLDER]

A small screen is simulated and a training runs through undisturbed. Then another is killed
with signal 9 (half of the times while a state is being written, else at a random moment of
a run), then stopped with SIGTERM and SIGUSR1, and run to its end. ``--inputs`` takes the
results of an earlier run of ``tests/small.yaml`` in place of making them.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[1]
NAME = "mae-all"
TARGET = f"results/encoders/{NAME}/model.safetensors"
STAGES = ("screen", "qc", "undersample", "phenoprints/all")
UPDATES, EVERY = 120, 2


def settings():
    """The small screen of the tests, with a training that takes a few seconds."""
    config = yaml.safe_load((ROOT / "tests" / "small.yaml").read_text())
    config["encoders"][NAME]["updates"] = UPDATES
    config["pretrain"] = {"mae": {"checkpoint_every": EVERY, "log_every": 1}}
    return config


def start(folder, *targets, processes=1):
    """Start Snakemake in a folder."""
    (folder / "config.yaml").write_text(yaml.safe_dump(settings()))
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "--cores", "2"]
    command += ["-d", folder, "--configfile", folder / "config.yaml"]
    command += ["--rerun-triggers", "mtime", "--rerun-incomplete"]
    command += ["--set-resources", f"pretrain_mae:processes={processes}", "--", *targets]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (folder / "snakemake.log").open("a") as log:
        return subprocess.Popen(
            list(map(str, command)), stdout=log, stderr=log, env={**os.environ, "PATH": path}
        )


def trainings(scheduler):
    """All processes of the training that a scheduler runs."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(scheduler.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if child.cmdline()[1:3] == ["-m", "phenopipe.pretrain.mae"]:
                    found.append(child)
    return found


def told(folder):
    path = folder / f"logs/training/{NAME}/log.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def disturb(folder, number, *, processes, while_saving, rng, alone=False):
    """Run the training, send a signal to its processes, and return whether it hit."""
    scheduler, found = start(folder, TARGET, processes=processes), []
    before, wait = told(folder), rng.randint(2, 7)
    # Several processes have one more that started them.
    wanted = 1 if processes == 1 else processes + 1
    parts = f"results/pretrain/{NAME}/checkpoints/*/.update-*.part"
    while scheduler.poll() is None and told(folder) < before + wait:
        time.sleep(0.002)
        found = found if len(found) >= wanted else trainings(scheduler)
    if while_saving:
        while scheduler.poll() is None and not list(folder.glob(parts)):
            pass
    else:
        time.sleep(rng.random() * 0.05)
    # The first one found has started the others.
    hit = found if number == signal.SIGKILL else found[:1]
    for process in [rng.choice(found[1:])] if alone and processes > 1 else hit:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
    code = scheduler.wait()
    half = len(list(folder.glob(parts)))
    return code != 0 and len(found) >= wanted, half


def finish(folder, processes=1):
    assert start(folder, TARGET, processes=processes).wait() == 0
    return hashlib.sha256((folder / TARGET).read_bytes()).hexdigest()


def tell(name, figure, unit, bound, kept):
    print(
        f"{name:45s} {figure:>10} {unit:12s} {bound}{'' if kept else '   NOT KEPT'}", flush=True
    )
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--inputs", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "restarts")
    given = parser.parse_args()
    given.folder = given.folder.resolve()
    shutil.rmtree(given.folder, ignore_errors=True)
    inputs = given.inputs
    if inputs is None:
        inputs = given.folder / "inputs"
        inputs.mkdir(parents=True)
        assert start(inputs, "results/phenoprints/all/manifest.parquet").wait() == 0
    for name in ("whole", "killed"):
        for stage in STAGES:
            place = given.folder / name / "results" / stage
            shutil.copytree(inputs / "results" / stage, place)
    expected = finish(given.folder / "whole", given.processes)
    rng, hits, halves = random.Random(0), 0, 0
    killed = given.folder / "killed"
    for number in range(given.kills):
        hit, half = disturb(
            killed,
            signal.SIGKILL,
            processes=given.processes,
            while_saving=number % 2 == 1,
            alone=number % 4 >= 2,
            rng=rng,
        )
        hits, halves = hits + hit, halves + half
    stops = [
        disturb(killed, one, processes=given.processes, while_saving=False, rng=rng)[0]
        for one in (signal.SIGTERM, signal.SIGUSR1)
    ]
    log = (killed / f"logs/training/{NAME}/log.jsonl").read_text()
    found = finish(killed, given.processes)
    kept = [
        tell("trainings killed with signal 9", hits, "", f"{given.kills}", hits == given.kills),
        tell("of these with half a state on disk", halves, "", ">= 1", halves >= 1),
        tell(
            "SIGTERM, SIGUSR1 that saved and ended with 85",
            log.count("exit code 85"),
            "",
            "2",
            log.count("exit code 85") == 2 == sum(stops),
        ),
        tell("processes", given.processes, "", "", True),
        tell(
            "weights that differ from the undisturbed run's",
            int(found != expected),
            "files",
            "0",
            found == expected,
        ),
    ]
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
