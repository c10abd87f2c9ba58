import numpy as np
import polars as pl
import pytest

from phenopipe.formats.embeddings import write_embeddings
from phenopipe.formats.qc import write_qc_wells
from phenopipe.formats.wells import COLUMNS

N_FEATURES = 6


def wells_of(experiment, roles, genes=None):
    """A frame of wells; genes where given are knocked out."""
    genes = genes or [None] * len(roles)
    knockout = {"kind": "knockout", "guide": "g", "concentration_um": None}
    rows = [
        {
            "screen": "screen-1",
            "experiment": experiment,
            "plate": "plate-1",
            "well": "A01",
            "row": 1,
            "column": 1,
            "cell_type": "HUVEC",
            "role": role,
            "treatments": [{**knockout, "gene": gene, "perturbation": f"{gene}_1"}]
            if gene
            else [],
            "layout": "layout-1",
            "well_id": f"{experiment}/plate-1/{number}",
        }
        for number, (role, gene) in enumerate(zip(roles, genes, strict=True))
    ]
    return pl.DataFrame(rows, schema={name: dtype for name, (dtype, _) in COLUMNS.items()})


def batch_of(seed, n_wells=40, n_features=N_FEATURES):
    """Embeddings with a shift, a scale and correlations that belong to the experiment."""
    rng = np.random.default_rng(seed)
    mixing_DD = rng.normal(size=(n_features, n_features)) + 2 * np.eye(n_features)
    return rng.normal(size=(n_wells, n_features)) @ mixing_DD + 5 * rng.normal(size=n_features)


@pytest.fixture
def screen(tmp_path):
    """Three experiments on disk: 15 controls, 25 treated wells, some that fail qc."""
    names = ["experiment-1", "experiment-2", "experiment-3"]
    for seed, name in enumerate(names):
        x_WD = batch_of(seed).astype(np.float32)
        x_WD[20] = np.nan
        wells = wells_of(name, ["negative_control"] * 15 + ["perturbation"] * 25)
        passes = pl.Series([well not in (3, 30) for well in range(40)])
        flagged = wells.with_columns(
            n_images=pl.lit(1, pl.Int32),
            passes=passes,
            reason=pl.when(passes).then(pl.lit("")).otherwise(pl.lit("focus")),
        )
        write_qc_wells(tmp_path / f"{name}.parquet", flagged, {})
        # Two blocks, of which the last counts; rows in another order than the wells.
        order_W = np.random.default_rng(9).permutation(40)
        write_embeddings(
            tmp_path / f"{name}.zarr",
            np.stack([x_WD * 0, x_WD], axis=1)[order_W],
            wells["well_id"].gather(order_W).to_list(),
            block_numbers=[1, 2],
            block_dims=[N_FEATURES, N_FEATURES],
            stamp={},
        )
    return tmp_path, names
