import numpy as np
import polars as pl
import pytest

from phenopipe.benchmark import magnitude
from phenopipe.benchmark.config import MagnitudeKnobs
from phenopipe.benchmark.magnitude import (
    Controls,
    distances,
    energy_distance,
    magnitudes,
    main,
    squares,
    summarize_magnitudes,
)
from phenopipe.benchmark.treated import TreatedFiles, read_treated
from phenopipe.errors import UserError
from phenopipe.formats.benchmarks import MAGNITUDES
from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import read_table
from tests.benchmark.plates import knockouts, save_aligned, treated_of, wells_of


def slow_energy(x_ND, y_MD):
    def mean(a, b):
        return np.mean([[np.sqrt(((p - q) ** 2).sum()) for q in b] for p in a])

    return 2 * mean(x_ND, y_MD) - mean(x_ND, x_ND) - mean(y_MD, y_MD)


def test_energy_distance_is_the_exact_formula():
    rng = np.random.default_rng(0)
    x_ND, y_MD = rng.normal(size=(7, 5)), rng.normal(size=(11, 5)) + 1
    assert energy_distance(x_ND, y_MD) == pytest.approx(slow_energy(x_ND, y_MD), rel=1e-12)
    assert energy_distance(x_ND, x_ND) == pytest.approx(0, abs=1e-12)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    x_ND, y_MD = rng.normal(size=(23, 4)), rng.normal(size=(9, 4))
    whole = energy_distance(x_ND, y_MD)
    monkeypatch.setattr(magnitude, "ROWS_A_BLOCK", 5)
    assert energy_distance(x_ND, y_MD) == pytest.approx(whole, rel=1e-12)


def test_golden_energy_distance_of_the_public_reference(shared):
    wells = pl.read_csv(shared / "golden/wells.csv")
    x_WD = np.load(shared / "golden/efaar_arrays.npz")["tvn"].real
    wanted = pl.read_csv(shared / "golden/magnitude_head.csv")
    control_CD = x_WD[(wells["gene"] == "EMPTY_control").to_numpy()]
    controls = Controls(control_CD)
    assert wanted.height == 91
    for gene, energy in wanted.select("pert", "edist").rows():
        x_ND = x_WD[(wells["gene"] == gene).to_numpy()]
        exact = slow_energy(x_ND, control_CD) if gene in ("A1CF", "A2M") else None
        found = energy_distance(x_ND, control_CD)
        assert controls.energy(x_ND) == pytest.approx(found, abs=1e-12)
        # The reference clamps: 1e-4 for each sample's own term.
        clamp = 1e-4 * (1 / len(x_ND) + 1 / len(control_CD))
        assert found - clamp == pytest.approx(energy, abs=2e-5 if energy else 1e-3)
        if exact is not None:
            assert found == pytest.approx(exact, abs=1e-9)


