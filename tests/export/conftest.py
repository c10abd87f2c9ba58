import numpy as np
import polars as pl
import pytest

from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.wells import COLUMNS

N_FEATURES = 5


def treatment(perturbation, kind="knockout", gene=None, guide=None, concentration_um=None):
    return {
        "perturbation": perturbation,
        "kind": kind,
        "gene": gene,
        "guide": guide,
        "concentration_um": concentration_um,
    }


TREATMENTS = {
    "control": [],
    "guide": [treatment("A_1", gene="A", guide="1")],
    "dose": [treatment("drug", "compound", concentration_um=2.5)],
    "two": [treatment("A_1", gene="A", guide="1"), treatment("B_1", gene="B", guide="2")],
    "factor": [treatment("B_1", gene="B", guide="2"), treatment("TNF", "soluble_factor")],
}


def wells_of(experiment, names, **columns):
    """Aligned wells of one experiment, treated as TREATMENTS says."""
    rows = [
        {
            "screen": "lab",
            "experiment": experiment,
            "plate": f"plate-{number % 2 + 1}",
            "well": f"A{number + 1:02d}",
            "row": 1,
            "column": number + 1,
            "cell_type": "HUVEC",
            "role": "negative_control" if name == "control" else "perturbation",
            "treatments": TREATMENTS[name],
            "layout": "layout-1",
            "well_id": f"{experiment}/{number}",
        }
        for number, name in enumerate(names)
    ]
    schema = {name: dtype for name, (dtype, _) in COLUMNS.items()}
    return pl.DataFrame(rows, schema=schema).with_columns(**columns)


@pytest.fixture
def screen(tmp_path):
    """Two aligned experiments on disk, of which only one has the lab's own column."""
    every = list(TREATMENTS)
    tables = {
        "e1": wells_of("e1", every, fitted=pl.lit(False)),
        "e2": wells_of("e2", every[::-1], fitted=pl.lit(True), Metadata_Lot=pl.lit(7)),
    }
    paths, x_WD = [], {}
    for seed, (name, wells) in enumerate(tables.items()):
        rng = np.random.default_rng(seed)
        x_WD[name] = rng.normal(size=(wells.height, N_FEATURES)).astype(np.float32)
        paths.append(tmp_path / "align" / name / "embeddings.parquet")
        write_aligned(paths[-1], wells, x_WD[name], {"names": {"experiment": name}})
    return paths, tables, np.concatenate(list(x_WD.values()))
