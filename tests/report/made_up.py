"""A small made-up run: the wells of a screen, its pixels and embeddings."""

import numpy as np
import polars as pl

from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.controls import CONTROLS
from phenopipe.formats.embeddings import write_embeddings
from phenopipe.formats.images import write_images, write_pixels
from phenopipe.formats.qc import DEFECTS, write_defects, write_metrics, write_qc_wells
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import write_table
from phenopipe.formats.wells import TREATMENT, well_name, write_wells

SCREEN = "made"
EXPERIMENTS = ("one", "two", "three")
ENCODERS = ("mae", "untrained")
GENES = [f"GENE{n}" for n in range(8)]
COMPOUNDS = ["aspirin", "brefeldin"]
DOSES = [0.1, 1.0, 10.0]
SIDE, CHANNELS = 24, ["DNA", "ER", "actin"]
DIM, BLOCKS = 6, 3
# 16 guides, 6 compound doses, 8 negative controls, 2 positive controls: one plate of 32.
N_WELLS = 32


def stamp(stage, step, **names):
    return {
        "stage": stage,
        "step": step,
        "version": "0.1.0",
        "names": names,
        "knobs": {"seed": 0, "n_null": 100},
        "inputs": {"x": [str(sorted(names.items()))]},
    }


def treatment(number):
    """Role and treatments of the wells of a plate, in order."""
    if number < 16:
        gene, guide = GENES[number // 2], number % 2 + 1
        name = f"{gene}_guide_{guide}"
        return "perturbation", [(name, "knockout", gene, name, None)]
    if number < 22:
        compound, dose = COMPOUNDS[(number - 16) // 3], DOSES[(number - 16) % 3]
        return "perturbation", [(compound, "compound", None, None, dose)]
    if number < 30:
        return "negative_control", []
    return "positive_control", [("PLK1_guide_1", "knockout", "PLK1", "PLK1_guide_1", None)]


def make_wells(experiment):
    fields = [field.name for field in TREATMENT.fields]
    rows = []
    for plate in ("P1", "P2"):
        for number in range(N_WELLS):
            role, treatments = treatment(number)
            row, column = number // 8 + 1, number % 8 + 1
            well = well_name(row, column)
            rows.append(
                {
                    "screen": SCREEN,
                    "experiment": experiment,
                    "plate": plate,
                    "well": well,
                    "row": row,
                    "column": column,
                    "cell_type": "HUVEC",
                    "role": role,
                    "treatments": [dict(zip(fields, t, strict=True)) for t in treatments],
                    "layout": "A",
                    "well_id": f"{experiment}/{plate}/{well}",
                }
            )
    schema = {"row": pl.Int32, "column": pl.Int32, "treatments": pl.List(TREATMENT)}
    return pl.DataFrame(rows, schema_overrides=schema)


def flagged(wells):
    """Every eleventh well is out of focus; its score says how far."""
    number = pl.int_range(pl.len())
    fails = number % 11 == 5
    return wells.with_columns(
        n_images=pl.lit(1, pl.Int32),
        fails_focus=fails,
        score_focus=pl.when(fails).then(3.0 + number / 10).otherwise(0.1),
        fails_saturation=pl.lit(False),
        score_saturation=pl.lit(0.0),
        limit_focus=pl.lit(2.5),
        limit_saturation=pl.lit(0.2),
        fails_experiment=pl.lit(False),
        score_experiment=pl.lit(0.1),
        limit_experiment=pl.lit(0.5),
        score_controls=pl.lit(14.0),
        limit_controls=pl.lit(1.0),
        passes=~fails,
        reason=pl.when(fails).then(pl.lit("focus")).otherwise(pl.lit("")),
    )


class Run:
    """The made-up run under a folder; ``files`` lists its paths by flag."""

    def __init__(self, folder):
        self.folder = folder
        self.rng = np.random.default_rng(0)
        self.files = {}

    def at(self, flag, path):
        full = self.folder / path
        full.parent.mkdir(parents=True, exist_ok=True)
        self.files.setdefault(flag, []).append(full)
        return full

    def flags(self, *leave_out):
        """Write the run as the command line of the page, some flags apart."""
        given = []
        for flag, paths in self.files.items():
            if flag not in leave_out:
                given += [f"--{flag.replace('_', '-')}", *map(str, paths)]
        return given


def write_screen(run, with_pixels=True):
    for experiment in EXPERIMENTS:
        names = {"screen": SCREEN, "experiment": experiment}
        base = f"screen/{SCREEN}/{experiment}"
        wells = make_wells(experiment)
        write_wells(
            run.at("wells", f"{base}/wells.parquet"),
            wells,
            stamp("screen", "simulate", **names),
        )
        sites = [f"{well_id}/1" for well_id in wells["well_id"]]
        if with_pixels:
            n = len(sites)
            images = pl.DataFrame(
                {
                    "image_id": sites,
                    "well_id": wells["well_id"],
                    "site": [1] * n,
                    "height": [SIDE] * n,
                    "width": [SIDE] * n,
                    "channels": [3] * n,
                    "index": list(range(n)),
                    "uri": [None] * n,
                },
                schema_overrides={
                    "site": pl.Int32,
                    "height": pl.Int32,
                    "width": pl.Int32,
                    "channels": pl.Int32,
                    "uri": pl.String,
                },
            )
            write_images(
                run.at("images", f"{base}/images.parquet"),
                images,
                stamp("screen", "simulate", **names),
            )
            pixels = run.rng.integers(0, 255, (n, 3, SIDE, SIDE)).astype(np.uint8)
            write_pixels(
                run.at("pixels", f"{base}/images.zarr"),
                pixels,
                shape=pixels.shape,
                channels=CHANNELS,
                dtype="uint8",
                stamp=stamp("screen", "simulate", **names),
            )
        flags = flagged(wells)
        write_qc_wells(
            run.at("flags", f"qc/{SCREEN}/{experiment}/wells.parquet"),
            flags,
            stamp("qc", "wells", **names),
        )
        metrics = pl.DataFrame({"image_id": sites, "well_id": wells["well_id"]}).with_columns(
            focus=pl.Series(run.rng.normal(size=len(sites))),
            constant=pl.lit(1.0),
            foreground=pl.Series(run.rng.random(len(sites))),
        )
        write_metrics(
            run.at("metrics", f"qc/{SCREEN}/{experiment}/metrics.parquet"),
            metrics,
            stamp("qc", "images", **names),
        )
    defect = {
        "experiment": EXPERIMENTS[0],
        "plate": "P1",
        "level": "well",
        "defect": "well_without_image",
        "n": 2,
        "n_checked": N_WELLS,
        "examples": "one/P1/A01, one/P1/A02",
        "mend": "bring its images",
    }
    schema = {name: dtype for name, (dtype, _) in DEFECTS.columns.items()}
    write_defects(
        run.at("defects", f"qc/{SCREEN}/defects.parquet"),
        pl.DataFrame([defect], schema=schema),
        stamp("qc", "check", screen=SCREEN),
    )


def write_embedded(run):
    """Raw embeddings carry a shift of each experiment that aligned ones don't have."""
    for encoder in ENCODERS:
        for number, experiment in enumerate(EXPERIMENTS):
            names = {"screen": SCREEN, "encoder": encoder, "experiment": experiment}
            wells = flagged(make_wells(experiment))
            x_WBD = run.rng.normal(size=(wells.height, BLOCKS, DIM)).astype(np.float32)
            store = run.at("embeddings", f"embed/{SCREEN}/{encoder}/{experiment}.zarr")
            write_embeddings(
                store,
                x_WBD + 6 * number,
                wells["well_id"].to_list(),
                block_numbers=[1, 2, 3],
                block_dims=[DIM] * 3,
                stamp=stamp("embed", "wells", **names),
                attributes={"pooling": "mean", "crops_a_well": 4},
            )
            kept = wells.with_row_index("at").filter("passes")
            fitted = kept.select(
                *make_wells(experiment).columns, fitted=pl.int_range(pl.len()) % 2 == 0
            )
            path = run.at(
                "aligned", f"align/{SCREEN}/{encoder}/{experiment}/embeddings.parquet"
            )
            write_aligned(
                path, fitted, x_WBD[kept["at"].to_numpy(), -1], stamp("align", "apply", **names)
            )
        write_alignment(run, encoder)


def write_alignment(run, encoder):
    """Write what alignment measures of itself: experiments told apart, then no longer."""
    names = {"screen": SCREEN, "encoder": encoder}
    measured = {
        "experiments_apart_before": 0.97,
        "experiments_apart_after": 0.36,
        "experiments_apart_chance": 0.5,
        "replicates_rank_before": 0.51,
        "replicates_rank_after": 0.83,
    }
    rows = [
        {"metric": metric, "source": "HUVEC", "value": value, "low": value, "high": value}
        for metric, value in measured.items()
    ]
    table = tidy(rows, **names, benchmark="alignment", n=40, block=3, trimmed=False, seed=0)
    path = run.at("measures", f"align/{SCREEN}/{encoder}/measures.parquet")
    write_table(path, table, RESULTS, stamp("align", "measure", **names))
    told = {"n_features": DIM, "n_constant": 0, "n_kept": DIM, "n_dropped": 0}
    spread = {"largest": 2.0, "smallest": 0.5, "condition": 4.0}
    rows = [
        {"experiment": None, "n_controls": 14, "rank": DIM, "n_unscaled": 0},
        {"experiment": "few-controls", "n_controls": 3, "rank": 2, "n_unscaled": DIM - 2},
        {"experiment": "enough", "n_controls": 11, "rank": DIM, "n_unscaled": 0},
    ]
    controls = pl.DataFrame(
        [{**told, **spread, **row} for row in rows], schema=CONTROLS.empty().schema
    )
    path = run.at("controls", f"align/{SCREEN}/{encoder}/controls.parquet")
    write_table(path, controls, CONTROLS, stamp("align", "fit", **names))
