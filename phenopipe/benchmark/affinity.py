"""Similarity of every compound dose to every gene.

Shape suffixes: C compounds, G genes, D features, K concentrations, R rows (compound doses).
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.config import CompoundsKnobs
from phenopipe.benchmark.treated import unit_rows
from phenopipe.errors import UserError

# What a compound that blocks a gene's product looks like.
SILENCING = ("knockout", "sirna")
# Nanomolar: a compound acts on the genes that it binds at least this tightly.
ACTIVE_NM = 1_000.0


@dataclass(frozen=True)
class Similarities:
    """Absolute cosines, NaN where a compound lacks a dose or a gene cannot be judged.

    Attributes
    ----------
    compounds, genes : list of str
        Names of rows and columns.
    concentrations : list of float
        Micromolar; NaN for a dose that is not known.
    similarity_KCG : float array of shape (n_concentrations, n_compounds, n_genes)
        Absolute cosines: a compound may do the opposite of a knockout.
    """

    compounds: list[str]
    genes: list[str]
    concentrations: list[float]
    similarity_KCG: NDArray[np.float64]

    def maximum(self) -> NDArray[np.float64]:
        """Largest similarity over concentrations, of shape (n_compounds, n_genes)."""
        lowest_CG = np.where(np.isnan(self.similarity_KCG), -np.inf, self.similarity_KCG)
        best_CG = lowest_CG.max(axis=0)
        return np.where(np.isinf(best_CG), np.nan, best_CG)

    def judged_genes(self) -> set[str]:
        """Genes that at least one compound can be compared with."""
        best_CG = self.maximum()
        return {g for at, g in enumerate(self.genes) if np.isfinite(best_CG[:, at]).any()}


def compound_gene_similarities(
    table: pl.DataFrame, truth: pl.DataFrame, knobs: CompoundsKnobs
) -> Similarities:
    """Compare compound doses with knockouts, or with other compounds of the same target.

    Parameters
    ----------
    table : DataFrame
        The map format, with compound doses and, where they stand for genes, knockouts.
    truth : DataFrame
        ``treatment, gene_symbol, nM_value``; names the compounds that stand for genes
        where there are no knockouts.
    knobs : CompoundsKnobs
        The step's settings.

    Raises
    ------
    UserError
        If the map has no compounds, or no knockouts where they are asked for.
    """
    doses = table.filter(pl.col("kind") == "compound")
    if knobs.concentrations:
        doses = doses.filter(pl.col("concentration_um").is_in(knobs.concentrations))
    if not doses.height:
        raise UserError("no compound dose among the wells, wanted some")
    unit_RD = unit_rows(doses["embedding"].to_numpy(), doses["entity"].to_list())
    compounds = sorted(doses["entity"].unique())
    dose_R = doses["concentration_um"].fill_null(np.nan).to_numpy()
    concentrations_K, k_R = np.unique(dose_R, return_inverse=True)
    c_R = np.searchsorted(compounds, doses["entity"].to_numpy().astype(str))
    if knobs.genes_from == "knockouts":
        genes, cosine_RG = _against_knockouts(unit_RD, table)
    else:
        genes, cosine_RG = _against_compounds(unit_RD, c_R, k_R, compounds, truth)
    similarity_KCG = np.full((len(concentrations_K), len(compounds), len(genes)), np.nan)
    similarity_KCG[k_R, c_R] = np.abs(cosine_RG)
    return Similarities(compounds, genes, concentrations_K.tolist(), similarity_KCG)


def _against_knockouts(
    unit_RD: NDArray[np.float64], table: pl.DataFrame
) -> tuple[list[str], NDArray[np.float64]]:
    knockouts = table.filter(pl.col("kind").is_in(SILENCING))
    if not knockouts.height:
        raise UserError(
            "no knockouts among the wells, wanted some (or genes_from: other_compounds)"
        )
    genes = knockouts["entity"].to_list()
    return genes, unit_RD @ unit_rows(knockouts["embedding"].to_numpy(), genes).T


def _against_compounds(
    unit_RD: NDArray[np.float64],
    c_R: NDArray[np.int64],
    k_R: NDArray[np.int64],
    compounds: list[str],
    truth: pl.DataFrame,
) -> tuple[list[str], NDArray[np.float64]]:
    """Cosine to the mean direction of the other compounds known to act on each gene.

    Notes
    -----
    A mean of many compounds is nearer to everything than that of a few, and an active gene
    has two compounds at least: judge against permuted compounds, not against random scores.
    At each concentration, the directions of a gene's compounds are summed once; leaving
    the asked compound out is a subtraction: u·(S - u) = u·S - 1 and
    |S - u|² = |S|² - 2 u·S + 1.
    """
    active = truth.filter(pl.col("nM_value").fill_nan(None).fill_null(0.0) <= ACTIVE_NM)
    active = active.filter(pl.col("treatment").is_in(compounds)).drop_nulls("gene_symbol")
    genes = sorted(active["gene_symbol"].unique())
    acts_CG = np.zeros((len(compounds), len(genes)))
    rows = np.searchsorted(compounds, active["treatment"].to_numpy().astype(str))
    acts_CG[rows, np.searchsorted(genes, active["gene_symbol"].to_numpy().astype(str))] = 1.0
    cosine_RG = np.full((len(unit_RD), len(genes)), np.nan)
    for k in np.unique(k_R):
        at = np.flatnonzero(k_R == k)
        acts_RG, unit = acts_CG[c_R[at]], unit_RD[at]
        sum_GD = acts_RG.T @ unit
        dot_RG = unit @ sum_GD.T
        others_RG = acts_RG.sum(axis=0) - acts_RG
        square_RG = np.square(sum_GD).sum(axis=1) - acts_RG * (2 * dot_RG - 1)
        known_RG = (others_RG > 0) & (square_RG > 1e-12)
        length_RG = np.sqrt(np.where(known_RG, square_RG, 1.0))
        cosine_RG[at] = np.where(known_RG, (dot_RG - acts_RG) / length_RG, np.nan)
    return genes, cosine_RG


def shuffle_compounds(table: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Deal the names of compounds among them; each keeps all its doses together."""
    is_compound = pl.col("kind") == "compound"
    names = table.filter(is_compound)["entity"].unique().sort()
    dealt = dict(zip(names, rng.permutation(names.to_numpy()).tolist(), strict=True))
    entity = pl.col("entity").replace(dealt)
    shuffled = pl.when(is_compound).then(entity).otherwise("entity")
    return table.with_columns(entity=shuffled)
