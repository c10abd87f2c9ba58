"""The weak labels that a classifier learns: what was done to each well."""

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.wells import METADATA, conditions

CONTROL = "negative_control"
OF_CONDITIONS = ("perturbation", "gene")


def label_wells(wells: pl.DataFrame, label: str, *, controls: bool) -> pl.DataFrame:
    """Find the label of each well that has exactly one.

    Parameters
    ----------
    wells : DataFrame
        Wells format.
    label : str
        ``gene``, ``perturbation``, or a column of the wells.
    controls : bool
        Whether negative controls are a class of their own; else they are left out.

    Returns
    -------
    DataFrame
        ``screen, well_id, label``. Wells with several perturbations, without the label or
        in the role ``empty`` are left out: one crop cannot show which of two it is.

    Raises
    ------
    UserError
        If there is no well, no such column, or fewer than two classes are left.

    Notes
    -----
    Weak supervision on perturbation labels: paper 3.1, the second judge.
    """
    if wells.is_empty():
        raise UserError("pretrain.classifier: no well passes qc, wanted labelled ones")
    if label in OF_CONDITIONS:
        single = conditions(wells).filter(pl.col("n_perturbations") == 1)
        labels = single.select("well_id", label=pl.col(label))
    elif label in wells.columns:
        labels = wells.select("well_id", label=pl.col(label).cast(pl.String))
    else:
        columns = [name for name in wells.columns if name.startswith(METADATA)]
        wanted = ", ".join([*OF_CONDITIONS, "cell_type", *columns])
        raise UserError(f"pretrain.classifier.label: no column {label!r}, wanted {wanted}")
    is_control = pl.col("role") == CONTROL
    named = wells.join(labels, on="well_id", how="left", maintain_order="left").with_columns(
        label=pl.when(is_control).then(pl.lit(CONTROL)).otherwise(pl.col("label"))
    )
    kept = pl.col("label").is_not_null() & (pl.col("role") != "empty")
    named = named.filter(kept if controls else kept & ~is_control)
    if named["label"].n_unique() < 2:
        raise UserError(
            f"pretrain.classifier.label: {label!r} gives {named['label'].n_unique()} classes "
            f"among {wells.height} wells, wanted at least 2"
        )
    return named.select("screen", "well_id", "label")