def test_null_is_controls_against_the_other_controls():
    x_CD = np.random.default_rng(2).normal(size=(12, 3))
    null = Controls(x_CD).null(4, 20, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    for value in null.energy_K:
        at_N = rng.choice(12, 4, replace=False, shuffle=False)
        rest = np.setdiff1d(np.arange(12), at_N)
        assert value == pytest.approx(slow_energy(x_CD[at_N], x_CD[rest]), rel=1e-10)


@pytest.mark.parametrize("m", [12, 24, 48])
@pytest.mark.parametrize("share", [4, 2])
def test_pvalues_without_an_effect_are_uniform_for_few_controls_too(m, share):
    n, rng = m // share, np.random.default_rng(m)
    p_R = []
    for _ in range(300):
        x_ND = rng.normal(size=(m + n, 8))
        controls = Controls(x_ND[n:])
        null = controls.null(n, 80, rng)
        energy, p_value = controls.judge(x_ND[:n], null)
        p_R.append(p_value)
    assert energy == pytest.approx(slow_energy(x_ND[:n], x_ND[n:]), rel=1e-10)
    held = slow_energy(x_ND[:n], x_ND[n:][null.rest_M])
    assert p_value == max((null.energy_K >= held).sum(), 1) / 80
    # Three standard errors of the mean of 300 uniform numbers.
    assert np.mean(p_R) == pytest.approx(0.5, abs=0.05)
    assert 0.02 < np.mean(np.array(p_R) <= 0.05) < 0.085


def test_shares_count_the_conditions_that_were_judged(screen):
    knobs = MagnitudeKnobs(level="gene", max_controls=12)
    table = magnitudes(treated_of(*screen), MagnitudeKnobs(max_controls=12))
    table = pl.concat([table, magnitudes(treated_of(*screen), knobs)], how="diagonal")
    rows = {row["metric"]: row for row in summarize_magnitudes(table, knobs)}
    assert table["p_value"].null_count() == 2
    assert rows["energy_distance"]["n"] == 6
    assert rows["energy_distance_null"]["n"] == rows["share_below_0.01"]["n"] == 4


@pytest.fixture
def screen():
    """Genes A (moved far), B (not at all) and C (one well only), and 40 controls."""
    treatments = [
        *knockouts(["A", "B"], guides=2, replicates=4),
        *knockouts(["C"], guides=1, replicates=1),
        *[[]] * 40,
    ]
    wells = wells_of(treatments)
    x_WD = np.random.default_rng(3).normal(size=(wells.height, 4))
    moved = (treated_of(wells, x_WD).wells["gene"] == "A").fill_null(False).to_numpy()
    x_WD[moved] += 3
    return wells, x_WD


def test_moved_conditions_are_far_and_the_others_are_not(screen):
    table = magnitudes(treated_of(*screen), MagnitudeKnobs())
    MAGNITUDES.check(table, "magnitudes")
    assert table["perturbation"].to_list() == [
        f"{gene}_guide_{guide}" for gene in "AB" for guide in (1, 2)
    ]
    assert (table["p_value"][:2] == 0.001).all() and (table["p_value"][2:] > 0.05).all()
    treated = treated_of(*screen)
    x_ND = treated.x_WD[(treated.wells["perturbation"] == "A_guide_1").fill_null(False)]
    controls = treated.x_WD[(treated.wells["role"] == "negative_control").to_numpy()]
    assert table["energy_distance"][0] == pytest.approx(slow_energy(x_ND, controls), abs=1e-5)


def test_gene_level_pools_the_guides(screen):
    table = magnitudes(treated_of(*screen), MagnitudeKnobs(level="gene"))
    assert table.select("perturbation", "gene", "n_wells").rows() == [
        (None, "A", 8),
        (None, "B", 8),
    ]


def test_too_few_controls_give_a_distance_but_no_pvalue(screen):
    table = magnitudes(treated_of(*screen), MagnitudeKnobs(max_controls=6))
    assert table["p_value"].null_count() == table["null"].null_count() == table.height
    assert table["energy_distance"][:2].min() > table["energy_distance"][2:].max()


def test_choice_of_controls_is_repeatable(screen):
    knobs = MagnitudeKnobs(max_controls=20)
    first = magnitudes(treated_of(*screen), knobs)
    assert magnitudes(treated_of(*screen), knobs).equals(first)
    other = magnitudes(treated_of(*screen), MagnitudeKnobs(max_controls=20, seed=1))
    assert not other.equals(first)


def test_controls_can_be_those_that_no_fit_saw(screen):
    wells, x_WD = screen
    control_W = (wells["role"] == "negative_control").to_numpy()
    fitted_W = control_W & (np.cumsum(control_W) > 10)
    # An alignment that shrinks what it was fitted on makes everything else seem far.
    x_WD = np.where(fitted_W[:, None], 0.01 * x_WD, x_WD)
    treated = treated_of(wells.with_columns(fitted=pl.Series(fitted_W)), x_WD)
    unmoved = pl.col("gene") == "B"
    naive = magnitudes(treated, MagnitudeKnobs()).filter(unmoved)
    assert (naive["p_value"] < 0.05).all()
    honest = magnitudes(treated, MagnitudeKnobs(held_out_controls=True)).filter(unmoved)
    assert (honest["p_value"] > 0.05).all()


def test_no_condition_or_no_control_is_told(screen):
    with pytest.raises(UserError, match="none of 5 conditions has 9 wells"):
        magnitudes(treated_of(*screen), MagnitudeKnobs(min_wells=9))
    with pytest.raises(UserError, match="0 wells of role 'empty'"):
        magnitudes(treated_of(*screen), MagnitudeKnobs(controls="empty"))


def test_step_writes_mean_spread_and_null(tmp_path, screen):
    path = save_aligned(tmp_path / "e1.parquet", *screen)
    out = [
        f"--magnitude={tmp_path}/m.parquet",
        f"--magnitude-perturbations={tmp_path}/p.parquet",
    ]
    main([f"--aligned={path}", *out, "--benchmark=genome", "--encoder=mae"])
    results = read_table(tmp_path / "m.parquet", RESULTS)
    table = read_table(tmp_path / "p.parquet", MAGNITUDES)
    value = dict(results.select("metric", "value").rows())
    energy = table["energy_distance"]
    assert value["energy_distance"] == pytest.approx(energy.mean())
    assert value["energy_distance_mad"] == pytest.approx(
        (energy - energy.median()).abs().median()
    )
    assert value["share_below_0.01"] == 0.5
    assert value["energy_distance_null"] == pytest.approx(table["null"].mean())


@pytest.mark.parametrize("level", ["condition", "gene"])
def test_experiments_on_disk_give_what_wells_at_hand_give(tmp_path, level, monkeypatch):
    rng = np.random.default_rng(6)
    paths = []
    for name, genes in (("e1", "ABC"), ("e2", "BCD"), ("e3", "DAE")):
        wells = wells_of([*knockouts(genes, 2, 3), *[[]] * 15], experiment=name)
        x_WD = rng.normal(size=(wells.height, 5))
        paths.append(save_aligned(tmp_path / f"{name}.parquet", wells, x_WD))
    knobs = MagnitudeKnobs(level=level, max_controls=30, null_draws=50)
    at_hand = magnitudes(read_treated(paths, None, knobs), knobs)
    read = []
    files = TreatedFiles(paths[::-1], None, knobs)
    monkeypatch.setattr(magnitude, "WELLS_A_PORTION", 7)
    monkeypatch.setattr(
        files, "read", lambda path, real=files.read: read.append(path) or real(path)
    )
    on_disk = magnitudes(files, knobs)
    assert on_disk.drop("energy_distance").equals(at_hand.drop("energy_distance"))
    assert on_disk["energy_distance"].to_numpy() == pytest.approx(
        at_hand["energy_distance"].to_numpy(), rel=1e-12
    )
    assert at_hand["n_wells"].max() == (6 if level == "condition" else 12)
    assert len(read) > 3 * len(paths)


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_distances_by_a_product_are_exact_for_coincident_points_too(shift):
    rng = np.random.default_rng(4)
    x_ND = rng.normal(size=(30, 6)) + shift
    y_MD = np.vstack([x_ND[:5], x_ND[5:10] + 1e-9, rng.normal(size=(20, 6)) + shift])
    found_NM = distances(x_ND, squares(x_ND), y_MD, squares(y_MD))
    exact_NM = np.sqrt(((x_ND[:, None] - y_MD) ** 2).sum(axis=2))
    assert found_NM == pytest.approx(exact_NM, rel=1e-11, abs=1e-15)
    assert (np.diag(found_NM)[:5] == 0).all()
