"""The rest of a small made-up run: every table that the page reads of the later stages."""

import imagecodecs
import numpy as np
import polars as pl

from phenopipe.formats.benchmarks import MAGNITUDES
from phenopipe.formats.fingerprint import fingerprint
from phenopipe.formats.funnels import write_funnel
from phenopipe.formats.histories import HISTORY
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.maps import MAP, NEIGHBOURS
from phenopipe.formats.pvalues import COMBINED, PVALUES
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import write_json, write_table
from tests.report.made_up import (
    CHANNELS,
    COMPOUNDS,
    DOSES,
    ENCODERS,
    EXPERIMENTS,
    GENES,
    SCREEN,
    Run,
    make_wells,
    stamp,
    treatment,
    write_embedded,
    write_screen,
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
    found = [
        {"metric": f"{metric}_{when}", "value": value, "n": 100}
        for metric, value in (("effective_rank", 12.5), ("share_different", 0.4))
        for when in ("before", "after")
    ]
    shared = {"encoder": "mae", "block": 0, "trimmed": False, "source": "curated"}
    write_table(
        run.at("diversity", "phenoprints/curated/diversity.parquet"),
        tidy(found, benchmark="diversity", **shared),
        RESULTS,
        stamp("phenoprints", "diversity", **names),
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
    for manifest in ("curated", "everything"):
        write_table(
            run.at("manifests", f"phenoprints/{manifest}/manifest.parquet"),
            kept,
            MANIFEST,
            stamp("phenoprints", "select", manifest=manifest),
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
    # The judge learned from everything, and what it kept trains another.
    for encoder, manifest in (("mae", "everything"), ("mae-again", "curated")):
        learned = fingerprint(run.folder / f"phenoprints/{manifest}/manifest.parquet")
        made_by = stamp("pretrain", "mae", encoder=encoder)
        made_by["inputs"] = {"manifest": [learned]}
        path = run.at("histories", f"pretrain/{encoder}/history.parquet")
        write_table(path, history, HISTORY, made_by)
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
    panels = run.at("panels", "pretrain/mae/panels")
    panels.mkdir()
    for update in (50, 100, 150, 200):
        picture = np.full((4, 4), update, dtype=np.uint8)
        (panels / f"update-{update:09d}.png").write_bytes(imagecodecs.png_encode(picture))


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
        "classes": [
            {"source": "classes", "metric": m, "value": v, **wide}
            for m, v in (("same_class", 0.625), ("same_class_permuted", 0.0625))
        ],
    }
    for test, rows in tables.items():
        path = run.at(test, f"{base}/{test}.parquet")
        write_table(path, tidy(rows, **shared), RESULTS, stamp("benchmark", test, **names))
    bias = [
        {"source": "all arms", "metric": metric, "value": value, **wide}
        for metric, value in (
            ("within_arm_before", 0.7),
            ("within_arm_after", 0.51),
            ("arms_corrected", 2.0),
            ("genes_corrected", 20.0),
        )
    ]
    path = run.at("arm_bias", f"{base}/arms.parquet")
    write_table(path, tidy(bias, **shared), RESULTS, stamp("benchmark", "arms", **names))
    width = pl.Array(pl.Float32, 4)
    table = pl.DataFrame({"entity": GENES, "kind": ["knockout"] * len(GENES)}).with_columns(
        concentration_um=pl.lit(None, pl.Float64),
        n_wells=pl.lit(2, pl.Int32),
        embedding=pl.Series(
            run.rng.normal(size=(len(GENES), 4)).astype(np.float32), dtype=width
        ),
    )
    made_by = stamp("benchmark", "aggregate", **names)
    write_table(run.at("maps", f"{base}/map.parquet"), table, MAP, made_by)
    about = {"kind": "mae", "training_flops": 10.0 ** (15 + number), "trained_on": f"m{number}"}
    write_json(run.at("encoders", f"encoders/{encoder}/config.json"), about, {})
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
