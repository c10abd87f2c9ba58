"""A small made-up run: every kind of file that the page reads, written by the formats."""

import numpy as np
import polars as pl

from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.benchmarks import MAGNITUDES
from phenopipe.formats.embeddings import write_embeddings
from phenopipe.formats.funnels import write_funnel
from phenopipe.formats.histories import HISTORY
from phenopipe.formats.images import write_images, write_pixels
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.maps import NEIGHBOURS
from phenopipe.formats.pvalues import COMBINED, PVALUES
from phenopipe.formats.qc import write_metrics, write_qc_wells
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import write_json, write_table
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
        fails_focus=fails,
        score_focus=pl.when(fails).then(3.0 + number / 10).otherwise(0.1),
        fails_saturation=pl.lit(False),
        score_saturation=pl.lit(0.0),
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


def pvalue_rows(rng, experiment=None):
    rows = []
    for number in range(22):
        _, ((name, kind, gene, _, dose),) = treatment(number)
        p = 0.001 if number < 6 else float(rng.random())
        rows.append((f"{SCREEN}|HUVEC|{kind}|none", name, kind, gene, dose, "condition", p))
    for number, gene in enumerate(GENES):
        p = 0.0005 if number < 3 else float(rng.random())
        rows.append((f"{SCREEN}|HUVEC|knockout|none", None, "knockout", gene, None, "gene", p))
    names = ["map_type", "perturbation", "kind", "gene", "concentration_um", "level", "p_value"]
    schema = {name: pl.String for name in names} | {
        "concentration_um": pl.Float64,
        "p_value": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def write_tests(run):
    for encoder in ENCODERS:
        for experiment in EXPERIMENTS:
            names = {"screen": SCREEN, "encoder": encoder, "experiment": experiment}
            frame = pvalue_rows(run.rng).with_columns(
                experiment=pl.lit(experiment),
                n_replicates=pl.lit(2, pl.Int32),
                statistic=pl.lit(0.5),
                q_value=pl.col("p_value"),
                n_null=pl.lit(100, pl.Int32),
                n_labels=pl.lit(20, pl.Int32),
            )
            path = run.at(
                "pvalues", f"consistency/{SCREEN}/{encoder}/{experiment}/pvalues.parquet"
            )
            write_table(path, frame, PVALUES, stamp("consistency", "pvalues", **names))
    combined = pl.concat(
        pvalue_rows(run.rng).with_columns(encoder=pl.lit(encoder)) for encoder in ENCODERS
    ).with_columns(
        n_replicates=pl.lit(6, pl.Int32),
        n_experiments=pl.lit(3, pl.Int32),
        statistic=pl.lit(0.5),
        p_any=pl.col("p_value"),
        q_value=pl.col("p_value"),
        n_null=pl.lit(100, pl.Int32),
    )
    path = run.at("combined", "phenoprints/curated/pvalues.parquet")
    write_table(path, combined, COMBINED, stamp("phenoprints", "combine", manifest="curated"))
    write_funnels(run)


def write_funnels(run):
    sizes = [192, 180, 176, 160, 110, 60]
    words = [
        "screened",
        "data quality",
        "metadata",
        "replication",
        "undersampling",
        "phenoprints",
    ]
    steps = [
        {
            "step": n,
            "name": word,
            "images": size,
            "wells": size,
            "conditions": size // 8,
            "genes": size // 22,
            "compounds": 2,
            "roles": {"perturbation": size - 20, "empty": 20},
        }
        for n, (word, size) in enumerate(zip(words, sizes, strict=True))
    ]
    choice = {
        "evidence": "combined",
        "rescue": "perturbation",
        "levels": ["condition", "gene"],
        "threshold": 0.01,
    }
    others = [
        {
            **choice,
            "evidence": evidence,
            "images": 40,
            "wells": 40,
            "conditions": 9,
            "genes": 3,
            "compounds": 1,
            "noise_admitted": 0.031,
        }
        for evidence in ("combined", "any_experiment")
    ]
    funnel = {
        "steps": steps,
        "flagged": {"focus": 18},
        "untestable": 20,
        "untested": 4,
        "judged": True,
        "choice": choice,
        "noise_admitted": 0.031,
        "alternatives": others,
    }
    names = {"manifest": "curated"}
    write_funnel(
        run.at("funnels", "phenoprints/curated/funnel.json"),
        funnel,
        stamp("phenoprints", "select", **names),
    )
    bare = {"steps": steps[:5], "flagged": {"focus": 18}, "untestable": 20, "judged": False}
    write_funnel(
        run.at("funnels", "phenoprints/everything/funnel.json"),
        bare,
        stamp("phenoprints", "select", manifest="everything"),
    )
    kept = make_wells("one").with_columns(
        saved_by=pl.lit("GENE0_guide_1"), judge=pl.lit("mae"), p_value=pl.lit(0.001)
    )
    write_table(
        run.at("manifests", "phenoprints/curated/manifest.parquet"),
        kept,
        MANIFEST,
        stamp("phenoprints", "select", **names),
    )


def write_training(run):
    n = 500
    history = pl.DataFrame(
        {
            "update": np.arange(1, n + 1),
            "epoch": np.arange(n) / 50,
            "loss": 1 / np.arange(1, n + 1),
            "lr": np.full(n, 1e-3),
            "gradient_norm": np.ones(n),
            "l2": 1 / np.arange(1, n + 1),
            "fourier": 2 / np.arange(1, n + 1),
        }
    )
    path = run.at("histories", "pretrain/mae/history.parquet")
    write_table(path, history, HISTORY, stamp("pretrain", "mae", encoder="mae"))
    image = run.rng.normal(size=(3, 3, 16, 16)).astype(np.float32)
    mask = (run.rng.random((3, 3, 16, 16)) < 0.75).astype(np.uint8)
    np.savez_compressed(
        run.at("reconstructions", "pretrain/mae/reconstructions.npz"),
        input=image,
        output=image,
        mask=mask,
        l2=np.full(5, 0.4),
        channels=np.array(CHANNELS),
        image_id=np.array(["a", "b", "c"]),
    )


def write_scores(run):
    for number, encoder in enumerate(ENCODERS):
        names = {"encoder": encoder, "task": "groups"}
        rows = [
            {
                "block": b,
                "metric": metric,
                "value": value,
                "low": value - 0.05,
                "high": value + 0.05,
                "n": 90,
            }
            for b in (1, 2, 3)
            for metric, value in (
                ("balanced_accuracy", 0.6 - 0.1 * number - 0.02 * abs(b - 2)),
                ("balanced_accuracy_permuted", 0.1),
            )
        ]
        shared = {
            "encoder": encoder,
            "trimmed": False,
            "screen": SCREEN,
            "source": "groups",
            "seed": 0,
        }
        blocks = tidy(rows, benchmark="probe", **shared)
        base = f"probe/{encoder}/groups"
        write_table(
            run.at("blocks", f"{base}/blocks.parquet"),
            blocks,
            RESULTS,
            stamp("probe", "blocks", **names),
        )
        write_json(
            run.at("best", f"{base}/best_block.json"),
            {"block": 2, "share_other_block": 0.2, **names},
            stamp("probe", "blocks", **names),
        )
        write_benchmarks(run, encoder, number)


def write_benchmarks(run, encoder, number):
    names = {"benchmark": "map", "encoder": encoder}
    base = f"benchmark/map/{encoder}"
    shared = {
        "encoder": encoder,
        "benchmark": "map",
        "screen": SCREEN,
        "block": 3,
        "trimmed": False,
    }
    wide = {"low": 0.1, "high": 0.9, "n": 40, "seed": 0}
    tables = {
        "recall": [
            {"source": s, "metric": m, "value": v - 0.1 * number, **wide}
            for s in ("CORUM", "StringDB")
            for m, v in (
                ("recall_all_pairs_0.05_0.95", 0.6),
                ("recall_permuted_all_pairs_0.05_0.95", 0.2),
            )
        ],
        "replicates": [
            {"source": "technical_pairs", "metric": m, "value": v - number, **wide}
            for m, v in (("ks", 2.0), ("cvm", 9.0))
        ],
        "magnitude": [
            {"source": "condition", "metric": m, "value": v, **wide}
            for m, v in (
                ("energy_distance", 3.0),
                ("energy_distance_mad", 0.5),
                ("energy_distance_null", 1.0),
            )
        ],
        "compounds": [
            {"source": "interactions", "metric": f"average_precision_{m}", "value": v, **wide}
            for m, v in (
                ("max", 0.4),
                ("max_sd", 0.03),
                ("0.1um", 0.2),
                ("1um", 0.3),
                ("random", 0.2),
                ("random_sd", 0.04),
            )
        ],
    }
    for test, rows in tables.items():
        path = run.at(test, f"{base}/{test}.parquet")
        write_table(path, tidy(rows, **shared), RESULTS, stamp("benchmark", test, **names))
    sizes = [
        {
            "perturbation": c,
            "kind": "compound",
            "gene": None,
            "concentration_um": d,
            "n_wells": 6,
            "energy_distance": 1 + d,
            "null": 0.8,
            "p_value": 0.01,
        }
        for c in COMPOUNDS
        for d in DOSES
    ]
    schema = {name: dtype for name, (dtype, _) in MAGNITUDES.columns.items()}
    path = run.at("magnitude_perturbations", f"{base}/magnitude_perturbations.parquet")
    write_table(
        path,
        pl.DataFrame(sizes, schema=schema),
        MAGNITUDES,
        stamp("benchmark", "magnitude", **names),
    )
    near = [
        (a, "knockout", None, b, "knockout", None, rank, 0.5 if rank > 0 else -0.5)
        for a in GENES
        for rank, b in ((1, GENES[0]), (2, GENES[1]), (-1, GENES[2]))
        if a != b
    ]
    schema = {name: dtype for name, (dtype, _) in NEIGHBOURS.columns.items()}
    path = run.at("neighbours", f"{base}/neighbours.parquet")
    write_table(
        path,
        pl.DataFrame(near, schema=schema, orient="row"),
        NEIGHBOURS,
        stamp("benchmark", "aggregate", **names),
    )


def write_truth(run):
    rows = [
        {"metric": "qc_recall", "value": 0.95, "low": 0.9, "high": 0.99, "n": 40},
        {"metric": "qc_false_alarms", "value": 0.2, "low": 0.1, "high": 0.3, "n": 400},
    ]
    frame = tidy(
        rows,
        encoder="",
        block=0,
        trimmed=False,
        screen=SCREEN,
        benchmark="truth",
        source="all",
        seed=0,
    )
    write_table(
        run.at("truth", "report/truth.parquet"), frame, RESULTS, stamp("report", "truth")
    )


def write_run(folder):
    run = Run(folder)
    write_screen(run)
    write_embedded(run)
    write_tests(run)
    write_training(run)
    write_scores(run)
    write_truth(run)
    return run
