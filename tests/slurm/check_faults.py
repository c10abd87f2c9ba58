"""A run comes to its end whatever the cluster does to it in the middle."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
# Less than a step of this rule takes with the Snakemake that starts it, more than half of it.
TIGHT_MB = 260


def slurm(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def wait_for_a_job(process, folder):
    """Wait until a job of the run is under way."""
    until = time.monotonic() + 300
    while str(folder) not in slurm("squeue", "-h", "-t", "running", "-o", "%Z"):
        assert process.poll() is None, (folder / "printed.txt").read_text()[-6000:]
        assert time.monotonic() < until, "no job within five minutes"
        time.sleep(0.3)


def command_before(name, folder, text):
    """A path on which a script goes before the command of that name."""
    script = folder / "commands" / name
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f"#!/bin/bash\necho >> {folder}/{name}.called\n{text}\n")
    script.chmod(0o755)
    return str(script.parent)


@pytest.fixture
def folder(cluster, copy):
    """A copy of the workflow whose jobs are not grouped."""
    place = copy("faults", HERE / "training.yaml")
    site = {"partition": "main", "first_check": 3, "groups": {}}
    (place / "site.yaml").write_text(yaml.safe_dump(site))
    return place


@pytest.fixture
def start(folder, run):
    """Start the workflow up to qc on the cluster."""

    def one(**more):
        site = str(folder / "site.yaml")
        return run(folder, "snakemake --profile slurm qc", PHENOPIPE_SITE=site, **more)

    return one


def made(folder):
    return (folder / "results" / "qc" / "simulated" / "a-1" / "wells.parquet").is_file()


def test_a_job_beyond_its_memory_gets_more_the_second_time(folder, start, finish):
    rules = folder / "rules" / "screen.smk"
    text, count = re.subn(
        r"(rule screen_simulate:.*?mem_mb=memory\()\d+",
        rf"\g<1>{TIGHT_MB}",
        rules.read_text(),
        count=1,
        flags=re.DOTALL,
    )
    assert count == 1
    rules.write_text(text)
    printed = finish(start(), folder)
    jobs = re.findall(r"SLURM jobid (\d+) \(log: \S*/rule_screen_simulate/", printed)
    ask = ("sacct", "-X", "-n", "-P", "-j", ",".join(jobs), "-o", "state,reqmem")
    states = [row.split("|") for row in slurm(*ask).splitlines()]
    print("memory:", states)
    # Limits by cgroups make it OUT_OF_MEMORY; by sampling, a step that was ended.
    assert states[0] in [[one, f"{TIGHT_MB}M"] for one in ("FAILED", "OUT_OF_MEMORY")]
    (told,) = (folder / "logs" / "slurm").rglob(f"{jobs[0]}.log")
    assert "exceeded memory limit" in told.read_text()
    assert states[1:] == [["COMPLETED", f"{2 * TIGHT_MB}M"]]
    assert made(folder)


def test_a_restart_of_the_controller_is_waited_for(cluster, folder, start, finish):
    process = start()
    wait_for_a_job(process, folder)
    cluster.end("slurmctld")
    time.sleep(15)
    cluster.launch("slurmctld", "slurmctld", "-D")
    printed = finish(process, folder)
    print("slurmctld:", len(re.findall("SLURM jobid", printed)), "jobs")
    assert "Trying to restart" not in printed
    assert made(folder)


def test_a_slow_sacct_is_waited_for(folder, start, finish, environment):
    real = shutil.which("sacct")
    slow = command_before("sacct", folder, f'sleep 25\nexec {real} "$@"')
    path = f"{slow}:{environment['PATH']}"
    printed = finish(start(PATH=path), folder)
    calls = (folder / "sacct.called").read_text().count("\n")
    print("sacct slow:", calls, "calls")
    assert calls and "Trying to restart" not in printed
    assert made(folder)


def test_without_sacct_squeue_is_asked(folder, start, finish, environment):
    absent = command_before("sacct", folder, "exit 127")
    more = {"PATH": f"{absent}:{environment['PATH']}", "PHENOPIPE_STATUS": "squeue"}
    printed = finish(start(**more), folder)
    assert "Trying to restart" not in printed
    assert made(folder)
