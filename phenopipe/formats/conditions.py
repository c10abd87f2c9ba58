"""The conditions of a well as one text, to be read and compared by the million."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from phenopipe.formats.wells import CONDITIONS, listed

# A condition with its gene: all that a well can be kept or lost for.
TARGET = ("kind", "perturbation", "concentration_um", "gene")
# Between the targets of a well, between the fields of a target, and in place of an empty
# field. No name holds them (``check_words``).
AMONG, BETWEEN, NOTHING = "\x1d", "\x1f", "\x1e"


def as_text(names: Sequence[str]) -> pl.Expr:
    """Join the fields of each target in one text; a null field has a character of its own."""
    fields = [pl.col(name).cast(pl.String).fill_null(NOTHING) for name in names]
    return pl.concat_str(fields, separator=BETWEEN)


def condition_texts(treatments: pl.Series) -> pl.Series:
    """Write the conditions of each well as one text.

    Parameters
    ----------
    treatments : Series of list of struct, n_wells long
        Everything applied to each well.

    Returns
    -------
    Series ``conditions`` of str, n_wells long
        Kind, perturbation, concentration and gene of every condition, in their order;
        null where there is none. The background of others is left out.
    """
    found = listed(treatments)
    dose = pl.col("concentration_um")
    texts = (
        # Zero is one number, with or without a sign.
        found.fields.with_columns(pl.when(dose != 0).then(dose).otherwise(dose.abs()))
        .select(text=as_text(TARGET), row=found.row_A)
        .filter(found.is_condition_A)
        .group_by("row", maintain_order=True)
        .agg(pl.col("text").str.join(AMONG))
    )
    rows = pl.DataFrame({"row": np.arange(len(treatments), dtype=np.uint32)})
    texts = rows.join(texts, on="row", how="left", maintain_order="left")
    return texts["text"].alias(CONDITIONS)
