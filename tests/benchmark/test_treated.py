import numpy as np
import polars as pl
import pytest

from phenopipe.benchmark.config import TreatedKnobs
from phenopipe.benchmark.treated import read_treated, unit_rows
from phenopipe.errors import UserError
from tests.benchmark.plates import knockouts, save_aligned, treatment, wells_of


@pytest.fixture
def files(tmp_path):
    """Two experiments of 2 genes and 3 controls; the second has a pair in one well."""
    rng = np.random.default_rng(0)
    paths = []
    for name, cell_type in (("e1", "HUVEC"), ("e2", "RPE")):
        extra = [[treatment("a", gene="A"), treatment("b", gene="B")]] if name == "e2" else []
        treatments = [*knockouts(["A", "B"]), [], [], [], *extra]
        wells = wells_of(treatments, experiment=name, cell_type=cell_type)
        x_WD = rng.normal(size=(wells.height, 4)) + 5
        stamp = {"block": 7, "trimmed": True}
        paths.append(save_aligned(tmp_path / f"{name}.parquet", wells, x_WD, stamp))
    return paths


def test_controls_become_the_origin_and_pairs_of_treatments_are_left_out(files):
    treated = read_treated(files, None, TreatedKnobs())
    assert treated.wells.height == 22
    control_W = (treated.wells["role"] == "negative_control").to_numpy()
    assert treated.x_WD[control_W].mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert treated.facts == {"screen": "s", "block": 7, "trimmed": True}


def test_order_of_files_does_not_matter(files):
    first = read_treated(files, None, TreatedKnobs())
    second = read_treated(files[::-1], None, TreatedKnobs())
    assert first.wells.equals(second.wells)
    assert np.array_equal(first.x_WD, second.x_WD)


def test_filter_by_cell_type_moves_the_origin_too(files):
    treated = read_treated(files, None, TreatedKnobs(cell_type="RPE"))
    assert set(treated.wells["cell_type"]) == {"RPE"}
    control_W = (treated.wells["role"] == "negative_control").to_numpy()
    assert treated.x_WD[control_W].mean(axis=0) == pytest.approx(0, abs=1e-6)


def test_filter_by_background_keeps_controls(tmp_path):
    factor = treatment("TNF", "soluble_factor")
    treatments = [[treatment("a", gene="A")], [treatment("a", gene="A"), factor], [], [factor]]
    wells = wells_of(treatments).with_columns(
        role=pl.Series(["perturbation"] * 2 + ["negative_control"] * 2)
    )
    path = save_aligned(tmp_path / "e.parquet", wells, np.eye(4))
    on_it = read_treated([path], None, TreatedKnobs(background="TNF"))
    assert on_it.wells["well_id"].to_list() == ["e1/p1/0001", "e1/p1/0002"]
    without = read_treated([path], None, TreatedKnobs(background="none"))
    assert "e1/p1/0000" in without.wells["well_id"]
    assert "e1/p1/0001" not in without.wells["well_id"]


def test_cell_type_or_background_that_no_well_has_is_told_with_what_there_is(files):
    with pytest.raises(UserError, match=r"cell_type 'HUVECS', found \['HUVEC', 'RPE'\]"):
        read_treated(files, None, TreatedKnobs(cell_type="HUVECS"))
    with pytest.raises(UserError, match=r"background 'TNFa', found \['none'\]"):
        read_treated(files, None, TreatedKnobs(background="TNFa"))


def test_arm_offsets_are_taken_off_corrected_genes_only(files):
    before = read_treated(files, None, TreatedKnobs())
    offset = np.arange(8, dtype=np.float32).reshape(2, 4)
    arms = pl.DataFrame({"gene": ["A", "B"], "arm": ["1p", "2q"], "corrected": [True, False]})
    arms = arms.with_columns(offset=pl.Series(offset, dtype=pl.Array(pl.Float32, 4)))
    after = read_treated(files, arms, TreatedKnobs())
    moved_W = (before.wells["gene"] == "A").fill_null(False).to_numpy()
    change_WD = before.x_WD - after.x_WD
    assert change_WD[moved_W] == pytest.approx(np.tile(offset[0], (moved_W.sum(), 1)), abs=1e-6)
    assert not change_WD[~moved_W].any()
    # An experiment of another cell type has no well left to correct.
    of_one = read_treated(files, arms, TreatedKnobs(cell_type="RPE"))
    assert set(of_one.wells["experiment"]) == {"e2"}


def test_absent_role_is_told(files):
    with pytest.raises(UserError, match="no well of role 'empty'"):
        read_treated(files, None, TreatedKnobs(origin="empty"))


def test_files_of_unequal_width_are_refused(files, tmp_path):
    narrow = save_aligned(
        tmp_path / "n.parquet", wells_of([[]], experiment="e9"), np.ones((1, 3))
    )
    with pytest.raises(UserError, match=r"n\.parquet: 3 features, wanted 4"):
        read_treated([*files, narrow], None, TreatedKnobs())


def test_a_vector_without_direction_is_named():
    with pytest.raises(UserError, match="TP53: an embedding of length 0"):
        unit_rows(np.array([[1.0, 0], [0, 0]]), ["MYC", "TP53"])
