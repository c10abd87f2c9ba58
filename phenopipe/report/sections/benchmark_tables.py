"""Tables of benchmarks in the shape of the paper's Tables 1 and 3, best values in bold."""

import polars as pl

from phenopipe.report.pieces import Table, tell
from phenopipe.report.scoreboard import recall_metric, tails_of

HOW_TO_READ = "b: the block that embeds. Higher is better, best in bold."


def _cells(part: pl.DataFrame, columns: dict[str, tuple[str, str | None]]) -> pl.DataFrame:
    """One row an encoder, one column for each (metric, source) wanted."""
    frames = part.group_by("encoder").agg(pl.col("block").max(), pl.col("trimmed").first())
    for name, (metric, source) in columns.items():
        chosen = part.filter(pl.col("metric") == metric)
        if source is not None:
            chosen = chosen.filter(pl.col("source") == source)
        values = chosen.group_by("encoder").agg(pl.col("value").first().alias(name))
        frames = frames.join(values, on="encoder", how="left")
    return frames.sort("encoder")


def recall_table(part: pl.DataFrame) -> Table | None:
    """Lay out recall by source and replicate consistency as the paper's Table 1."""
    metric = recall_metric(part)
    sources = sorted(part.filter(pl.col("metric") == metric)["source"].unique())
    columns: dict[str, tuple[str, str | None]] = {s: (metric, s) for s in sources}
    columns |= {n.upper(): (n, None) for n in ("ks", "cvm") if n in part["metric"].to_list()}
    if not columns:
        return None
    frame = _cells(part, columns)
    told = []
    if sources:
        null = "sampled null" if "sampled" in metric else "all pairs as null"
        tails, chance = tails_of(metric)
        told.append(
            f"Recall of known pairs in the tails of cosines at {tails}, by source ({null}; "
            f"chance {chance:.2f})."
        )
    if len(columns) > len(sources):
        told.append(
            "Replicate consistency (KS, CVM): medians over the technical pairs that all "
            "encoders have alike."
        )
    told.append(f"{HOW_TO_READ} Shape: paper Table 1.")
    return _ranked_table(frame, list(columns), " ".join(told))


def compound_table(part: pl.DataFrame) -> Table | None:
    """Lay out compound-gene precision and magnitude as the paper's Table 3."""
    names = part["metric"].to_list()
    columns: dict[str, tuple[str, str | None]] = {}
    if "average_precision_max" in names:
        columns |= {"avg. precision": ("average_precision_max", None)}
        columns |= {"± sd": ("average_precision_max_sd", None)}
    if "energy_distance" in names:
        columns |= {"energy distance": ("energy_distance", None)}
        columns |= {"± MAD": ("energy_distance_mad", None)}
    if not columns:
        return None
    frame = _cells(part, columns)
    if "avg. precision" in columns:
        frame = frame.with_columns(_z_of_precision(part))
        columns["z of precision"] = ("", None)
    if "energy distance" in columns:
        frame = frame.with_columns(_z_of_energy(part, frame))
        columns["z of energy"] = ("", None)
    order = [
        "avg. precision", "± sd", "z of precision", "energy distance", "± MAD", "z of energy",
    ]  # fmt: skip
    told = []
    if "avg. precision" in columns:
        told.append(
            "Mean average precision of compound-gene retrieval at the best concentration, ± sd "
            "over seeds, z over random scores."
        )
    if "energy distance" in columns:
        told.append(
            "Mean energy distance from the controls, ± MAD over conditions, z over as many "
            "control wells."
        )
    told.append(f"{HOW_TO_READ} Shape: paper Table 3.")
    shown = [name for name in order if name in columns]
    return _ranked_table(frame, shown, " ".join(told), spreads=("±",))


def _z_of_precision(part: pl.DataFrame) -> pl.Series:
    """Distance from the random baseline in standard deviations of both."""
    frame = _cells(
        part,
        {
            "m": ("average_precision_max", None),
            "s": ("average_precision_max_sd", None),
            "r": ("average_precision_random", None),
            "t": ("average_precision_random_sd", None),
        },
    )
    z = (frame["m"] - frame["r"]) / (frame["s"] ** 2 + frame["t"] ** 2).sqrt()
    return z.rename("z of precision")


def _z_of_energy(part: pl.DataFrame, frame: pl.DataFrame) -> pl.Series:
    """Distance from the mean of the null in median absolute deviations of the model."""
    null = _cells(part, {"null": ("energy_distance_null", None)})["null"].cast(pl.Float64)
    return ((frame["energy distance"] - null) / frame["± MAD"]).rename("z of energy")


def _ranked_table(
    frame: pl.DataFrame, names: list[str], caption: str, spreads: tuple[str, ...] = ()
) -> Table:
    """Write a table of encoders with the best value of each column in bold."""
    rows, best = [], set()
    for at, row in enumerate(frame.iter_rows(named=True)):
        for number, name in enumerate(names):
            top = frame[name].cast(pl.Float64).max()
            if (
                row[name] is not None
                and row[name] == top
                and not name.startswith(spreads or "\0")
            ):
                best.add((at, number + 3))
        block = str(row["block"]) if row["block"] else "–"
        trimmed = "trimmed" if row["trimmed"] else ""
        rows.append([row["encoder"], trimmed, block, *(tell(row[name]) for name in names)])
    numeric = frozenset(range(2, len(names) + 3))
    return Table(["encoder", "", "b", *names], rows, caption, numeric, frozenset(best))
