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

    Rows without a gene are left out, and those without a number for a potency (``>10000``),
    which are counted. Of several potencies of one pair the strongest stands: a gene is a
    target if any assay finds it so.

    Raises
    ------
    UserError
        If a column is absent, a potency is not above 0, or no row with a potency is left.

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
            "nM_value": text(rows, columns.potency, key="interaction_columns.potency")
            .cast(pl.Float64, strict=False)
            .fill_nan(None),
        }
    )
    wrong = listed.select((pl.col("nM_value") <= 0).fill_null(value=False)).to_series()
    if wrong.any():
        at = wrong.arg_max() or 0
        raise UserError(
            f"{place(rows, at)}: potency {listed['nM_value'][at]:g}, wanted more than 0 nM"
        )
    with_gene = listed.drop_nulls(["treatment", "gene_symbol"])
    named = with_gene.drop_nulls()
    if lost := with_gene.height - named.height:
        print(f"{path}: {lost} of {with_gene.height} rows without a potency in nM, left out")
        if not named.height:
            raise UserError(f"{path}: no potency in nM (interaction_columns.potency)")
    if columns.separator is not None:
        split = pl.col("gene_symbol").str.split(columns.separator)
        named = named.with_columns(split).explode("gene_symbol")
    trimmed = named.with_columns(pl.col("gene_symbol").str.strip_chars())
    pairs = trimmed.filter(pl.col("gene_symbol") != "").group_by("treatment", "gene_symbol")
    return pairs.agg(pl.col("nM_value").min()).sort("treatment", "gene_symbol")
