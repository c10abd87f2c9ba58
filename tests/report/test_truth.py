import polars as pl
import pytest

from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import read_table, write_table
from phenopipe.formats.truth import TRUTH
from phenopipe.report.questions import QUESTIONS
from phenopipe.report.truth import main
from tests.report.made_up import EXPERIMENTS, GENES, SCREEN, flagged, make_wells, stamp


@pytest.fixture(scope="module")
def truth_files(tmp_path_factory):
    """Out-of-focus wells are the planted defects; even genes are active."""
    folder = tmp_path_factory.mktemp("truth")
    paths = []
    for experiment in EXPERIMENTS:
        rows = []
        for row in flagged(make_wells(experiment)).iter_rows(named=True):
            one = row["treatments"][0] if row["treatments"] else {"gene": None}
            gene = one["gene"]
            number = GENES.index(gene) if gene in GENES else None
            status = "control" if number is None else ("inactive", "active")[number % 2]
            rows.append(
                {"well_id": row["well_id"], "defect": "" if row["passes"] else "out_of_focus",
                 "perturbation": one.get("perturbation"), "kind": one.get("kind"), "gene": gene,
                 "group": f"g{number % 4}" if number else None, "status": status, "effect": 0.0}
            )  # fmt: skip
        paths.append(folder / experiment / "truth.parquet")
        frame = pl.DataFrame(rows, schema=TRUTH.empty().schema)
        names = {"screen": SCREEN, "experiment": experiment}
        write_table(paths[-1], frame, TRUTH, stamp("screen", "simulate", **names))
    return paths


def step(run, truth_files, out, *flags):
    given = ["--truth", *map(str, truth_files)]
    for name in ("flags", "combined", "manifests", "embeddings", "aligned", "blocks"):
        given += [f"--{name}", *map(str, run.files[name])]
    main([*given, "--found", str(out), *flags])
    return read_table(out, RESULTS)


def test_step_answers_every_question_that_its_files_allow(run, truth_files, tmp_path):
    found = step(run, truth_files, tmp_path / "truth.parquet", "--bootstraps", "50")
    metrics = set(found["metric"])
    assert metrics <= {question.metric for question in QUESTIONS}
    assert {
        "qc_recall",
        "phenoprint_recall",
        "noise_called",
        "apart_after",
        "accuracy",
    } <= metrics
    # Everything planted is flagged, and nothing else.
    value = dict(found.select("metric", "value").iter_rows())
    assert value["qc_recall"] == 1 and value["qc_false_alarms"] == 0
    assert found["screen"].unique().to_list() == [SCREEN]


def test_only_the_trained_encoder_is_judged_unless_others_are_named(run, truth_files, tmp_path):
    found = step(run, truth_files, tmp_path / "a.parquet")
    apart = found.filter(pl.col("metric").str.starts_with("apart"))
    assert apart["encoder"].unique().to_list() == ["mae"]
    named = step(run, truth_files, tmp_path / "b.parquet", "--encoders", '["untrained"]')
    apart = named.filter(pl.col("metric").str.starts_with("apart"))
    assert apart["encoder"].unique().to_list() == ["untrained"]


def test_step_runs_on_truth_alone(truth_files, tmp_path):
    main(["--truth", *map(str, truth_files), "--found", str(tmp_path / "t.parquet")])
    assert read_table(tmp_path / "t.parquet", RESULTS).is_empty()
