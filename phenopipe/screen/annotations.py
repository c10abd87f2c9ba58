"""Genes and compound-gene interactions from a user's own tables."""

from pathlib import Path

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.genes import GENES, INTERACTIONS
from phenopipe.screen.columns import needed, number, place, read_rows, text
from phenopipe.screen.config import GeneColumns, InteractionColumns


def read_genes(path: Path | None, columns: GeneColumns) -> pl.DataFrame:
    """Genes format of a user's table, sorted by gene; empty without a table.

    A gene that fills several rows (replicates of an expression assay) gets their median.

    Raises
    ------
    UserError
        If a column is absent, a number is none, or two rows place a gene on two arms.
    """
    if path is None:
        return GENES.empty()
    rows = read_rows([path])
    listed = pl.DataFrame(
        {
            "gene": needed(rows, columns.gene, key="gene_columns.gene"),
            "arm": text(rows, columns.arm, key="gene_columns.arm"),
            "expression": number(rows, columns.expression, key="gene_columns.expression"),
        }
    )
    genes = listed.group_by("gene").agg(
        pl.col("arm").drop_nulls().unique().sort(), pl.col("expression").median()
    )
    torn = genes.filter(pl.col("arm").list.len() > 1).sort("gene")
    if torn.height:
        gene, arms = torn.select("gene", "arm").row(0)
        raise UserError(f"{path}: gene {gene} lies on arms {', '.join(arms)}, wanted one")
    return genes.with_columns(pl.col("arm").list.first()).sort("gene")


def read_interactions(path: Path | None, columns: InteractionColumns) -> pl.DataFrame:
    """Give the interactions format of a user's table, each pair once; empty without a table.

    Rows without a gene are left out. Of several potencies of one pair the median stands.

    Raises
    ------
    UserError
        If a column is absent, or a row has a gene and no potency.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "targets.csv")
    >>> pl.DataFrame({"name": ["quinine"], "targets": ["GP9|KCNB2"]}).write_csv(path)
    >>> columns = InteractionColumns(
    ...     treatment="name", gene="targets", separator="|", potency={"constant": 100}
    ... )
    >>> read_interactions(path, columns).rows()
    [('quinine', 'GP9', 100.0), ('quinine', 'KCNB2', 100.0)]
    """
    if path is None:
        return INTERACTIONS.empty()
    rows = read_rows([path])
    listed = pl.DataFrame(
        {
            "treatment": text(rows, columns.treatment, key="interaction_columns.treatment"),
            "gene_symbol": text(rows, columns.gene, key="interaction_columns.gene"),
            "nM_value": number(rows, columns.potency, key="interaction_columns.potency"),
        }
    )
    blank = listed["gene_symbol"].is_not_null() & listed["nM_value"].is_null()
    if blank.any():
        raise UserError(
            f"{place(rows, blank.arg_max() or 0)}: no potency, wanted a number in nM"
        )
    named = listed.drop_nulls()
    if columns.separator is not None:
        split = pl.col("gene_symbol").str.split(columns.separator)
        named = named.with_columns(split).explode("gene_symbol")
    trimmed = named.with_columns(pl.col("gene_symbol").str.strip_chars())
    pairs = trimmed.filter(pl.col("gene_symbol") != "").group_by("treatment", "gene_symbol")
    return pairs.agg(pl.col("nM_value").median()).sort("treatment", "gene_symbol")
