"""Step ``arms``: what the chromosome arm adds to the embeddings of a gene's knockouts.

Cas9 may cut off the rest of a chromosome arm, so that knockouts on one arm look alike
whatever their genes do. Knockouts of genes that the cells do not express show that alone.

Time and memory: 1,400 wells of 1,664 features in 1.5 s and 0.17 GB; one experiment's wells are
held at a time, beside one mean a gene.

Shape suffixes: W wells, G genes, D features.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.align.config import ArmsKnobs
from phenopipe.chromosomes import arm_offsets, correct_chromosome_arms
from phenopipe.errors import UserError
from phenopipe.formats.aligned import ALIGNED, read_aligned
from phenopipe.formats.arms import ARMS
from phenopipe.formats.genes import GENES
from phenopipe.formats.tables import read_table, write_table
from phenopipe.formats.wells import conditions
from phenopipe.knobs import parse_step, run_step

__all__ = ["arm_offsets", "arm_table", "correct_chromosome_arms", "gene_means", "main"]

Floats = NDArray[np.floating]


def gene_means(
    experiments: Iterable[tuple[pl.DataFrame, Floats]], origin_role: str
) -> tuple[list[str], NDArray[np.float64]]:
    """Mean aligned embedding of each gene's knockouts, seen from the controls.

    Parameters
    ----------
    experiments : iterable of (DataFrame, float array of shape (n_wells, n_features))
        Aligned wells and embeddings, taken one experiment at a time.
    origin_role : str
        Role of the wells whose mean is the origin in each experiment.

    Returns
    -------
    genes : list of str
        Genes with a well whose only perturbation is a knockout, sorted.
    x_GD : float array of shape (n_genes, n_features)
        Plain means over wells. Offsets made of them are in the units of wells, so that
        they can be subtracted from wells before these are scaled to length one; a mean of
        unit vectors could not.

    Raises
    ------
    UserError
        If an experiment with knockouts has no well of the origin's role, or experiments
        differ in their number of features.
    """
    total: dict[str, NDArray[np.float64]] = {}
    count: dict[str, int] = {}
    width = 0
    for wells, x_WD in experiments:
        width = width or x_WD.shape[1]
        if x_WD.shape[1] != width:
            name = wells["experiment"][0]
            raise UserError(f"experiment {name}: {x_WD.shape[1]} features, wanted {width}")
        single = (
            conditions(wells)
            .filter(pl.col("n_perturbations") == 1, kind="knockout")
            .drop_nulls("gene")
        )
        if not single.height:
            continue
        is_origin_W = (wells["role"] == origin_role).to_numpy()
        if not is_origin_W.any():
            name = wells["experiment"][0]
            raise UserError(f"experiment {name}: no aligned well of role {origin_role}")
        origin_D = x_WD[is_origin_W].mean(axis=0, dtype=np.float64)
        gene_of = dict(single.select("well_id", "gene").iter_rows())
        gene_W = np.array([gene_of.get(well, "") for well in wells["well_id"]])
        for gene in np.unique(gene_W[gene_W != ""]).tolist():
            rows_ND = x_WD[gene_W == gene] - origin_D
            total[gene] = total.get(gene, 0.0) + rows_ND.sum(axis=0)
            count[gene] = count.get(gene, 0) + len(rows_ND)
    genes = sorted(total)
    x_GD = np.array([total[gene] / count[gene] for gene in genes])
    return genes, x_GD.reshape(len(genes), width)


def arm_table(
    genes: list[str], x_GD: NDArray[np.float64], known: pl.DataFrame, knobs: ArmsKnobs
) -> pl.DataFrame:
    """Offsets of all genes with knockouts, in the arms format.

    Parameters
    ----------
    genes : list of str
        Genes with knockouts.
    x_GD : float array of shape (n_genes, n_features)
        Mean embedding of each.
    known : DataFrame
        The genes format: ``gene, arm, expression``.
    knobs : ArmsKnobs
        Settings.
    """
    table = pl.DataFrame({"gene": genes}, schema={"gene": pl.String}).join(
        known, on="gene", how="left", maintain_order="left"
    )
    quiet = (table["expression"] < knobs.max_expression).fill_null(value=False)
    if knobs.enabled:
        offset_GD, is_corrected_G = arm_offsets(
            x_GD, table["arm"].to_list(), quiet.to_list(), min_genes=knobs.min_genes
        )
    else:
        offset_GD, is_corrected_G = np.zeros_like(x_GD), np.zeros(len(genes), dtype=bool)
    dtype = pl.Array(pl.Float32, offset_GD.shape[1])
    offset = pl.Series(offset_GD.astype(np.float32), dtype=dtype)
    return table.select("gene", "arm").with_columns(corrected=is_corrected_G, offset=offset)


def _read_each(paths: Sequence[Path]) -> Iterator[tuple[pl.DataFrame, Floats]]:
    # Sorted by experiment, so that sums do not depend on the order of the files.
    by_name = {}
    for path in paths:
        names = read_table(path, ALIGNED, columns=["experiment"])["experiment"]
        by_name[names[0] if len(names) else "", str(path)] = path
    for key in sorted(by_name):
        yield read_aligned(by_name[key])


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``align_arms``."""
    files, knobs = parse_step(
        ArmsKnobs,
        inputs=["aligned*", "genes"],
        outputs=["arms"],
        names=["screen", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    genes, x_GD = gene_means(_read_each(files.aligned), knobs.origin_role)
    table = arm_table(genes, x_GD, read_table(files.genes, GENES), knobs)
    write_table(files.arms, table, ARMS, files.stamp)
    arms = table.filter("corrected")["arm"].n_unique()
    print(f"{arms} arms with {table['corrected'].sum()} of {len(genes)} genes corrected")


if __name__ == "__main__":
    run_step(main)
