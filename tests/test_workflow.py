"""Snakemake itself: lint, dry runs of every target, the literal command, reruns."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from phenopipe.steps import STEPS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.workflow


def snakemake(*flags, cwd=ROOT, check=True):
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *map(str, flags)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def dry_run(*flags, **where):
    return snakemake("--dry-run", "--cores", 1, *flags, **where).stdout


def test_lint_is_clean():
    assert "Congratulations" in snakemake("--lint").stderr


@pytest.mark.parametrize("target", ["all", *STEPS])
def test_dry_run_of_every_target(target, tmp_path):
    assert "Job stats" in dry_run(target, "--snakefile", ROOT / "Snakefile", "-d", tmp_path)


def test_the_literal_slurm_command_resolves(tmp_path):
    printed = snakemake("--profile", "slurm", "all", "--dry-run", "-d", tmp_path).stdout
    assert "report_page" in printed


def test_no_default_profile_can_win():
    assert not (ROOT / "profiles" / "default").exists()


def test_configfile_and_directory_outside_the_repository(tmp_path):
    config = yaml.safe_load((ROOT / "workflow_config.yaml").read_text())
    del config["screens"]["simulated"]["experiments"]["arpe-2"]
    config["probes"]["anax"]["test"].remove("arpe-2")
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(config))
    printed = dry_run(
        "all", "--snakefile", ROOT / "Snakefile", "--configfile", mine, "-d", tmp_path / "there"
    )
    assert "huvec-1" in printed and "arpe-2" not in printed


def test_a_student_that_starts_from_an_autoencoder_is_trained_probed_and_trimmed(tmp_path):
    config = yaml.safe_load((ROOT / "tests" / "small.yaml").read_text())
    sizes = {
        key: config["encoders"]["mae-all"][key] for key in ("crop", "dim", "depth", "heads")
    }
    dino = {"kind": "dino", "manifest": "all", "initialize_from": "mae-all", **sizes}
    config["encoders"] |= {
        "dino": dino,
        "cut": {"kind": "trimmed", "of": "dino", "task": "anax"},
    }
    config["probes"]["anax"]["encoders"].append("dino")
    config["benchmarks"]["genome"]["encoders"] += ["dino", "cut"]
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(config))
    flags = ("--snakefile", ROOT / "Snakefile", "--configfile", mine, "-d", tmp_path / "there")
    printed = dry_run("all", *flags, "--printshellcmds")
    (command,) = re.findall(r"python -m phenopipe.pretrain.dino (.*?)&>", printed, re.DOTALL)
    assert "--start-model results/encoders/mae-all/model.safetensors" in command
    assert (
        "results/pretrain/dino/history.parquet" in command and "--prototypes=65536" in command
    )
    assert "results/pretrain/dino/reconstructions.npz" not in printed
    made = re.findall(r"results/\S+?/(?:dino|cut)/\S*", printed)
    for path in ("probe/dino/anax", "embed/simulated/dino", "benchmark/genome/cut"):
        assert any(one.startswith(f"results/{path}") for one in made), path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"consistency": {"pvalues": {"n_nul": 5}}}, "consistency.pvalues.n_nul"),
        (
            {"consistency": {"pvalues": {"n_null": "many"}}},
            "consistency.pvalues.n_null",
        ),
        ({"nonsense": {}}, "nonsense"),
        ({"benchmarks": {"b": {"screen": "nowhere", "encoders": []}}}, "benchmarks.b.screen"),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line_before_any_job(change, told, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        yaml.safe_dump(
            {**yaml.safe_load((ROOT / "workflow_config.yaml").read_text()), **change}
        )
    )
    done = snakemake("--configfile", mine, "--cores", 1, "-d", tmp_path, check=False)
    assert done.returncode != 0
    lines = [line for line in (done.stdout + done.stderr).splitlines() if told in line]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()
