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
from phenopipe.errors import UserError
from phenopipe.formats.aligned import ALIGNED, read_aligned
from phenopipe.formats.arms import ARMS
from phenopipe.formats.genes import GENES
from phenopipe.formats.tables import read_table, write_table
from phenopipe.formats.wells import conditions
from phenopipe.knobs import parse_step, run_step

Floats = NDArray[np.floating]


def correct_chromosome_arms(
    x_GD: Floats,
    arm_G: Sequence[str | None],
    is_unexpressed_G: Sequence[bool] | NDArray[np.bool_],
    *,
    min_genes: int = 20,
) -> NDArray[np.float64]:
    """Embeddings of genes without what their chromosome arm adds.

    Parameters
    ----------
    x_GD : float array of shape (n_genes, n_features)
        Embedding of each gene.
    arm_G : list of str of length n_genes
        Chromosome arm of each gene; None where it is unknown.
    is_unexpressed_G : bool array of shape (n_genes,)
        Genes that the cells do not express.
    min_genes : int
        An arm is corrected if it has more unexpressed genes than this.

    Returns
    -------
    float array of shape (n_genes, n_features)
        On corrected arms, the mean of the arm's unexpressed genes is subtracted from every
        gene, expressed or not.

    References
    ----------
    Lazar et al. (2024), High-resolution genome-wide mapping of chromosome-arm-scale
    truncations induced by CRISPR-Cas9 editing, Nature Genetics 56, 1482-1493.

    Examples
    --------
    >>> x_GD = np.array([[1.0], [3.0], [9.0], [5.0]])
    >>> arms, unexpressed = ["1p", "1p", "1p", "2q"], [True, True, False, True]
    >>> correct_chromosome_arms(x_GD, arms, unexpressed, min_genes=1).ravel().tolist()
    [-1.0, 1.0, 7.0, 5.0]
    """
    offset_GD, _ = arm_offsets(x_GD, arm_G, is_unexpressed_G, min_genes=min_genes)
    corrected_GD: NDArray[np.float64] = x_GD - offset_GD
    return corrected_GD


def arm_offsets(
    x_GD: Floats,
    arm_G: Sequence[str | None],
    is_unexpressed_G: Sequence[bool] | NDArray[np.bool_],
    *,
    min_genes: int = 20,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Offset of each gene's arm, and whether the arm is corrected.

    Returns
    -------
    offset_GD : float array of shape (n_genes, n_features)
        Zero where the arm is not corrected.
    is_corrected_G : bool array of shape (n_genes,)
    """
    genes = pl.DataFrame({"arm": list(arm_G), "quiet": list(is_unexpressed_G)})
    genes = genes.with_row_index("at").filter(pl.col("arm").is_not_null())
    offset_GD = np.zeros(np.shape(x_GD))
    is_corrected_G = np.zeros(len(x_GD), dtype=bool)
    for (_arm,), of_arm in genes.group_by("arm", maintain_order=True):
        quiet = of_arm.filter("quiet")["at"].to_numpy()
        if len(quiet) > min_genes:
            rows = of_arm["at"].to_numpy()
            offset_GD[rows] = np.asarray(x_GD)[quiet].mean(axis=0, dtype=np.float64)
            is_corrected_G[rows] = True
    return offset_GD, is_corrected_G


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
