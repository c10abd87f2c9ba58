"""What the probe is to predict of each well."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.wells import BACKGROUND_KIND, conditions
from phenopipe.probe.config import GROUP, METADATA, BlocksKnobs
from phenopipe.seeds import generator

CONTROL = "negative_control"


@dataclass(frozen=True)
class Labelled:
    """Wells with their class, and what was left out on the way.

    Attributes
    ----------
    wells : DataFrame
        ``well_id, experiment, layout, gene, label, is_train``, sorted by ``well_id``.
    left_out : mapping of str to list of str
        Genes of several groups, and classes without enough wells on either side.
    held_out : tuple of str
        Genes that only test; none unless asked for.
    """

    wells: pl.DataFrame
    left_out: dict[str, list[str]]
    held_out: tuple[str, ...] = ()


def label_wells(
    wells: pl.DataFrame, groups: pl.DataFrame | None, knobs: BlocksKnobs
) -> Labelled:
    """Give each well its class; wells without one, or of several treatments, drop out.

    Parameters
    ----------
    wells : DataFrame
        Columns of the wells format, wells that pass qc.
    groups : DataFrame or None
        ``group, gene``, for the label ``group``.
    knobs : BlocksKnobs
        Label, experiments and filters.

    Raises
    ------
    UserError
        If an experiment, a column or the groups are absent, or fewer than two classes stay.
    """
    for side in ("train", "test"):
        named = getattr(knobs, side)
        absent = sorted(set(named) - set(wells["experiment"]))
        if absent or not named:
            found = ", ".join(sorted(set(wells["experiment"])))
            raise UserError(f"{side}: no wells of experiments {absent or '()'}, found {found}")
    wells = wells.filter(pl.col("experiment").is_in([*knobs.train, *knobs.test]))
    if knobs.cell_type is not None:
        wells = wells.filter(pl.col("cell_type") == knobs.cell_type)
    single = conditions(wells).filter(pl.col("n_perturbations") == 1)
    joined = wells.join(single, on="well_id", how="left")
    if knobs.background is not None:
        wanted = "" if knobs.background == "none" else knobs.background
        joined = joined.filter(_background() == wanted)
    left_out: dict[str, list[str]] = {}
    labelled = joined.with_columns(label=_label(joined, groups, knobs, left_out))
    if knobs.controls:
        is_control = pl.col("role") == CONTROL
        label = pl.when(is_control).then(pl.lit(CONTROL)).otherwise("label")
        labelled = labelled.with_columns(label=label)
    labelled = labelled.drop_nulls("label").select(
        *("well_id", "experiment", "layout", "gene", "label"),
        is_train=pl.col("experiment").is_in(knobs.train),
    )
    held_out: tuple[str, ...] = ()
    if knobs.hold_out_genes:
        rng = generator(knobs.seed, "probe", "held out")
        held_out = hold_out_genes(labelled, knobs.hold_out_genes, rng)
        is_held = pl.col("gene").is_in(held_out) & pl.col("gene").is_not_null()
        labelled = labelled.filter(pl.col("gene").is_null() | (is_held != pl.col("is_train")))
    kept = _enough(labelled, knobs, left_out).sort("well_id")
    return Labelled(kept, left_out, held_out)


def _background() -> pl.Expr:
    """Soluble factors beside a well's treatment; in a control, which has none, all of them."""
    is_factor = pl.element().struct.field("kind") == BACKGROUND_KIND
    names = pl.element().filter(is_factor).struct.field("perturbation").unique().sort()
    factors = pl.col("treatments").list.eval(names).list.join("+").fill_null("")
    background = pl.coalesce("background", factors)
    return pl.when(pl.col("role") == CONTROL).then(factors).otherwise(background)


def hold_out_genes(
    labelled: pl.DataFrame, share: float, rng: np.random.Generator
) -> tuple[str, ...]:
    """Genes that only test: of every group about that share, at least one and never all.

    A group of one gene gives none, and drops out as a class that nobody is judged on.

    Examples
    --------
    >>> wells = pl.DataFrame({"gene": ["A", "B", "C", "D"], "label": ["x", "x", "x", "y"]})
    >>> len(hold_out_genes(wells, 0.3, np.random.default_rng(0)))
    1
    """
    genes = labelled.select("label", "gene").drop_nulls().unique().sort("label", "gene")
    held: list[str] = []
    for _, part in genes.group_by("label", maintain_order=True):
        n_held = min(max(round(share * part.height), 1), part.height - 1)
        held += rng.permutation(part["gene"].to_numpy())[:n_held].tolist()
    return tuple(sorted(held))


