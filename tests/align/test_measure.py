"""Before and after: a planted shift that must go, planted effects that must stay."""

import numpy as np
import polars as pl
import pytest

from phenopipe.align import measure
from phenopipe.align.config import MeasureKnobs
from phenopipe.align.replicates import replicate_similarity
from phenopipe.errors import UserError
from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.embeddings import write_embeddings
from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import read_table

from .conftest import wells_of

DIM = 8
GENES = [f"G{n}" for n in range(20)]


def slow_similarity(x_ND, condition_N, experiment_N):
    unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(len(x_ND)) for j in range(i)]
    pairs = [(i, j) for i, j in pairs if experiment_N[i] != experiment_N[j]]
    matched = [unit_ND[i] @ unit_ND[j] for i, j in pairs if condition_N[i] == condition_N[j]]
    strange = [unit_ND[i] @ unit_ND[j] for i, j in pairs if condition_N[i] != condition_N[j]]
    rank = np.mean([[(m > s) + (m == s) / 2 for s in strange] for m in matched])
    return np.mean(matched) - np.mean(strange), rank


def test_similarity_equals_the_slow_oracle():
    rng = np.random.default_rng(0)
    condition_N, experiment_N = rng.choice(list("abc"), 30), rng.choice(list("xyz"), 30)
    x_ND = rng.normal(size=(30, 4)) + (condition_N == "a")[:, None]
    parts = (x_ND, condition_N, experiment_N)
    found = replicate_similarity(*parts, bootstraps=50, rng=rng)
    alike, rank = slow_similarity(*parts)
    assert found["alike"].value == pytest.approx(alike)
    assert found["rank"].value == pytest.approx(rank)
    assert found["rank"].low <= rank <= found["rank"].high
    alone = replicate_similarity(
        x_ND, condition_N, experiment_N[:1].repeat(30), bootstraps=5, rng=rng
    )
    assert alone == {}


@pytest.fixture
def aligned_screen(tmp_path):
    """Two experiments far apart; without their shift, wells of one gene point one way."""
    rng = np.random.default_rng(0)
    effect_GD = 3 * rng.normal(size=(len(GENES), DIM))
    genes = [None] * 40 + [gene for gene in GENES for _ in range(2)]
    effect_WD = np.concatenate([np.zeros((40, DIM)), effect_GD.repeat(2, axis=0)])
    roles = ["negative_control"] * 40 + ["perturbation"] * 40
    for number, name in enumerate(("e1", "e2")):
        x_WD = effect_WD + rng.normal(size=effect_WD.shape)
        wells = wells_of(name, roles, genes).with_columns(
            fitted=pl.int_range(pl.len()) % 2 == 0
        )
        names = {"screen": "s", "encoder": "e", "experiment": name}
        stamp = {"names": names, "block": 3, "trimmed": True}
        write_aligned(tmp_path / f"{name}.parquet", wells, x_WD, stamp)
        raw = (x_WD + 20 * number)[:, None].astype(np.float32)
        facts = {"block_numbers": [3], "block_dims": [DIM], "stamp": {"names": names}}
        write_embeddings(tmp_path / f"{name}.zarr", raw, wells["well_id"].to_list(), **facts)
    return tmp_path


def run(folder, names=("e1", "e2"), encoder="e"):
    paths = ["--embeddings", *(str(folder / f"{n}.zarr") for n in names)]
    paths += ["--aligned", *(str(folder / f"{n}.parquet") for n in names)]
    paths += ["--measures", str(folder / "m.parquet")]
    knobs = MeasureKnobs(max_wells=40, bootstraps=50).as_flags()
    measure.main([*paths, "--screen", "s", "--encoder", encoder, *knobs])
    return read_table(folder / "m.parquet", RESULTS)


def test_a_shift_shows_before_and_replicates_after(aligned_screen):
    table = run(aligned_screen)
    found = {row["metric"]: row for row in table.iter_rows(named=True)}
    assert found["experiments_apart_before"]["value"] > 0.95
    assert found["experiments_apart_after"]["low"] < 0.5 + 0.1
    assert found["experiments_apart_chance"]["value"] == 0.5
    assert found["replicates_rank_before"]["value"] < 0.85
    assert found["replicates_alike_before"]["value"] < 0.1
    assert found["replicates_rank_after"]["value"] > 0.95
    assert found["replicates_alike_after"]["low"] > 0.3
    # Ten genes of four wells fill the sample of forty wells.
    assert found["replicates_rank_after"]["n"] == 10
    assert table["block"].unique().to_list() == [3]
    assert run(aligned_screen, ("e2", "e1")).equals(table)


def test_another_condition_changes_no_choice_before_it(aligned_screen):
    paths = [aligned_screen / f"{name}.parquet" for name in ("e1", "e2")]
    few = measure.chosen_conditions(paths, MeasureKnobs(max_wells=40))
    more = measure.chosen_conditions(paths, MeasureKnobs(max_wells=60))
    assert len(few) == 10
    assert few < more


def test_files_of_another_encoder_are_refused(aligned_screen):
    with pytest.raises(UserError, match="aligned files of"):
        run(aligned_screen, encoder="other")
