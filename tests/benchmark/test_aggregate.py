import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenopipe.benchmark import means
from phenopipe.benchmark.aggregate import (
    aggregate_wells,
    correct_map,
    main,
    nearest_neighbours,
    spherical_mean,
)
from phenopipe.benchmark.config import AggregateKnobs
from phenopipe.benchmark.means import Means, group_means
from phenopipe.errors import UserError
from phenopipe.formats.maps import MAP, NEIGHBOURS
from phenopipe.formats.tables import read_stamp, read_table
from tests.benchmark.plates import knockouts, save_aligned, treated_of, treatment, wells_of


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_spherical_mean_is_the_mean_of_unit_vectors():
    x_ND = np.random.default_rng(0).normal(size=(9, 5))
    assert spherical_mean(x_ND) == pytest.approx(unit(x_ND).mean(axis=0))
    assert spherical_mean(x_ND * 7) == pytest.approx(spherical_mean(x_ND))


def test_spherical_mean_refuses_a_vector_without_direction():
    with pytest.raises(UserError, match="points nowhere"):
        spherical_mean(np.zeros((2, 3)))
    with pytest.raises(UserError, match="no replicate"):
        spherical_mean(np.zeros((0, 3)))


@settings(max_examples=30, deadline=None)
@given(
    groups=st.lists(st.integers(0, 5), min_size=6, max_size=40),
    portion=st.integers(1, 12),
    as_unit=st.booleans(),
)
def test_group_means_equal_a_loop_whatever_the_portion(groups, portion, as_unit):
    group_W = np.unique(groups, return_inverse=True)[1]
    x_WD = np.random.default_rng(len(groups)).normal(size=(len(groups), 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(means, "ROWS_A_PASS", portion)
        found_GD = group_means(x_WD, group_W, group_W.max() + 1, unit=as_unit)
    rows = unit(x_WD) if as_unit else x_WD
    for group in range(group_W.max() + 1):
        assert found_GD[group] == pytest.approx(rows[group_W == group].mean(axis=0))


@pytest.fixture
def screen():
    treatments = [
        *knockouts(["A", "B"], guides=2, replicates=3),
        [treatment("drug", "compound", dose=0.1)],
        [treatment("drug", "compound", dose=1.0)],
        [treatment("drug", "compound", dose=1.0)],
        [],
    ]
    wells = wells_of(treatments)
    x_WD = np.random.default_rng(1).normal(size=(wells.height, 4))
    # One guide with fewer wells than the others: guide-then-gene weighs it the same.
    keep = np.ones(wells.height, dtype=bool)
    keep[:2] = False
    return treated_of(wells.filter(pl.Series(keep)), x_WD[keep])


def test_map_has_a_row_a_gene_and_a_row_a_dose(screen):
    table = aggregate_wells(screen)
    MAP.check(table, "map")
    found = table.select("entity", "kind", "concentration_um", "n_wells").rows()
    assert found == [
        ("A", "knockout", None, 4),
        ("B", "knockout", None, 6),
        ("drug", "compound", 0.1, 1),
        ("drug", "compound", 1.0, 2),
    ]
    x_ND = screen.x_WD[(screen.wells["gene"] == "A").fill_null(False).to_numpy()]
    assert table["embedding"].to_numpy()[0] == pytest.approx(spherical_mean(x_ND), abs=1e-6)


def test_controls_alone_make_no_map():
    wells = treated_of(wells_of([[]] * 3), np.ones((3, 4)))
    with pytest.raises(UserError, match=r"no well with a perturbation.*\['negative_control'\]"):
        aggregate_wells(wells)


def test_empty_map_has_no_neighbours():
    empty = MAP.empty().with_columns(embedding=pl.Series([], dtype=pl.Array(pl.Float32, 4)))
    assert nearest_neighbours(empty, 3).is_empty()


def test_constructs_of_an_overexpressed_gene_make_one_row_beside_its_knockout(screen):
    constructs = [[treatment(f"A_orf_{at}", "overexpression", gene="A")] for at in (1, 2)]
    wells = wells_of([*knockouts(["A"]), *constructs])
    table = aggregate_wells(treated_of(wells, np.random.default_rng(2).normal(size=(6, 4))))
    found = table.select("entity", "kind", "n_wells").rows()
    assert found == [("A", "knockout", 4), ("A", "overexpression", 2)]


def test_plain_mean_and_guide_then_gene_are_what_they_say(screen):
    is_A = (screen.wells["gene"] == "A").fill_null(False)
    x_ND, guide_N = screen.x_WD[is_A.to_numpy()], screen.wells.filter(is_A)["guide"]
    plain = aggregate_wells(screen, aggregation="mean")["embedding"].to_numpy()[0]
    assert plain == pytest.approx(x_ND.mean(axis=0), abs=1e-6)
    twice = aggregate_wells(screen, aggregation="guide_then_gene")
    assert twice["n_wells"].to_list() == [4, 6, 1, 2]
    guides_UD = [spherical_mean(x_ND[(guide_N == g).to_numpy()]) for g in guide_N.unique()]
    wanted = spherical_mean(np.array(guides_UD))
    assert twice["embedding"].to_numpy()[0] == pytest.approx(wanted, abs=1e-6)


def test_guide_level_has_a_row_a_guide(screen):
    table = aggregate_wells(screen, level="guide").filter(pl.col("kind") == "knockout")
    assert table["entity"].to_list() == ["A_guide_1", "A_guide_2", "B_guide_1", "B_guide_2"]


@pytest.mark.parametrize("k", [0, 1, 3, 50])
def test_neighbours_are_the_most_and_the_least_alike(k):
    rng = np.random.default_rng(k)
    x_GD = rng.normal(size=(9, 4)).astype(np.float32)
    table = pl.DataFrame(
        {
            "entity": list("abcdefghi"),
            "kind": ["knockout"] * 9,
            "concentration_um": pl.Series([None] * 9, dtype=pl.Float64),
            "n_wells": pl.Series([1] * 9, dtype=pl.Int32),
            "embedding": pl.Series(x_GD, dtype=pl.Array(pl.Float32, 4)),
        }
    )
    found = nearest_neighbours(table, k)
    NEIGHBOURS.check(found, "neighbours")
    cosine_GG = unit(x_GD.astype(float)) @ unit(x_GD.astype(float)).T
    for at, entity in enumerate(table["entity"]):
        others = sorted((-cosine_GG[at, o], table["entity"][o]) for o in range(9) if o != at)
        mine = found.filter(pl.col("entity") == entity)
        near = mine.filter(pl.col("rank") > 0).sort("rank")["neighbour"].to_list()
        far = mine.filter(pl.col("rank") < 0).sort("rank", descending=True)["neighbour"]
        assert near == [name for _, name in others[:k]]
        assert far.to_list() == [name for _, name in others[::-1]][: min(k, 8 - len(near))]
        assert not set(near) & set(far)


def test_step_writes_map_and_neighbours_whatever_the_order_of_files(tmp_path):
    rng = np.random.default_rng(2)
    paths = []
    for name in ("e1", "e2"):
        wells = wells_of([*knockouts(["A", "B", "C"]), [], []], experiment=name)
        x_WD = rng.normal(size=(wells.height, 4))
        paths.append(str(save_aligned(tmp_path / f"{name}.parquet", wells, x_WD)))
    names = ["--benchmark", "genome", "--encoder", "mae", "--nearest", "1"]
    out = []
    for order in (1, -1):
        folder = tmp_path / f"out{order}"
        files = [f"--map={folder}/map.parquet"]
        main(["--aligned", *paths[::order], *files, f"--neighbours={folder}/n.parquet", *names])
        out.append(read_table(folder / "map.parquet", MAP))
    assert out[0].equals(out[1])
    assert out[0]["n_wells"].to_list() == [8, 8, 8]
    assert read_stamp(folder / "map.parquet")["screen"] == "s"
    assert read_table(folder / "n.parquet", NEIGHBOURS).height == 6


@pytest.mark.parametrize("aggregation", ["spherical", "mean", "guide_then_gene"])
def test_wells_in_parts_give_the_same_map(aggregation, screen, monkeypatch):
    whole = aggregate_wells(screen, aggregation=aggregation)
    monkeypatch.setattr(means, "MAX_PENDING", 2)
    at = pl.int_range(screen.wells.height, eager=True)
    parts = [screen.take(at % 4 == number) for number in range(4)]
    found = aggregate_wells(iter(parts), aggregation=aggregation)
    assert found.drop("embedding").equals(whole.drop("embedding"))
    assert found["embedding"].to_numpy() == pytest.approx(whole["embedding"].to_numpy())


def test_sums_of_parts_wait_no_longer_than_they_must(monkeypatch):
    monkeypatch.setattr(means, "MAX_PENDING", 3)
    one = Means(["key"], unit=False)
    for number in range(9):
        one.add(pl.DataFrame({"key": ["a", "b"]}), np.full((2, 1), float(number)))
        assert len(one.parts) < 4
    rows, x_GD = one.result()
    assert rows["n_wells"].to_list() == [9, 9] and x_GD.tolist() == [[4.0], [4.0]]


def test_map_can_be_corrected_as_the_public_reference_does():
    genes = ["A", "B", "C", "D"]
    table = pl.DataFrame(
        {
            "entity": [*genes, "A"],
            "kind": ["knockout"] * 4 + ["compound"],
            "embedding": pl.Series(np.arange(5.0, dtype=np.float32)[:, None]),
        }
    )
    known = pl.DataFrame(
        {"gene": genes, "arm": ["1p", "1p", "1p", None], "expression": [-4.0, -5.0, 2.0, -9.0]}
    )
    found = correct_map(table, known, AggregateKnobs(min_genes=1))
    assert found["embedding"].to_numpy().ravel().tolist() == [-0.5, 0.5, 1.5, 3.0, 4.0]
    kept = correct_map(table, known, AggregateKnobs(min_genes=2))
    assert kept.equals(table)
