"""Where results come from, and what a run will cost: from the records of jobs that ran."""

import json
import os
import subprocess
import sys

import pytest

from phenopipe import lineage
from phenopipe.errors import UserError
from phenopipe.formats.fingerprint import fingerprint
from phenopipe.plan import read_dry_run, table
from phenopipe.records import Run


def recorded(
    folder, stage, step, names, *, knobs=None, inputs=None, output, content, source="c0de"
):
    """A result and the record that its job leaves."""
    path = folder / output
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    record = {
        "stamp": {
            "stage": stage,
            "step": step,
            "version": "1",
            "names": names,
            "knobs": knobs or {},
            "inputs": {
                k: [fingerprint(folder / p) for p in v] for k, v in (inputs or {}).items()
            },
        },
        "outputs": {output: fingerprint(path)},
        "source": source,
        "host": "node1",
        "job": "7",
        "seconds": 2.0,
    }
    place = folder / "logs" / "provenance" / stage / f"{step}_{'_'.join(names.values())}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(record))
    return path


def chain(folder, *, low=1, pixels="pixels"):
    """A result of two jobs and a file from outside."""
    folder.mkdir(exist_ok=True)
    (folder / "table.csv").write_text(pixels)
    recorded(
        folder,
        *("screen", "images", {"experiment": "e-1"}),
        inputs={"table": ["table.csv"]},
        output="results/wells",
        content=f"wells of {pixels}",
    )
    return recorded(
        folder,
        *("qc", "wells", {"experiment": "e-1"}),
        knobs={"low": low},
        inputs={"wells": ["results/wells"]},
        output="results/flags",
        content=f"flags {low} {pixels}",
    )


def test_the_tree_goes_back_to_what_came_from_outside(tmp_path):
    path = chain(tmp_path)
    lines = list(lineage.tell(Run.of(path), path))
    assert "qc.wells, version 1, code c0de, host node1, job 7, 2.0 s" in lines[0]
    assert lines[1] == '  knobs {"low": 1}'
    assert "screen.images" in lines[2] and lines[2].startswith("  results/wells")
    assert lines[3].endswith("from outside") and lines[3].startswith("    (table)")


def test_a_result_changed_by_hand_has_no_lineage(tmp_path):
    path = chain(tmp_path)
    path.write_text("mine")
    with pytest.raises(UserError, match="no job recorded this content"):
        list(lineage.tell(Run.of(path), path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"low": 2}, "qc.wells e-1: knob low is 1 here and 2 there"),
        ({"pixels": "others"}, "screen.images e-1: table from outside is"),
    ],
)
def test_two_results_part_where_they_differ(change, told, tmp_path):
    one, other = chain(tmp_path / "one"), chain(tmp_path / "other", **change)
    lines = list(lineage.compare(Run.of(one), one, Run.of(other), other))
    assert len(lines) == 2 and lines[1].startswith(told)


def test_equal_results_are_said_to_be_equal(tmp_path):
    one, other = chain(tmp_path / "one"), chain(tmp_path / "other")
    (line,) = lineage.compare(Run.of(one), one, Run.of(other), other)
    assert line.startswith("the same content")


def test_a_file_outside_any_run_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="no folder above it"):
        Run.of(tmp_path / "x")


DRY_RUN = """
[Tue]
rule qc_images:
    output: results/qc/a
    jobid: 1
    reason: Missing output files: results/qc/a
    wildcards: experiment=a
    resources: tmpdir=/tmp, mem_mb=2000

rule qc_images:
    output: results/qc/b
    jobid: 2
    reason: Params have changed since last execution
    resources: tmpdir=/tmp, mem_mb=2000

rule pretrain_mae:
    output: x
    reason: Input files updated by another job: y
    threads: 6
    resources: nodes=2, cpus_per_task=48, gres=gpu:a100:8, mpi=srun

Job stats:
"""


def test_a_plan_counts_jobs_reasons_cores_and_gpus():
    images, mae = read_dry_run(DRY_RUN)
    assert images.jobs == 2 and images.threads == 1 and images.gpus == 0
    assert images.reasons == {"not made yet": 1, "knobs or code changed": 1}
    assert mae.threads == 96 and mae.gpus == 16
    lines = list(table([images, mae], {"pretrain.mae": 1800.0}, {"pretrain.mae": 2e9}, {}))
    assert lines[1].split()[:3] == ["qc.images", "2", "?"]
    assert lines[2].split()[:5] == ["pretrain.mae", "1", "48.000", "8.000", "2.000"]
    assert lines[3].split() == ["all", "3", "48.000", "8.000", "2.000"]
    assert lines[4].startswith("1 steps have no past")


def test_doctor_tells_what_is_wrong_by_its_exit_code(tmp_path):
    command = [sys.executable, "-m", "phenopipe.doctor", "-d", tmp_path, "--needs", "1e9"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 1, done.stderr
    disk = next(line for line in done.stdout.splitlines() if " disk " in line)
    assert disk.startswith("not ok") and disk.endswith("make room or use --directory")
    assert list(tmp_path.iterdir()) == []
