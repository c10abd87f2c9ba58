"""When something fails: one table at the end, the others go on, a command that redoes it."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from phenopipe.failures import again, read_failures

ROOT = Path(__file__).parents[1]


def snakemake(folder, *flags):
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "snakemake", *map(str, flags), "--cores", "2"]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)


@pytest.mark.workflow
def test_a_bad_experiment_is_told_and_the_others_are_made(tmp_path):
    config = yaml.safe_load((ROOT / "tests" / "small.yaml").read_text())
    screen = config["screens"]["simulated"]
    mine = {
        "screens": {
            "lab": {
                "source": "images",
                "channels": ["dna"],
                "columns": {k: k for k in ("plate", "well", "role", "cell_type")},
                "files": {"dna": "image"},
                "roles": {"negative_control": ["dmso"]},
                "experiments": {"bad": {"tables": ["bad.csv"]}},
            },
            "simulated": {**screen, "experiments": {"a-1": screen["experiments"]["a-1"]}},
        },
    }
    (tmp_path / "bad.csv").write_text("well,image\n")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(mine))
    started = ["-s", ROOT / "Snakefile", "--configfile", path, "--config", f"data={tmp_path}"]
    done = snakemake(tmp_path, "screen", *started, "--keep-going")
    assert "1 job failed" in done.stderr, done.stdout + done.stderr
    told = done.stderr[done.stderr.index("1 job failed") :]
    assert "screen images  lab bad" in told
    reason = re.search(r"reason  (.*)", told)[1]
    assert reason == "error: table: no column 'plate', wanted by columns.plate"
    assert (tmp_path / re.search(r"log     (.*)", told)[1]).is_file()
    assert (tmp_path / "results" / "screen" / "simulated" / "a-1" / "wells.parquet").is_file()
    # The command names the very job: once mended, it makes what failed.
    redo = shlex.split(re.search(r"again   (.*)", told)[1])
    once_more = snakemake(tmp_path, *redo[1:], "--dry-run")
    assert once_more.returncode == 0, once_more.stderr
    assert "rule screen_images" in once_more.stdout


def block(rule, output, log):
    return (
        f"Error in rule {rule}:\n    message: None\n    jobid: 3\n    output: {output}\n"
        f"    log: {log} (check log file(s) for error details)\n    shell:\n        x\n"
    )


def test_a_retry_that_went_well_is_no_failure(tmp_path):
    there = tmp_path / "there.parquet"
    text = block("qc_images", there, "logs/qc/images/a/b.log")
    assert [one.names for one in read_failures(text)] == ["a b"]
    there.touch()
    assert read_failures(text) == []


def test_attempts_of_one_job_are_one_failure():
    text = block("qc_images", "x", "logs/qc/images/a/b.log") * 2
    assert len(read_failures(text)) == 1


def test_killed_jobs_say_by_whom():
    text = block("embed_wells", "x", "logs/embed/wells/a/b/c.log")
    text = text.replace(
        "message: None", "message: SLURM-job '4' failed, SLURM status is: 'OUT_OF_MEMORY'."
    )
    (one,) = read_failures(text)
    assert (one.stage, one.step, one.reason) == ("embed", "wells", "SLURM: OUT_OF_MEMORY")


def test_jobs_of_a_group_are_told_one_by_one(tmp_path):
    log = tmp_path / "logs.log"
    log.write_text("Traceback\n  File\nValueError: 3 is not 4\n")
    text = f"""Error in group qc:
    message: SLURM-job '5' failed, SLURM status is: 'FAILED'.
    jobs:
        rule qc_images:
            jobid: 1
            output: there/a
            log: {log} (check log file(s) for error details)
        rule qc_wells:
            jobid: 2
            output: there/b
            log: {log}.not (check log file(s) for error details)
"""
    first, second = read_failures(text)
    assert (first.rule, first.reason) == ("qc_images", "ValueError: 3 is not 4")
    assert second.reason == "ended before it said anything"


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["--profile", "slurm", "all"], "snakemake --profile slurm x"),
        (["all", "--configfile", "a.yaml", "-n"], "snakemake x --configfile a.yaml"),
        (["--profile=slurm", "--jobs", "3", "all"], "snakemake --profile=slurm x"),
    ],
)
def test_the_command_keeps_what_names_the_run(argv, wanted):
    assert again(argv, "x") == wanted
