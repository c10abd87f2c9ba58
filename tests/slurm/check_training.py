"""A training on two nodes of two processes: the same weights, whatever happens to it."""

import json
import math
import re
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from phenopipe.formats.fingerprint import fingerprint

HERE = Path(__file__).parent
SHAPE = {"nodes": 2, "processes": 2, "notice": 45}


def slurm(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def wait_for(what, process, folder, seconds=3600):
    """Wait until something is so; the run must still be going."""
    until = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, (folder / "printed.txt").read_text()[-4000:]
        assert time.monotonic() < until, (folder / "printed.txt").read_text()[-4000:]
        time.sleep(0.3)


def states(folder):
    """Updates of the states that are whole."""
    root = folder / "results" / "pretrain" / "mae" / "checkpoints"
    return [json.loads(p.read_text())["update"] for p in root.glob("*/*/state.json")]


def job_of(folder):
    """Id of the run's job in the queue, None if there is none."""
    rows = slurm("squeue", "-h", "-o", "%i %Z").splitlines()
    ids = [row.split()[0] for row in rows if row.split()[1] == str(folder)]
    return ids[0] if ids else None


def requeue(folder):
    slurm("scontrol", "requeue", job_of(folder))


def lose_a_node(folder):
    slurm("scontrol", "update", "nodename=node2", "state=down", "reason=test")
    time.sleep(3)
    # A node that answers may be back of itself by now, and SLURM refuses to resume it then.
    subprocess.run(["scontrol", "update", "nodename=node2", "state=resume"], check=False)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, environment, copy):
    """Everything before the training, made once on this machine."""
    folder = copy("prepared", HERE / "training.yaml")
    done = subprocess.run(
        ["snakemake", "--profile", "local", "phenoprints"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def train(cluster, prepared, tmp_path_factory, run, finish):
    """Run the training in a folder of its own, disturb it once, return folder and log."""

    def one(name, disturb=None, **more):
        folder = tmp_path_factory.mktemp(name) / "run"
        shutil.copytree(prepared, folder, symlinks=True)
        site = {"partition": "main", "first_check": 3}
        site["trainings"] = {"pretrain_mae": {**SHAPE, **more}}
        (folder / "site.yaml").write_text(yaml.safe_dump(site))
        process = run(
            folder,
            "snakemake --profile slurm pretrain",
            PHENOPIPE_SITE=str(folder / "site.yaml"),
        )
        if disturb:
            wait_for(lambda: states(folder), process, folder)
            disturb(folder)
        return folder, finish(process, folder)

    return one


def weights(folder):
    return fingerprint(folder / "results" / "encoders" / "mae" / "model.safetensors")


def first_start(printed):
    """When a run's only job began, in seconds."""
    job = re.search(r"SLURM jobid (\d+)", printed)[1]
    told = slurm("sacct", "-X", "-n", "-P", "-j", job, "-o", "start")
    return datetime.fromisoformat(told.split()[0]).timestamp()


@pytest.fixture(scope="session")
def undisturbed(train):
    """Weights of the training left alone, and seconds until its first state."""
    reached = []
    folder, printed = train("undisturbed", lambda _: reached.append(time.time()))
    return weights(folder), reached[0] - first_start(printed)


@pytest.mark.parametrize("disturb", [requeue, lose_a_node])
def test_a_disturbed_training_comes_to_the_same_weights(disturb, train, undisturbed):
    folder, printed = train(disturb.__name__, disturb)
    assert "Trying to restart" not in printed, "SLURM requeues, Snakemake only waits"
    assert weights(folder) == undisturbed[0]


def test_a_training_beyond_its_time_limit_needs_no_hand(train, undisturbed):
    expected, seconds = undisturbed
    # Long enough for a first state on a machine as busy as it was, too short for all of them.
    minutes = math.ceil((1.25 * seconds + SHAPE["notice"]) / 60)
    folder, printed = train("limit", runtime=minutes)
    assert "Trying to restart" not in printed
    assert weights(folder) == expected
    job = re.search(r"SLURM jobid (\d+)", printed)[1]
    # With -D sacct tells every start of one job: more than one, none of them by Snakemake.
    starts = slurm("sacct", "-D", "-X", "-n", "-j", job, "-o", "state").split()
    print(f"limit of {minutes} minutes:", starts)
    assert len(starts) > 1 and "TIMEOUT" not in starts, starts
