"""One small real run end to end, then what each change reruns: no more, no less."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil
import pytest
import yaml

from phenopipe.formats.fingerprint import fingerprint

ROOT = Path(__file__).parents[1]
SMALL = yaml.safe_load((ROOT / "tests" / "small.yaml").read_text())
pytestmark = pytest.mark.workflow


def environment():
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def command_of(home, work, config, *flags):
    path = work / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    command = ["-m", "snakemake", "-s", home / "Snakefile", "--configfile", path, "-d", work]
    return [sys.executable, *map(str, command), "--cores", "2", *flags]


def snakemake(home, work, config, *flags):
    done = subprocess.run(
        command_of(home, work, config, *flags),
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def planned(home, work, config, target="all"):
    """Jobs that a dry run would start, as (rule, wildcards) pairs."""
    printed = snakemake(home, work, config, "--dry-run", target)
    jobs = set()
    for block in re.split(r"\n(?=(?:local)?rule \w+:)", printed)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)[1]
        found = re.search(r"^ {4}wildcards: (.*)$", block, re.MULTILINE)
        pairs = dict(one.split("=", 1) for one in found[1].split(", ")) if found else {}
        jobs.add((rule, tuple(sorted(pairs.items()))))
    return {
        (rule, dict(pairs).get("experiment"), dict(pairs).get("encoder"))
        for rule, pairs in jobs
    }


def changed(config, **sections):
    """The configuration with some keys of some sections replaced."""
    return {
        **config,
        **{key: {**config.get(key, {}), **value} for key, value in sections.items()},
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A copy of the workflow, so that tests may edit its code."""
    copy = tmp_path_factory.mktemp("home")
    for name in ("Snakefile", "rules", "phenopipe", "envs", "workflow_config.yaml"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignore)
        else:
            shutil.copy(source, copy / name)
    return copy


@pytest.fixture(scope="module")
def work(home, tmp_path_factory):
    """A folder with the results of the small run."""
    folder = tmp_path_factory.mktemp("work")
    snakemake(home, folder, SMALL, "all")
    return folder


def test_small_run_reaches_a_report_that_opens_offline(work):
    page = (work / "results" / "report" / "index.html").read_text()
    assert "<html" in page
    assert not re.search(r"""(?:src|href)=["']https?://""", page)


def test_a_second_run_has_nothing_to_do(home, work):
    assert "Nothing to be done" in snakemake(home, work, SMALL, "all")


def test_every_configured_encoder_has_a_folder(work):
    for name, one in SMALL["encoders"].items():
        if one["kind"] != "profiles":
            folder = work / "results" / "encoders" / name
            assert {p.name for p in folder.iterdir()} >= {"model.safetensors", "config.json"}


def test_sites_are_probed_where_embed_keeps_them(work):
    told = json.loads((work / "results/probe/untrained/sites/best_block.json").read_text())
    assert told["level"] == "sites" and told["label"] == "gene"
    predictions = pl.read_parquet(work / "results/probe/untrained/sites/predictions.parquet")
    of_last = predictions.filter(pl.col("block") == told["last_block"])
    sites = of_last.group_by("well_id").agg(pl.col("site").sort())["site"].to_list()
    assert sites == [[1, 2]] * len(sites) and told["n_test"] == 2 * len(sites)


