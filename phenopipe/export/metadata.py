"""What is known of each well, in the columns of profiling tools: ``Metadata_*``, flat."""

from collections.abc import Sequence

import polars as pl

from phenopipe.formats.wells import METADATA, conditions

# Column of ours -> theirs. pycytominer, copairs and the Cell Painting Gallery look for the
# prefix, and for Plate and Well by name; JUMP's tables call an experiment a batch.
NAMES = {
    "screen": "Metadata_Screen",
    "experiment": "Metadata_Batch",
    "plate": "Metadata_Plate",
    "well": "Metadata_Well",
    "row": "Metadata_Row",
    "column": "Metadata_Column",
    "cell_type": "Metadata_CellType",
    "role": "Metadata_Role",
    "layout": "Metadata_Layout",
    "fitted": "Metadata_Fitted",
    "n_images": "Metadata_Images",
    "well_id": "Metadata_WellId",
}
TREATED = {
    "perturbation": "Metadata_Perturbation",
    "kind": "Metadata_PerturbationKind",
    "gene": "Metadata_Gene",
    "guide": "Metadata_Guide",
}
BACKGROUND = "Metadata_Background"
CONCENTRATION = "Metadata_Concentration"
N_PERTURBATIONS = "Metadata_NPerturbations"
# Between the names of several perturbations of one well.
BETWEEN = "|"


def metadata_of(wells: pl.DataFrame) -> pl.DataFrame:
    """Describe wells in flat columns, in their order.

    Parameters
    ----------
    wells : DataFrame
        Columns of the wells format; ``fitted``, ``n_images`` and ``Metadata_*`` are carried
        along.

    Returns
    -------
    DataFrame
        ``Metadata_*`` columns alone. Names of several perturbations are joined by a bar; a
        well without any has nulls. The concentration (micromolar) is that of a well's only
        perturbation. What a user's own column says goes before what we would say there.
    """
    joined = [pl.col(name).drop_nulls().str.join(BETWEEN) for name in TREATED]
    applied = (
        conditions(wells)
        .group_by("well_id")
        .agg(
            *joined,
            pl.col("background", "n_perturbations").first(),
            concentration_um=pl.when(pl.len() == 1).then(pl.col("concentration_um").first()),
        )
        .with_columns(pl.col(*TREATED, "background").replace("", None))
    )
    every = wells.join(applied, on="well_id", how="left", maintain_order="left")
    own = [name for name in wells.columns if name.startswith(METADATA)]
    made = {
        **{new: pl.col(old) for old, new in NAMES.items() if old in wells.columns},
        **{new: pl.col(old) for old, new in TREATED.items()},
        BACKGROUND: pl.col("background"),
        CONCENTRATION: pl.col("concentration_um"),
        N_PERTURBATIONS: pl.col("n_perturbations").fill_null(0),
    }
    told = [one.alias(name) for name, one in made.items() if name not in own]
    return every.select(*told, *own)


def feature_names(n_features: int) -> list[str]:
    """Names of the features of an embedding: as many digits for all of them, from 0."""
    digits = max(4, len(str(n_features - 1)))
    return [f"feature_{i:0{digits}d}" for i in range(n_features)]


def stacked(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Put the metadata of experiments below each other; a column that one lacks is null."""
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()