def _label(
    joined: pl.DataFrame,
    groups: pl.DataFrame | None,
    knobs: BlocksKnobs,
    left_out: dict[str, list[str]],
) -> pl.Series:
    """Class of each well, null where it has none."""
    if knobs.label.startswith(METADATA):
        if knobs.label not in joined.columns:
            found = [name for name in joined.columns if name.startswith(METADATA)]
            raise UserError(f"label: no column {knobs.label!r} in the wells, found {found}")
        return joined[knobs.label].cast(pl.String)
    if knobs.label == GROUP:
        if groups is None:
            raise UserError("label: 'group' wants a groups file, none was given")
        group_of, left_out["genes_of_several_groups"] = groups_of_genes(groups)
        label = pl.col("gene").replace_strict(group_of, default=None, return_dtype=pl.String)
    elif knobs.label == "condition":
        dose = pl.col("concentration_um").cast(pl.String)
        label = pl.concat_str("perturbation", dose, separator="@", ignore_nulls=True)
        label = pl.when(pl.col("perturbation").is_not_null()).then(label)
    else:
        label = pl.col(knobs.label)
    entering = pl.when(pl.col("role").is_in(knobs.roles)).then(label)
    return joined.select(label=entering).to_series()


def groups_of_genes(groups: pl.DataFrame) -> tuple[dict[str, str], list[str]]:
    """Group of each gene, and the genes of several groups, which have none.

    Examples
    --------
    >>> groups = pl.DataFrame({"group": ["x", "y", "y"], "gene": ["A", "A", "B"]})
    >>> groups_of_genes(groups)
    ({'B': 'y'}, ['A'])
    """
    if not {"group", "gene"} <= set(groups.columns):
        raise UserError(f"groups: columns {groups.columns}, wanted group, gene")
    pairs = groups.select(pl.col("gene", "group").cast(pl.String)).drop_nulls().unique()
    several = pairs.filter(pl.col("gene").is_duplicated())["gene"].unique().sort().to_list()
    single = pairs.filter(~pl.col("gene").is_in(several)).sort("gene")
    return dict(single.rows()), several


def _enough(
    labelled: pl.DataFrame, knobs: BlocksKnobs, left_out: dict[str, list[str]]
) -> pl.DataFrame:
    """Keep classes that can be learned and judged."""
    counts = labelled.group_by("label").agg(
        train=pl.col("is_train").sum(), test=(~pl.col("is_train")).sum()
    )
    enough = (pl.col("train") >= knobs.min_wells) & (pl.col("test") > 0)
    left_out["classes"] = counts.filter(~enough)["label"].sort().to_list()
    kept = counts.filter(enough)["label"].to_list()
    if len(kept) < 2:
        raise UserError(
            f"label {knobs.label!r}: {len(kept)} classes have {knobs.min_wells} training wells"
            f" and one to test on (of {counts.height}), wanted at least two"
        )
    return labelled.filter(pl.col("label").is_in(kept))


def reassign_genes(
    wells: pl.DataFrame, rng: np.random.Generator, held_out: Sequence[str] = ()
) -> pl.Series:
    """Labels after genes were dealt to groups at random, each group as many as before.

    Parameters
    ----------
    wells : DataFrame
        ``gene, label``; wells without a gene keep their label.
    rng : Generator
        Source of randomness.
    held_out : list of str
        Genes that only test; they change places among themselves, so that each group keeps
        its number of genes on either side.

    Returns
    -------
    Series
        The label of each well.
    """
    genes = wells.select("gene", "label").drop_nulls().unique().sort("gene", "label")
    mapping: dict[str, str] = {}
    is_held = genes["gene"].is_in(list(held_out))
    for side in (genes.filter(~is_held), genes.filter(is_held)):
        dealt = rng.permutation(side["label"].to_numpy())
        mapping |= dict(zip(side["gene"], dealt.tolist(), strict=True))
    replaced = pl.col("gene").replace_strict(mapping, default=None, return_dtype=pl.String)
    return wells.select(pl.coalesce(replaced, "label")).to_series()
