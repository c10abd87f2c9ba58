"""Step ``classes``: does what acts most alike, of other compounds, have the same class?

A class is what a user's table says of a compound: a mechanism of action, say.

Shape suffixes: R rows of the map, D features, E experiments, K shuffles, B bootstraps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.benchmark.aggregate import aggregate_wells
from phenopipe.benchmark.config import ClassesKnobs
from phenopipe.benchmark.treated import TreatedFiles, unit_rows
from phenopipe.errors import UserError
from phenopipe.formats.arms import ARMS
from phenopipe.formats.benchmarks import NEAREST
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_any, read_table, write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.seeds import generator

KEYS = ("perturbation", "concentration_um")


def read_classes(table: pl.DataFrame, knobs: ClassesKnobs, where: str) -> pl.DataFrame:
    """Take ``perturbation, concentration_um, label`` from a user's table, each row once.

    Raises
    ------
    UserError
        If a column is absent, or one condition has two classes.
    """
    names = {"perturbation": knobs.perturbation, "label": knobs.label}
    names |= {"concentration_um": knobs.concentration} if knobs.concentration else {}
    for name in names.values():
        if name not in table.columns:
            raise UserError(f"{where}: no column {name!r}, found {table.columns}")
    known = table.select(**{ours: pl.col(theirs) for ours, theirs in names.items()})
    known = known.with_columns(pl.col("perturbation", "label").cast(pl.String)).drop_nulls()
    if knobs.concentration:
        known = known.with_columns(pl.col("concentration_um").cast(pl.Float64))
    known = known.unique(maintain_order=True)
    keys = [key for key in KEYS if key in known.columns]
    doubled = known.filter(known.select(keys).is_duplicated())
    if doubled.height:
        raise UserError(f"{where}: two classes for {doubled.select(keys).row(0)}, wanted one")
    return known


def nearest_other(
    table: pl.DataFrame, experiments: pl.DataFrame, labels: pl.DataFrame
) -> pl.DataFrame:
    """Nearest condition of another compound, and of another compound and other batches.

    Parameters
    ----------
    table : DataFrame
        The map format.
    experiments : DataFrame
        ``perturbation, concentration_um, experiment``: where each condition was tested.
    labels : DataFrame
        ``perturbation, label`` and, where classes go by dose, ``concentration_um``.

    Returns
    -------
    DataFrame
        The nearest format. The neighbour without batches is null where every other compound
        shares a batch.

    Raises
    ------
    UserError
        If fewer than two compounds of the map have a class.
    """
    on = [key for key in KEYS if key in labels.columns]
    rows = table.filter(pl.col("kind") == "compound").rename({"entity": "perturbation"})
    rows = rows.join(labels, on=on, how="inner").sort(KEYS)
    if rows["perturbation"].n_unique() < 2:
        raise UserError(
            f"{rows['perturbation'].n_unique()} compounds of the map have a class,"
            " wanted at least two"
        )
    unit_RD = unit_rows(rows["embedding"].to_numpy(), rows["perturbation"].to_list())
    cosine_RR = unit_RD @ unit_RD.T.copy()
    compound_R = rows["perturbation"].to_numpy().astype(np.str_)
    other_RR = compound_R[:, None] != compound_R[None, :]
    apart_RR = other_RR & ~_share_a_batch(rows, experiments)
    found = rows.select(*KEYS, "label")
    for name, allowed_RR in (("nearest", other_RR), ("nearest_apart", apart_RR)):
        allowed_cosine_RR = np.where(allowed_RR, cosine_RR, -np.inf)
        at_R = allowed_cosine_RR.argmax(axis=1)
        has_R = pl.Series(allowed_RR.any(axis=1))
        told = found[at_R].with_columns(
            cosine=pl.Series(np.take_along_axis(cosine_RR, at_R[:, None], 1)[:, 0])
        )
        found = found.with_columns(
            pl.when(has_R).then(told[column]).alias(f"{name}_{column}")
            for column in ("perturbation", "label", "cosine")
        )
    return found


def _share_a_batch(rows: pl.DataFrame, experiments: pl.DataFrame) -> NDArray[np.bool_]:
    """Whether two conditions were tested in one experiment."""
    numbered = rows.select(KEYS).with_row_index("row")
    tested = experiments.join(numbered, on=list(KEYS), nulls_equal=True)
    names = tested["experiment"].unique().sort().to_list()
    in_RE = np.zeros((rows.height, len(names)), dtype=np.int32)
    at_E = np.searchsorted(names, tested["experiment"].to_numpy().astype(np.str_))
    in_RE[tested["row"].to_numpy(), at_E] = 1
    return np.asarray(in_RE @ in_RE.T.copy() > 0)


def summarize_nearest(found: pl.DataFrame, knobs: ClassesKnobs) -> list[dict[str, Any]]:
    """Rows of results: share of conditions whose nearest neighbour has their class.

    Returns
    -------
    list of mapping
        Metrics ``same_class`` (not the same compound; "NSC") and ``same_class_apart`` (nor a
        batch in common; "NSCB"), with an interval by resampling compounds, and each with
        ``..._permuted``: classes dealt anew among compounds.
    """
    compound_R = found["perturbation"].to_numpy().astype(np.str_)
    compounds, code_R = np.unique(compound_R, return_inverse=True)
    rows: list[dict[str, Any]] = []
    for metric, name in (("same_class", "nearest"), ("same_class_apart", "nearest_apart")):
        asked = found[f"{name}_label"].is_not_null().to_numpy()
        if not asked.any():
            continue
        right_R = (found["label"] == found[f"{name}_label"]).fill_null(False).to_numpy()
        right_C = np.bincount(code_R[asked], right_R[asked], len(compounds))
        n_C = np.bincount(code_R[asked], minlength=len(compounds))
        rng = generator(knobs.seed, "classes", "bootstrap", name)
        drawn_BC = rng.multinomial(
            len(compounds), np.full(len(compounds), 1 / len(compounds)), knobs.bootstraps
        )
        share_B = (drawn_BC @ right_C) / np.maximum(drawn_BC @ n_C, 1)
        low, high = np.quantile(share_B, [0.025, 0.975])
        shared = {"source": "classes", "n": int(asked.sum()), "seed": knobs.seed}
        value = right_R[asked].mean()
        rows.append(shared | {"metric": metric, "value": value, "low": low, "high": high})
        dealt_K = _dealt(found.filter(pl.Series(asked)), name, knobs)
        low, high = np.quantile(dealt_K, [0.025, 0.975])
        rows.append(
            shared
            | {
                "metric": f"{metric}_permuted",
                "value": dealt_K.mean(),
                "low": low,
                "high": high,
            }
        )
    return rows


def _dealt(found: pl.DataFrame, name: str, knobs: ClassesKnobs) -> NDArray[np.float64]:
    """Share of equal classes after classes were dealt anew among compounds."""
    # A compound with several classes keeps the first: dealing must not split it.
    own = found.unique("perturbation", keep="first").sort("perturbation")
    names, label_C = own["perturbation"].to_list(), own["label"].to_numpy()
    near = found[f"{name}_perturbation"]
    known = near.is_in(names)
    found, near = found.filter(known), near.filter(known)
    first_R = np.searchsorted(names, found["perturbation"].to_numpy().astype(np.str_))
    second_R = np.searchsorted(names, near.to_numpy().astype(np.str_))
    rng = generator(knobs.seed, "classes", "permuted", name)
    shares = []
    for _ in range(knobs.permutations):
        dealt_C = rng.permutation(label_C)
        shares.append((dealt_C[first_R] == dealt_C[second_R]).mean())
    return np.array(shares, dtype=np.float64)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``benchmark_classes``."""
    files, knobs = parse_step(
        ClassesKnobs,
        inputs=["aligned*", "arms?", "labels"],
        outputs=["classes", "nearest"],
        names=["benchmark", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    arms = read_table(files.arms, ARMS) if files.arms else None
    labels = read_classes(read_any(files.labels), knobs, str(files.labels))
    treated = TreatedFiles(files.aligned, arms, knobs)
    tested = pl.concat(one.wells.select(*KEYS, "experiment").unique() for one in treated)
    table = aggregate_wells(treated, aggregation=knobs.aggregation)
    found = nearest_other(table, tested.unique().drop_nulls("perturbation"), labels)
    results = tidy(
        summarize_nearest(found, knobs),
        encoder=files.encoder,
        benchmark=files.benchmark,
        **treated.facts,
    )
    write_table(files.classes, results, RESULTS, files.stamp)
    write_table(files.nearest, found, NEAREST, files.stamp)


if __name__ == "__main__":
    run_step(main)
