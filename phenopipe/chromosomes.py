"""What a chromosome arm adds to the embeddings of its genes.

Shape suffixes: G genes, D features.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

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
