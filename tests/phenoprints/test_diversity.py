import numpy as np
import polars as pl
import pytest

from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import read_table
from phenopipe.phenoprints.config import DiversityKnobs
from phenopipe.phenoprints.diversity import (
    diversity,
    effective_rank,
    is_listed,
    main,
    stretches,
    unlike_controls,
)
from tests.phenoprints.test_select import wells_of

STAMP = {"names": {"encoder": "mae"}}


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def screened(tmp_path, rng):
    """One experiment: 200 controls, 60 wells along one direction, 60 that do nothing."""
    roles = ["negative_control"] * 200 + ["perturbation"] * 120
    wells = wells_of([(f"w{n}", role, []) for n, role in enumerate(roles)])
    x_WD = rng.standard_normal((320, 8))
    x_WD[200:260, 0] += np.where(np.arange(60) % 2, 12.0, -12.0)
    path = tmp_path / "aligned.parquet"
    write_aligned(path, wells.with_columns(fitted=True), x_WD, STAMP)
    wells.write_parquet(tmp_path / "wells.parquet")
    wells[:260].write_parquet(tmp_path / "manifest.parquet")
    return tmp_path, wells


def test_effective_rank_counts_directions_that_vary_alike():
    assert effective_rank(np.diag([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3.0)
    assert 1.0 < effective_rank(np.diag([9.0, 1.0])) < 2.0
    assert np.isnan(effective_rank(np.zeros((2, 2))))


def test_covariance_is_that_of_all_wells_together(screened):
    folder, _ = screened
    rows = diversity(
        [folder / "aligned.parquet"],
        folder / "wells.parquet",
        folder / "wells.parquet",
        DiversityKnobs(),
    )
    x_WD = np.stack(pl.read_parquet(folder / "aligned.parquet")["embedding"].to_numpy())
    wanted = effective_rank(np.cov(x_WD.astype(float).T, bias=True))
    found = {row["metric"]: row["value"] for row in rows}
    assert found["effective_rank_before"] == pytest.approx(wanted, rel=1e-9)
    assert found["effective_rank_after"] == found["effective_rank_before"]


def test_controls_lie_farther_out_than_their_own_quantile_as_often_as_it_says(rng):
    x_WD = rng.standard_normal((4000, 16))
    is_control_W = np.arange(4000) < 40
    shares = []
    for _ in range(20):
        x_WD = rng.standard_normal((4000, 16))
        shares.append(unlike_controls(x_WD, is_control_W, 0.9)[40:].mean())
    assert np.mean(shares) == pytest.approx(0.1, abs=0.03)


def test_a_choice_of_strong_wells_raises_the_share_that_differs(screened):
    folder, _ = screened
    rows = diversity(
        [folder / "aligned.parquet"],
        folder / "wells.parquet",
        folder / "manifest.parquet",
        DiversityKnobs(),
    )
    found = {row["metric"]: row["value"] for row in rows}
    assert found["share_different_after"] > 0.95 > 0.7 > found["share_different_before"] > 0.45
    # Strong wells along one direction leave fewer directions of equal weight.
    assert found["effective_rank_after"] < found["effective_rank_before"]


def test_wells_are_listed_by_their_own_experiment(screened):
    folder, wells = screened
    table = folder / "manifest.parquet"
    assert is_listed(wells, table, stretches(table)).sum() == 260
    other = wells.with_columns(experiment=pl.lit("another"))
    assert is_listed(other, table, stretches(table)).sum() == 0


def test_experiments_may_come_in_several_stretches(screened, monkeypatch):
    folder, wells = screened
    monkeypatch.setattr("phenopipe.phenoprints.diversity.ROWS_A_PART", 7)
    names = pl.Series(["e2", "e1", "e2", "e3"]).gather(np.arange(320) // 30 % 4)
    mixed = wells.with_columns(experiment=names)
    mixed.filter(pl.int_range(pl.len()) % 3 > 0).write_parquet(folder / "mixed.parquet")
    where = stretches(folder / "mixed.parquet")
    assert sum(n for runs in where.values() for _, n in runs) == 213
    for name in ("e1", "e2", "e3"):
        mine = mixed.with_row_index("at").filter(experiment=name)
        found = is_listed(mine, folder / "mixed.parquet", where)
        assert found.tolist() == (mine["at"] % 3 > 0).to_list()


@pytest.mark.parametrize("rows", [slice(318, 320), slice(199, 320), slice(0, 0)])
def test_an_experiment_of_few_controls_counts_for_the_rank_alone(screened, rows, capsys):
    folder, wells = screened
    shared = (folder / "wells.parquet", folder / "wells.parquet", DiversityKnobs())
    alone = diversity([folder / "aligned.parquet"], *shared)
    few, _ = wells[rows], capsys.readouterr()
    x_WD = np.ones((few.height, 8))
    write_aligned(folder / "few.parquet", few.with_columns(fitted=True), x_WD, STAMP)
    both = diversity([folder / "aligned.parquet", folder / "few.parquet"], *shared)
    assert [row["metric"] for row in both] == [row["metric"] for row in alone]
    for with_few, without in zip(both, alone, strict=True):
        if with_few["metric"].startswith("share_different"):
            assert with_few == without
        else:
            assert with_few["n"] == without["n"] + few.height
    n_controls = (few["role"] == "negative_control").sum()
    assert f"few.parquet: {n_controls} wells of role" in capsys.readouterr().out


def test_without_controls_anywhere_nothing_is_said_to_differ(screened):
    folder, wells = screened
    x_WD = np.random.default_rng(0).normal(size=(120, 8))
    write_aligned(folder / "no.parquet", wells[200:].with_columns(fitted=True), x_WD, STAMP)
    tables = (folder / "wells.parquet", folder / "wells.parquet")
    rows = diversity([folder / "no.parquet"], *tables, DiversityKnobs())
    assert [row["metric"] for row in rows] == ["effective_rank_before", "effective_rank_after"]


def test_step_writes_a_row_a_judge_and_metric(screened):
    folder, _ = screened
    out = folder / "diversity.parquet"
    main(
        [
            *("--wells", str(folder / "wells.parquet")),
            *("--chosen", str(folder / "manifest.parquet")),
            *("--aligned", str(folder / "aligned.parquet")),
            *("--diversity", str(out), "--manifest", "phenoprints"),
        ]
    )
    table = read_table(out, RESULTS)
    assert table["metric"].to_list() == [
        "effective_rank_before",
        "share_different_before",
        "effective_rank_after",
        "share_different_after",
    ]
    assert table["encoder"].unique().to_list() == ["mae"]
