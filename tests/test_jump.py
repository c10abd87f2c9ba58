"""Gene knockouts in JUMP-CP's layout, from its own tables to a row of the paper's Table 2."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import yaml

from tests.test_workflow import ROOT, snakemake

pytestmark = pytest.mark.workflow

BATCHES = {"20220914_Run1": ["CP-1", "CP-2"], "20221120_Run6": ["CP-3", "CP-4"]}
GENES = [f"GENE{at:02d}" for at in range(40)]
CODES = [f"JCP2022_80{at:04d}" for at in range(1000, 1040)]
NON_TARGETING, NO_GUIDE, PLK1 = "JCP2022_800002", "JCP2022_800001", "JCP2022_805264"
FEATURES = [
    f"{part}_AreaShape_{at}" for part in ("Cells", "Cytoplasm", "Nuclei") for at in range(8)
]


def write_gzip(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_csv(path, compression="gzip")


def write_metadata(folder):
    rows = [("source_13", batch, plate) for batch in BATCHES for plate in BATCHES[batch]]
    rows += [("source_13", "20221120_Run6", "CP-absent")]
    plates = pl.DataFrame(
        rows, schema=["Metadata_Source", "Metadata_Batch", "Metadata_Plate"], orient="row"
    ).with_columns(Metadata_PlateType=pl.lit("CRISPR"))
    other = plates.head(1).with_columns(
        Metadata_Plate=pl.lit("ORF-1"), Metadata_PlateType=pl.lit("ORF")
    )
    write_gzip(folder / "metadata/plate.csv.gz", pl.concat([plates, other]))
    known = pl.DataFrame(
        {
            "Metadata_JCP2022": [*CODES, PLK1, NON_TARGETING, NO_GUIDE],
            "Metadata_NCBI_Gene_ID": "1",
            "Metadata_Symbol": [*GENES, "PLK1", "non-targeting", "no-guide"],
        }
    )
    write_gzip(folder / "metadata/crispr.csv.gz", known)


def write_plate(folder, batch, plate, rng, effect_GD):
    """One plate: every gene twice, controls, a well without cells, one unknown well."""
    codes = [*CODES, *CODES, *[NON_TARGETING] * 20, *[NO_GUIDE] * 4, PLK1, PLK1, CODES[0]]
    row_W = [CODES.index(code) if code in CODES else -1 for code in codes]
    x_WD = rng.normal(size=(len(codes), len(FEATURES)))
    x_WD += np.where(np.array(row_W)[:, None] >= 0, effect_GD[row_W], 0)
    # Features of unlike scales; each plate is stained in its own way.
    x_WD = 50 + 10.0 ** np.arange(len(FEATURES)) * (x_WD + rng.normal(size=len(FEATURES)))
    x_WD[-1] = np.nan
    names = [f"{'ABCDEFGHIJKLMNOP'[at // 24]}{at % 24 + 1:02d}" for at in range(len(codes))]
    wells = pl.DataFrame(
        {"Metadata_Source": "source_13", "Metadata_Plate": plate, "Metadata_Well": names}
    )
    table = wells.hstack(pl.DataFrame(x_WD, schema=FEATURES)).with_columns(
        Cells_Children_Count=pl.lit(3), Image_Count_Cells=pl.lit(100)
    )
    path = folder / f"source_13/workspace/profiles/{batch}/{plate}/{plate}.parquet"
    path.parent.mkdir(parents=True)
    table.write_parquet(path)
    return wells.with_columns(Metadata_JCP2022=pl.Series([*codes[:-1], "JCP2022_999999"]))


@pytest.fixture
def folder(tmp_path):
    """Genes 2k and 2k + 1 act alike; every second pair of them is listed as known."""
    rng = np.random.default_rng(0)
    write_metadata(tmp_path)
    effect_GD = 3 * np.repeat(rng.normal(size=(20, len(FEATURES))), 2, axis=0)
    wells = [
        write_plate(tmp_path, batch, plate, rng, effect_GD)
        for batch, plates in BATCHES.items()
        for plate in plates
    ]
    write_gzip(tmp_path / "metadata/well.csv.gz", pl.concat(wells))
    pairs = pl.DataFrame({"entity1": GENES[::2], "entity2": GENES[1::2]})
    for name in ("CORUM", "HuMAP", "Reactome", "StringDB"):
        pairs.write_csv(tmp_path / f"{name}.txt")
    return tmp_path


def prepare(folder):
    command = [sys.executable, str(ROOT / "configs/jump_tables.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


def test_public_tables_become_one_table_a_batch(folder):
    printed = prepare(folder).stdout
    assert "4 of 5 plates of knockouts have profiles" in printed
    assert len(list(folder.glob("jump_*.parquet"))) == 2
    table = pl.read_parquet(folder / "jump_20220914_Run1.parquet")
    # Constant features and those of the whole image are left out, unknown wells too.
    assert [name for name in table.columns if not name.startswith("Metadata_")] == FEATURES
    assert table.height == 2 * (2 * len(GENES) + 20 + 4 + 2)
    for _, plate in table.group_by("Metadata_Plate"):
        assert np.allclose(plate.select(FEATURES).to_numpy().mean(axis=0), 0, atol=1e-5)
        assert np.allclose(plate.select(FEATURES).to_numpy().std(axis=0), 1, atol=1e-5)
    counts = dict(table["Metadata_control_type"].value_counts().iter_rows())
    assert counts == {"": 160, "non-targeting": 40, "no-guide": 8, "poscon": 4}


def test_a_folder_without_profiles_is_refused_in_one_line(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    write_metadata(empty)
    done = prepare(empty)
    assert done.returncode == 1 and "no profiles, wanted" in done.stderr.splitlines()[-1]


def test_cellprofiler_features_give_a_row_of_table_2(folder, tmp_path):
    prepare(folder)
    config = yaml.safe_load((ROOT / "configs/jump.yaml").read_text())
    del config["encoders"]["random"]
    config["benchmarks"]["jump"]["encoders"] = ["cellprofiler"]
    config["benchmarks"]["jump"]["recall"] = {"bootstraps": 20, "permutations": 3}
    del config["benchmarks"]["jump"]["magnitude"]
    config["align"]["fit"]["n_components"] = 16
    experiments = config["screens"]["jump"]["experiments"]
    for absent in set(experiments) - set(BATCHES):
        del experiments[absent]
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({**config, "data": str(folder)}))
    where = ["-s", ROOT / "Snakefile", "--configfile", mine, "-d", tmp_path / "run"]
    snakemake("results/report/tables.md", *where, "--cores", 2)
    results = tmp_path / "run/results"
    recall = pl.read_parquet(results / "benchmark/jump/cellprofiler/recall.parquet")
    found = recall.filter(pl.col("metric") == "recall_all_pairs_0.05_0.95")
    assert found["source"].sort().to_list() == ["CORUM", "Reactome", "StringDB", "hu.MAP"]
    assert (found["value"] > 0.6).all() and set(found["n"]) == {20}
    shuffled = recall.filter(pl.col("metric") == "recall_permuted_all_pairs_0.05_0.95")
    assert (shuffled["value"] < 0.3).all()
    maps = pl.read_csv(results / "report/tables_maps.csv")
    of_table_2 = maps.filter(pl.col("benchmark").is_in(["jump", "paper Table 2"]))
    ours = of_table_2.row(by_predicate=pl.col("encoder") == "cellprofiler", named=True)
    theirs = of_table_2.row(by_predicate=pl.col("encoder") == "CellProfiler", named=True)
    assert ours["group"] == "baseline" and theirs["StringDB"] == 0.191
    assert ours["StringDB"] == pytest.approx(found["value"][0], abs=0.01)
