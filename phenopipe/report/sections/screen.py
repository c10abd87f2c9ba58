"""Section screen: what was done to which well, and what it looks like."""

import polars as pl

from phenopipe.report.pieces import Facts, Fold, Pictures, Piece, Section, Table, table_of, tell

ROLES = ("negative_control", "positive_control", "empty", "perturbation")
EXPERIMENTS_SHOWN = 60


def screen_section(
    counts: pl.DataFrame,
    applied: pl.DataFrame,
    n_sites: int,
    examples: list[tuple[str, str]],
    channels: list[tuple[str, str]],
) -> Section:
    """Tell the size of each screen, and show a few of its sites.

    Parameters
    ----------
    counts : DataFrame
        ``screen, experiment, cell_type, role, n_wells, n_passing, plates``.
    applied : DataFrame
        ``screen, role``, the columns of a condition, ``gene, n_wells``.
    n_sites : int
        Images of all screens.
    examples, channels : list of (uri, label)
        Small pictures of sites, and of the channels of one site.
    """
    if counts.is_empty():
        return Section("screen", "Screen", QUESTION, [], SOURCE)
    n_plates = _plates(counts, "screen", "experiment")["plates"].sum()
    facts = Facts(
        [
            (tell(counts["n_wells"].sum()), "wells"),
            (tell(n_sites), "sites imaged") if n_sites else ("none", "images: profiles only"),
            (tell(n_plates), "plates"),
            (tell(counts.select("screen", "experiment").n_unique()), "experiments"),
            (tell(counts["cell_type"].n_unique()), "cell types"),
        ]
    )
    pieces: list[Piece] = [
        facts,
        _wells_table(counts, ("screen", "cell_type")),
        _conditions_table(applied),
    ]
    if examples:
        pieces.append(
            Pictures(
                examples,
                "Sites of wells that pass qc, each channel in one colour, with the same "
                "contrast for all sites of a screen.",
            )
        )
    if channels:
        pieces.append(Pictures(channels, "One site of each screen, channel by channel."))
    by_experiment = _wells_table(
        counts.sort("screen", "experiment"), ("screen", "experiment", "cell_type")
    )
    left_out = len(by_experiment.rows) - EXPERIMENTS_SHOWN
    note = f" The first {EXPERIMENTS_SHOWN}; {left_out} more." if left_out > 0 else ""
    shown = Table(
        by_experiment.header,
        by_experiment.rows[:EXPERIMENTS_SHOWN],
        "Wells of each experiment by role." + note,
        by_experiment.numeric,
    )
    pieces.append(Fold("Every experiment", [shown]))
    answer = (
        f"{tell(counts['n_wells'].sum())} wells of "
        f"{tell(counts.select('screen', 'experiment').n_unique())} experiments"
    )
    return Section("screen", "Screen", QUESTION, pieces, SOURCE, answer=answer)


QUESTION = "What was done to which well, and where are its pixels?"
SOURCE = "results/screen"


def _plates(counts: pl.DataFrame, *keys: str) -> pl.DataFrame:
    each = pl.struct("screen", "experiment", "plates")
    return (
        counts.explode("plates")
        .group_by(keys, maintain_order=True)
        .agg(plates=each.n_unique(), experiments=pl.col("experiment").n_unique())
    )


def _wells_table(counts: pl.DataFrame, keys: tuple[str, ...]) -> Table:
    """Count plates and wells by role."""
    wide = counts.group_by(keys, maintain_order=True).agg(
        pl.col("n_wells").filter(pl.col("role") == role).sum().alias(role) for role in ROLES
    )
    full = wide.join(_plates(counts, *keys), on=keys, maintain_order="left")
    header = {key: key.replace("_", " ") for key in keys}
    if "experiment" not in keys:
        header["experiments"] = "experiments"
    header |= {"plates": "plates"} | {role: role.replace("_", " ") for role in ROLES}
    return table_of(full, header)


def _conditions_table(applied: pl.DataFrame) -> Table:
    """Count genes, perturbations, concentrations and wells by kind of perturbation."""
    if applied.is_empty():
        return Table(["kind of perturbation"], [["none"]])
    table = applied.group_by("screen", "kind").agg(
        genes=pl.col("gene").drop_nulls().n_unique(),
        perturbations=pl.col("perturbation").n_unique(),
        concentrations=pl.col("concentration_um").drop_nulls().n_unique(),
        conditions=pl.struct("perturbation", "concentration_um").n_unique(),
        wells=pl.col("n_wells").sum(),
    )
    header = {
        "screen": "screen",
        "kind": "kind of perturbation",
        "genes": "target genes",
        "perturbations": "guides or compounds",
        "concentrations": "concentrations",
        "conditions": "conditions",
        "wells": "wells",
    }
    caption = "A condition is a perturbation at one guide or concentration."
    return table_of(table.sort("screen", "kind"), header, caption)