def training_of(scheduler, step):
    """The processes of a training that Snakemake runs."""
    found = []
    for child in psutil.Process(scheduler.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.cmdline()[1:3] == ["-m", f"phenopipe.pretrain.{step}"]:
                found.append(child)
    return found


def stop_training(home, work, config, number, *, after):
    """Run a training through Snakemake and send it a signal after some updates."""
    target = "results/encoders/mae-all/model.safetensors"
    told = work / "logs/training/mae-all/log.jsonl"
    # It tells one line when it begins, and one an update.
    wanted = lines_of(told) + 1 + after
    command = command_of(home, work, config, target, "--rerun-triggers", "mtime")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler, processes = subprocess.Popen(command, env=environment(), **quiet), []
    while lines_of(told) < wanted:
        assert scheduler.poll() is None
        time.sleep(0.003)
        processes = processes or training_of(scheduler, "mae")
    for process in processes:
        process.send_signal(number)
    assert scheduler.wait() != 0
    assert not (work / target).exists()


def lines_of(path):
    return path.read_text().count("\n") if path.exists() else 0


def test_training_that_is_killed_and_stopped_ends_with_the_same_weights(home, work, tmp_path):
    """Kill -9 and SIGTERM through Snakemake, then a run to the end."""
    for stage in ("screen", "qc", "undersample", "phenoprints/all"):
        shutil.copytree(work / "results" / stage, tmp_path / "results" / stage)
    config = changed(SMALL, pretrain={"mae": {"checkpoint_every": 2, "log_every": 1}})
    stop_training(home, tmp_path, config, signal.SIGKILL, after=2)
    stop_training(home, tmp_path, config, signal.SIGTERM, after=1)
    assert "exit code 85" in (tmp_path / "logs/pretrain/mae/mae-all.log").read_text()
    target = "results/encoders/mae-all/model.safetensors"
    snakemake(home, tmp_path, config, target, "--rerun-triggers", "mtime")
    assert (tmp_path / target).read_bytes() == (work / target).read_bytes()
    lines = (tmp_path / "logs/training/mae-all/log.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert told[-1]["update"] == 8 and 0 <= told[-1]["data_wait_share"] <= 1
    assert list((tmp_path / "logs/training/mae-all").glob("events.out.tfevents.*"))


def test_same_seed_same_bytes(home, work, tmp_path):
    target = "results/screen/simulated/a-1/wells.parquet"
    snakemake(home, tmp_path, SMALL, target)
    for name in ("wells.parquet", "images.parquet", "images.zarr", "truth.parquet"):
        place = Path("results/screen/simulated/a-1") / name
        assert fingerprint(work / place) == fingerprint(tmp_path / place)


def with_new_experiment(config):
    """The configuration after one more line in the screen's sheet."""
    screen = config["screens"]["simulated"]
    sheet = {**screen["experiments"], "c-1": {"cell_type": "HUVEC", "layout": "C"}}
    return changed(config, screens={"simulated": {**screen, "experiments": sheet}})


def test_a_new_experiment_reruns_its_own_jobs_and_the_aggregates(home, work):
    jobs = planned(home, work, with_new_experiment(SMALL))
    unchanged = {
        n for n, one in SMALL["encoders"].items() if "manifest" not in one and "of" not in one
    }
    assert {
        ("screen_simulate", "c-1", None),
        ("qc_images", "c-1", None),
        ("qc_wells", "c-1", None),
    } <= jobs
    for rule, experiment, encoder in jobs:
        if rule.startswith(("screen_simulate", "qc_")) and rule != "qc_check":
            assert experiment == "c-1", (rule, experiment)
        if rule == "embed_wells" and encoder in unchanged:
            assert experiment == "c-1", (rule, experiment, encoder)
    rules = {rule for rule, _, _ in jobs}
    assert {"qc_check", "undersample_wells", "align_fit"} <= rules
    assert {"phenoprints_select", "report_page"} <= rules
    assert "embed_prepare" not in rules and "screen_annotate" not in rules


def test_with_transform_and_manifest_frozen_only_its_own_jobs_run(home, work, tmp_path):
    before = list(SMALL["screens"]["simulated"]["experiments"])
    frozen = changed(
        SMALL,
        align={**SMALL.get("align", {}), "fit": {"experiments": before}},
        manifests={
            name: {**one, "screens": {"simulated": before}}
            for name, one in SMALL["manifests"].items()
        },
    )
    shutil.copytree(work, tmp_path, dirs_exist_ok=True, symlinks=True)
    # The same experiments, named: nothing would come out differently, so mark it as made.
    snakemake(home, tmp_path, frozen, "all", "--touch")
    assert planned(home, tmp_path, frozen) == set()
    for rule, experiment, _ in planned(home, tmp_path, with_new_experiment(frozen)):
        final = rule.startswith(("benchmark_", "report_")) or rule in ("all", "qc_check")
        assert final or experiment == "c-1", (rule, experiment)


def test_apply_takes_a_later_experiment_through_what_is_finished(home, work):
    screen = {**SMALL["screens"]["simulated"], "apply": {"c-1": {"layout": "C"}}}
    config = changed(SMALL, screens={"simulated": screen})
    assert planned(home, work, config) == set()
    jobs = planned(home, work, config, "apply")
    encoders = ("untrained", "mae-all", "classifier", "ca-mae-trimmed")
    assert jobs - {("apply", None, None)} == {
        *((rule, "c-1", None) for rule in ("screen_simulate", "qc_images", "qc_wells")),
        *((rule, "c-1", one) for rule in ("embed_wells", "align_apply") for one in encoders),
    }
    folder = work / "results" / "align" / "simulated" / "untrained"
    transform = (folder / "transform.npz").read_bytes()
    snakemake(home, work, config, "results/align/simulated/untrained/c-1/embeddings.parquet")
    aligned = pl.read_parquet(folder / "c-1" / "embeddings.parquet")
    assert aligned.height > 100 and set(aligned["experiment"]) == {"c-1"}
    assert (folder / "transform.npz").read_bytes() == transform


def test_a_changed_knob_reruns_its_step_and_what_follows(home, work):
    knob = {"pvalues": {**SMALL.get("consistency", {}).get("pvalues", {}), "n_null": 333}}
    jobs = planned(home, work, changed(SMALL, consistency=knob))
    rules = {rule for rule, _, _ in jobs}
    assert {"consistency_pvalues", "phenoprints_combine", "pretrain_mae"} <= rules
    assert not rules & {"screen_simulate", "qc_images", "qc_wells", "undersample_wells"}
    # The encoder that learns from the manifest is new, so what it embeds is aligned anew.
    assert {encoder for rule, _, encoder in jobs if rule == "align_fit"} == {"ca-mae-trimmed"}


def test_a_comment_reruns_nothing_and_code_reruns_its_stage(home, work):
    path = home / "phenopipe" / "consistency" / "statistics.py"
    text = path.read_text()
    try:
        path.write_text(text + "\n# A comment.\n")
        assert planned(home, work, SMALL) == set()
        path.write_text(text + "\nMEANING = 42\n")
        jobs = planned(home, work, SMALL)
        assert "consistency_pvalues" in {rule for rule, _, _ in jobs}
        aligned = {encoder for rule, _, encoder in jobs if rule == "align_apply"}
        assert aligned == {"ca-mae-trimmed"}
    finally:
        path.write_text(text)


def test_tidy_results_name_their_encoder(work):
    paths = sorted((work / "results" / "benchmark").rglob("recall.parquet"))
    assert paths
    for path in paths:
        assert set(pl.read_parquet(path)["encoder"]) == {path.parent.name}


def with_settings(section, **settings):
    """The small configuration with some keys of some entries or steps of a section set."""
    old = SMALL.get(section, {})
    return changed(
        SMALL, **{section: {name: {**old.get(name, {}), **v} for name, v in settings.items()}}
    )


def with_changed_experiment():
    """As if the images of one experiment were taken again."""
    sheet = SMALL["screens"]["simulated"]["experiments"]
    sheet = {**sheet, "a-1": {**sheet["a-1"], "seed": 7}}
    return with_settings("screens", simulated={"experiments": sheet})


def with_new_encoder():
    genome = SMALL["benchmarks"]["genome"]
    return changed(
        SMALL,
        encoders={"another": {"kind": "pixels", "crop": 16}},
        benchmarks={"genome": {**genome, "encoders": [*genome["encoders"], "another"]}},
    )


def with_new_judge():
    judges = [*SMALL["manifests"]["phenoprints"]["judges"], "untrained"]
    return with_settings("manifests", phenoprints={"judges": judges})


# What follows what, as sets of rules; a row of the table is a sum of them.
IMPORTED = {"screen_simulate", "qc_check", "qc_images"}
TRUSTED = {"qc_wells"}
ALIGNED = {f"align_{s}" for s in ("moments", "fit", "center", "apply", "measure", "arms")}
JUDGED = {"consistency_pvalues"} | {
    f"phenoprints_{s}" for s in ("combine", "select", "diversity")
}
TESTED = {
    f"benchmark_{s}"
    for s in ("recall", "replicates", "magnitude", "compounds", "aggregate", "arms")
}
TOLD = {"report_truth", "report_tables", "report_page", "all"}
# The curated encoder is trained anew, so what it sees is embedded, probed and aligned anew.
TRAINED = {"pretrain_mae", "embed_wells", "probe_blocks", "probe_trim"}
TRAINED |= ALIGNED | TESTED | TOLD | {"consistency_pvalues"}
LEARNED = TRAINED - {"consistency_pvalues"}
# Row: configuration, rules that run, and experiments and encoders of the step that changed.
ROWS = {
    "nothing": (SMALL, set(), None),
    "controls of a screen": (
        with_settings("screens", simulated={"negative_controls": 14}),
        IMPORTED | TRUSTED | {"undersample_wells"} | JUDGED | TRAINED,
        ("screen_simulate", {"a-1", "a-2", "b-1"}, {None}),
    ),
    "images of one experiment": (
        with_changed_experiment(),
        IMPORTED | TRUSTED | {"undersample_wells"} | JUDGED | TRAINED,
        ("qc_images", {"a-1"}, {None}),
    ),
    "a knob of qc": (
        with_settings("qc", wells={"max_blur": 7.0}),
        TRUSTED | {"undersample_wells", "pretrain_classifier"} | JUDGED | TRAINED,
        ("qc_wells", {"a-1", "a-2", "b-1", "l-1"}, {None}),
    ),
    "a knob of undersample": (
        with_settings("undersample", wells={"keep_empty": 0.2}),
        {"undersample_wells"} | JUDGED | TRAINED,
        ("undersample_wells", {None}, {None}),
    ),
    "a knob of embed": (
        with_settings("embed", wells={"batch": 64}),
        JUDGED | TRAINED,
        ("consistency_pvalues", {"a-1", "a-2", "b-1"}, {"mae-all", "classifier"}),
    ),
    "a knob of align": (
        with_settings("align", fit={"regularization": 0.4}),
        JUDGED | TRAINED,
        ("align_fit", {None}, {"mae-all", "classifier", "untrained", "ca-mae-trimmed"}),
    ),
    "a knob of phenoprints": (
        with_settings("phenoprints", diversity={"quantile": 0.9}),
        {"phenoprints_diversity", "report_page", "all"},
        ("phenoprints_diversity", {None}, {None}),
    ),
    "a knob of pretrain": (
        with_settings("encoders", classifier={"updates": 9}),
        JUDGED | LEARNED | {"pretrain_classifier", "consistency_pvalues"},
        ("pretrain_mae", {None}, {"ca-mae"}),
    ),
    "a knob of probe": (
        with_settings("probes", anax={"bootstraps": 51}),
        (TRAINED | {"report_page"}) - {"pretrain_mae", "consistency_pvalues"},
        ("probe_blocks", {None}, {"pixels", "untrained", "ca-mae"}),
    ),
    "a knob of benchmark": (
        with_settings("benchmarks", genome={"magnitude": {"null_draws": 51, "bootstraps": 20}}),
        {"benchmark_magnitude", "report_tables", "report_page", "all"},
        ("benchmark_magnitude", {None}, {"untrained", "ca-mae-trimmed"}),
    ),
    "a knob of report": (
        with_settings("report", page={"title": "Another title"}),
        {"report_page", "all"},
        None,
    ),
    "a new encoder": (
        with_new_encoder(),
        {"embed_prepare", "embed_wells"} | ALIGNED | TESTED | TOLD,
        ("embed_wells", {"a-1", "a-2", "b-1"}, {"another"}),
    ),
    "a new judge": (
        with_new_judge(),
        JUDGED | LEARNED,
        ("consistency_pvalues", {"a-1", "a-2", "b-1"}, {"untrained"}),
    ),
}


@pytest.fixture(scope="module")
def dry_runs(home, work, tmp_path_factory):
    """Jobs of every row of the table, from one process."""
    folder = tmp_path_factory.mktemp("rows")
    paths = []
    for number, (config, _, _) in enumerate(ROWS.values()):
        paths.append(folder / f"{number}.yaml")
        paths[-1].write_text(yaml.safe_dump(config))
    command = [sys.executable, ROOT / "tests" / "dryruns.py", home, work, *paths]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(ROWS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("row", ROWS)
def test_a_change_reruns_exactly_what_it_touches(row, dry_runs):
    _, rules, step = ROWS[row]
    jobs = dry_runs[row]
    assert {rule for rule, _, _ in jobs} == rules
    if step:
        rule, experiments, encoders = step
        mine = [(e, n) for one, e, n in jobs if one == rule]
        assert {e for e, _ in mine} == experiments
        assert {n for _, n in mine} == encoders


def test_a_fresh_clone_and_touched_files_rerun_nothing(home, work, tmp_path):
    # New dates on all code and tables, as git gives them; results were moved with theirs.
    for path in home.rglob("*"):
        path.touch()
    results = tmp_path / "results"
    shutil.copytree(work, results, symlinks=True)
    (results / "results" / "screen" / "simulated" / "a-1" / "wells.parquet").touch()
    assert planned(home, results, SMALL) == set()
