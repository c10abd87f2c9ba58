"""Knobs survive the trip over the command line; mistakes end in one line."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.errors import UserError
from phenopipe.knobs import Knobs, parse_step


class Example(Knobs):
    tails: tuple[float, float] = (0.05, 0.95)
    sources: tuple[str, ...] = ("CORUM",)
    where: dict[str, list[int]] = {}
    lr: float = 3e-5
    limit: int | None = None
    column: str | None = "gene"
    on: bool = True


def test_flags_read_back_as_the_same_knobs():
    knobs = Example(sources=("hu.MAP", "two words"), limit=5, column=None, where={"a": [1]})
    assert parse_step(Example, argv=knobs.as_flags())[1] == knobs


def test_the_order_of_keys_changes_no_flag():
    one, other = ({"b": [2], "a": [1]}, {"a": [1], "b": [2]})
    assert Example(where=one).as_flags() == Example(where=other).as_flags()


@given(
    st.builds(
        Example,
        tails=st.tuples(st.floats(0, 1), st.floats(0, 1)),
        sources=st.lists(st.text()).map(tuple),
        lr=st.floats(0, 1),
        limit=st.none() | st.integers(),
        on=st.booleans(),
    )
)
def test_any_knobs_read_back(knobs):
    assert parse_step(Example, argv=knobs.as_flags())[1] == knobs


def test_files_are_paths_lists_or_nothing(tmp_path):
    one = tmp_path / "a"
    one.write_text("x")
    argv = ["--one", str(one), "--many", str(one), str(one), "--maybe", "--out", "b"]
    argv += ["--screen", "s"]
    files, _ = parse_step(
        Example, inputs=["one", "many*", "maybe?"], outputs=["out"], names=["screen"], argv=argv
    )
    assert (files.one, files.many, files.maybe, files.screen) == (one, [one, one], None, "s")
    assert files.stamp["names"] == {"screen": "s"}
    assert len(files.stamp["inputs"]["many"]) == 2


def test_stamp_holds_deterministic_facts_only(tmp_path):
    one = tmp_path / "a"
    one.write_text("x")
    argv = ["--one", str(one)]
    stamps = [parse_step(Example, inputs=["one"], argv=argv)[0].stamp for _ in range(2)]
    assert json.dumps(stamps[0]) == json.dumps(stamps[1])
    assert str(tmp_path) not in json.dumps(stamps[0])


def test_absent_input_is_named():
    with pytest.raises(UserError, match="nowhere"):
        parse_step(Example, inputs=["one"], argv=["--one", "nowhere"])


@pytest.mark.parametrize("flags", [["--limit", "many"], ["--one", "/nowhere"]])
def test_a_mistake_ends_in_one_line(flags, tmp_path):
    code = (
        "from phenopipe.knobs import Knobs, parse_step, run_step\n"
        "class E(Knobs):\n    limit: int = 1\n"
        "run_step(lambda: parse_step(E, inputs=['one?']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({"OMP_NUM_THREADS": "1"}, "1"),
        ({"OMP_NUM_THREADS": "2", "POLARS_MAX_THREADS": "1", "PHENOPIPE_THREADS": "1"}, "2"),
        ({"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"}, "2"),
    ],
    ids=["a job's", "a job's, not those of who started it", "the user's"],
)
def test_polars_obeys_threads(told, wanted):
    names = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "PHENOPIPE_THREADS", "RAYON_NUM_THREADS")
    env = {k: v for k, v in os.environ.items() if k not in names} | told
    code = "import phenopipe, polars; print(polars.thread_pool_size())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == wanted


def test_more_inputs_than_a_command_may_hold(tmp_path):
    # As in rules/report.smk; Snakemake itself writes long commands into a script.
    paths = " ".join(f"results/screen/simulated/{n:06d}/{'x' * 60}" for n in range(30_000))
    script = tmp_path / "script.sh"
    listed = f"--truth {paths}"
    script.write_text(f"{sys.executable} -m phenopipe.report.truth {listed} --found x")
    plain = subprocess.run(["bash", script], capture_output=True, text=True)
    assert "Argument list too long" in plain.stderr
    script.write_text(
        f"{sys.executable} -m phenopipe.report.truth @<(printf '%s\\n' {listed}) --found x"
    )
    listed = subprocess.run(["bash", script], capture_output=True, text=True)
    assert listed.stderr.startswith("error: results/screen/simulated/000000/")
    assert listed.stderr.endswith("no such file, wanted by --truth\n")
