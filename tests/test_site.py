"""What the site's file makes of jobs, asked of the executor's own submit command."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

from phenopipe.errors import UserError
from phenopipe.site import Shape, gpu_resources, read_site, training_resources

ROOT = Path(__file__).parents[1]


class Resources(dict):
    __getattr__ = dict.get


def submitted(resources, threads=1):
    """The command by which the executor would submit a job, as flags with their values."""
    given = Resources(
        {k: v.strip("'") if isinstance(v, str) else v for k, v in resources.items()}
    )
    job = SimpleNamespace(
        resources=Resources({"mem_mb": 1000, "runtime": 10, **given}),
        threads=threads,
        name="pretrain_mae",
        rule=SimpleNamespace(name="pretrain_mae"),
        wildcards={},
        is_group=lambda: False,
    )
    validate_slurm_extra(job)
    names = ("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir")
    params = dict.fromkeys(names, "x")
    settings = SimpleNamespace(requeue=True, no_requeue=False, qos=None, reservation=None)
    return get_submit_command(job, params, settings) + set_gres_string(job)


def test_a_gpu_for_a_job_without_steps_of_its_own():
    command = submitted(gpu_resources(1, "a100"))
    assert "--gres=gpu:a100:1" in command
    assert "--ntasks-per-gpu" not in command


def test_no_gpus_no_resources():
    assert gpu_resources(0) == {}


def test_training_on_one_node_has_one_task_and_all_its_cores():
    shape = Shape(processes=4, threads=6, gpus=True, runtime=90, mem_mb=5000, notice=60)
    command = submitted(training_resources(shape))
    assert "--nodes=1" in command and "--gres=gpu:4" in command
    assert "--cpus-per-task=24" in command and "-t 90" in command and "--mem 5000" in command
    assert "--signal=USR1@60" in command and "--signal=B" not in command
    assert "--ntasks-per-gpu" not in command and "--requeue" in command


def test_training_on_one_node_without_gpus_has_one_task():
    assert "--ntasks=1 " in submitted(training_resources(Shape()))


def test_training_stays_in_the_batch_script():
    for nodes in (1, 2):
        # The executor's step inside the job looks for the key, whatever its value.
        assert "mpi" in training_resources(Shape(nodes=nodes))


def test_training_on_many_nodes_has_one_task_a_node():
    shape = Shape(nodes=3, processes=8, gpus=True)
    made = training_resources(shape, "h100")
    command = submitted(made)
    assert made["processes"] == 24
    assert "--nodes=3" in command and "--ntasks=3" in command
    assert "--ntasks-per-node=1" in command and "--gres=gpu:h100:8" in command
    assert "--ntasks-per-gpu" not in command


def test_the_example_is_a_site():
    site = read_site({"PHENOPIPE_SITE": str(ROOT / "profiles" / "slurm" / "site.example.yaml")})
    assert site.default_resources() == {"slurm_account": "my_group", "slurm_partition": "cpu"}
    sets = site.set_resources()
    assert sets["pretrain_mae"]["slurm_partition"] == "gpu"
    assert sets["embed_wells"]["gres"] == "gpu:a100:1"
    assert site.set_threads()["pretrain_mae"] == 6


def test_the_environment_goes_before_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB", "cells")
    path = tmp_path / "site.yaml"
    path.write_text("account: $LAB\npartition: slow\n")
    site = read_site({"PHENOPIPE_SITE": str(path), "PHENOPIPE_PARTITION": "fast"})
    assert (site.account, site.partition) == ("cells", "fast")


@pytest.mark.parametrize(
    ("text", "told"), [("acc: x", "acc: unknown key"), ("status: top", "status")]
)
def test_a_mistake_in_the_file_is_told_in_one_line(text, told, tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(told)):
        read_site({"PHENOPIPE_SITE": str(path)})
    with pytest.raises(UserError, match="no such file"):
        read_site({"PHENOPIPE_SITE": str(tmp_path / "nowhere.yaml")})


@pytest.mark.parametrize(
    "file", [None, *(f"{p}.yaml" for p in ("profiles/slurm/site.example", "tests/slurm/site"))]
)
def test_grouped_rules_exist(file):
    site = read_site({"PHENOPIPE_SITE": str(ROOT / file)} if file else {})
    rules = "".join(p.read_text() for p in (ROOT / "rules").glob("*.smk"))
    for rule in (*site.groups, *site.gpus):
        assert f"rule {rule}:" in rules
    assert set(site.together) <= set(site.groups.values())
