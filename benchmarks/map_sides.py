"""The two sides of ``map_speed.py``, each in a process and an environment of its own.

    python benchmarks/map_sides.py ours recall_core FOLDER

Prints seconds, peak memory and values as one line of JSON. What either side imports stands
inside of its functions: the reference's environment knows nothing of ours.
"""

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np

SOURCES = ("CORUM", "HuMAP", "Reactome", "StringDB")
FILES = (*SOURCES, "SIGNOR")
THRESHOLDS = ((0.05, 0.95), (0.1, 0.9))
COMPOUNDS, GENES, DOSES, SEEDS = 1_674, 735, 8, 100


def peak_memory():
    """Peak of this process in GB: ru_maxrss would count what its parent held when it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e6


def clock():
    return time.perf_counter(), time.process_time()


def elapsed(started):
    return {"wall": time.perf_counter() - started[0], "cpu": time.process_time() - started[1]}


def made_map(shape, seed=0):
    """Genes that are alike in groups of eight, single precision as maps are stored."""
    rng = np.random.default_rng(seed)
    group_GD = rng.standard_normal((shape[0] // 8 + 1, shape[1]), dtype=np.float32)
    x_GD = rng.standard_normal(shape, dtype=np.float32)
    x_GD += 0.35 * group_GD[np.arange(shape[0]) // 8]
    return x_GD


def made_pairs(n_genes, seed):
    """20,000 pairs, a third of them of one group."""
    rng = np.random.default_rng([1, seed])
    first = rng.integers(n_genes, size=20_000)
    near = np.minimum(first // 8 * 8 + rng.integers(8, size=20_000), n_genes - 1)
    second = np.where(rng.random(20_000) < 1 / 3, near, rng.integers(n_genes, size=20_000))
    return first, second


def named(n_genes):
    return [f"G{at:05d}" for at in range(n_genes)]


# the reference, in its own environment


def peer(task, folder):
    try:
        import efaar_benchmarking.benchmarking as reference
        import pandas as pd
        from efaar_benchmarking import constants
        from sklearn.utils import Bunch
    except ImportError:
        sys.exit("efaar-benchmarking 1.0 is not installed here: see benchmarks/README.md")
    if task == "where":
        return {"folder": constants.BENCHMARK_DATA_DIR}
    if task == "magnitude":
        x_WD, label_W = np.load(folder / "wells.npy"), np.load(folder / "labels.npy")
        metadata = pd.DataFrame({"pert": label_W})
        started = clock()
        with contextlib.redirect_stdout(sys.stderr):
            # Ten conditions stand for its null; it computes the same for every condition.
            found = reference.pert_signal_magnitude_benchmark(
                x_WD, metadata, "pert", [f"p{at:04d}" for at in range(10)], "control", n_jobs=1
            )
        spent = elapsed(started)
        return {**spent, "values": dict(zip(found.pert, found.edist, strict=True))}
    genes = json.loads((folder / "genes.json").read_text())
    x_GD = np.load(folder / "map.npy")
    x_GD = x_GD.astype(np.float64) if task == "recall_files" else x_GD
    data = Bunch(features=pd.DataFrame(x_GD), metadata=pd.DataFrame({"gene": genes}))
    sources = list(FILES if task == "recall_files" else SOURCES)
    if task == "recall_core":
        held = {
            name: reference.filter_relationships(
                pd.DataFrame(
                    {f"entity{k + 1}": np.array(genes)[side] for k, side in enumerate(pair)}
                )
            )
            for name, pair in ((n, made_pairs(len(genes), at)) for at, n in enumerate(sources))
        }
        reference.get_benchmark_relationships = lambda folder, source: held[source]
    started = clock()
    found = reference.known_relationship_benchmark(data, "gene", sources)
    spent, found = elapsed(started), found.set_index("source")
    return {
        **spent,
        "values": {
            f"{source}_{low:g}_{high:g}": float(found.loc[source, f"recall_{low}_{high}"])
            for source in sources
            for low, high in THRESHOLDS
        },
    }


# ours


def table_of(x_GD, genes):
    import polars as pl

    embedding = pl.Series("embedding", x_GD, dtype=pl.Array(pl.Float32, x_GD.shape[1]))
    frame = pl.DataFrame({"entity": genes}).with_columns(embedding, kind=pl.lit("knockout"))
    return frame.with_columns(concentration_um=pl.lit(None, pl.Float64))


def ours(task, folder):
    if task == "magnitude":
        return our_magnitude(folder)
    if task == "compounds":
        return our_compounds()
    import polars as pl

    from phenopipe.benchmark.config import RecallKnobs
    from phenopipe.benchmark.pairs import read_pairs
    from phenopipe.benchmark.sources import score_sources

    genes = json.loads((folder / "genes.json").read_text())
    table = table_of(np.load(folder / "map.npy"), genes)
    whole = task in ("recall_whole", "recall_seeds")
    few = {} if whole else {"bootstraps": 1, "permutations": 1}
    nulls = ("sampled",) if task == "recall_seeds" else ("all_pairs",)
    names = np.array(genes)
    pairs = {
        name: pl.DataFrame({"entity1": names[one], "entity2": names[two]})
        for name, (one, two) in (
            (n, made_pairs(len(genes), at)) for at, n in enumerate(SOURCES)
        )
    }
    started = clock()
    if task == "recall_files":
        where = Path(json.loads((folder / "where.json").read_text())["folder"])
        pairs = {name: read_pairs(where / f"{name}.txt") for name in FILES}
    rows, _ = score_sources(table, pairs, RecallKnobs(nulls=nulls, **few))
    return {
        **elapsed(started),
        "values": {
            f"{row['source']}_{low:g}_{high:g}": row["value"]
            for row in rows
            for low, high in THRESHOLDS
            if row["metric"] == f"recall_{nulls[0]}_{low:g}_{high:g}"
        },
    }


def our_magnitude(folder):
    from phenopipe.benchmark.magnitude import Controls, energy_distance
    from phenopipe.threads import side_by_side

    x_WD, label_W = np.load(folder / "wells.npy"), np.load(folder / "labels.npy")
    control_W = label_W == "control"
    names = np.unique(label_W[~control_W])
    started = clock()
    order_W = np.argsort(label_W, kind="stable")
    first = np.searchsorted(label_W[order_W], names)
    last = np.searchsorted(label_W[order_W], names, "right")
    controls = Controls(x_WD[control_W])
    samples = (x_WD[order_W[a:b]] for a, b in zip(first, last, strict=True))
    values = list(side_by_side(controls.energy, samples))
    spent = elapsed(started)
    exact = [
        energy_distance(x_WD[order_W[first[at] : last[at]]], x_WD[control_W])
        for at in range(0, len(names), 50)
    ]
    off = max(abs(values[50 * at] / one - 1) for at, one in enumerate(exact))
    named_values = dict(zip(names.tolist(), values, strict=True))
    return {**spent, "values": named_values, "off": off}


def our_compounds():
    import polars as pl

    from phenopipe.benchmark.compounds import score_compounds
    from phenopipe.benchmark.config import CompoundsKnobs

    rng = np.random.default_rng(3)
    genes, compounds = named(GENES), [f"c_{at:04d}" for at in range(COMPOUNDS)]
    doses = [0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0]
    x_RD = rng.standard_normal((COMPOUNDS * DOSES + GENES, 128)).astype(np.float32)
    table = pl.DataFrame(
        {
            "entity": np.repeat(compounds, DOSES).tolist() + genes,
            "kind": ["compound"] * (COMPOUNDS * DOSES) + ["knockout"] * GENES,
            "concentration_um": doses * COMPOUNDS + [None] * GENES,
            "embedding": pl.Series(x_RD, dtype=pl.Array(pl.Float32, 128)),
        }
    )
    # Every compound has one to four targets, so that every one is asked about.
    treatment = np.repeat(compounds, rng.integers(1, 5, COMPOUNDS)).tolist()
    target = rng.choice(genes, len(treatment)).tolist()
    truth = pl.DataFrame(
        {
            "treatment": treatment + ["elsewhere"] * GENES,
            "gene_symbol": target + genes,
            "nM_value": [10.0] * len(treatment) + [9e9] * GENES,
        }
    )
    started = clock()
    with contextlib.redirect_stdout(sys.stderr):
        rows = score_compounds(table, truth, CompoundsKnobs(seeds=SEEDS))
    return {
        **elapsed(started),
        "values": {row["metric"]: float(row["value"]) for row in rows},
    }


def main():
    side, task, folder = sys.argv[1:]
    found = {"ours": ours, "peer": peer}[side](task, Path(folder))
    print(json.dumps({**found, "peak": peak_memory()}, default=float))


if __name__ == "__main__":
    main()
