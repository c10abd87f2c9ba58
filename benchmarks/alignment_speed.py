"""Time typical variation normalization against the reference, and weigh it on a million wells.

    OMP_NUM_THREADS=1 python benchmarks/alignment_speed.py --peer-python PEER/bin/python

The peer is `tvn_on_controls` of efaar-benchmarking 1.0 (see benchmarks/README.md), which needs
an environment of its own; without --peer-python this one is tried. Three parts:

1. 50,000 wells of 384 features in 50 experiments, a fifth of them controls: both on the same
   array, in turn, medians of repeats, imports and reading apart; inner products of 2,000
   aligned wells are compared (axes may point either way).
2. 1,000,000 wells of 384 features in 50 experiments on disk, through the steps moments, fit,
   center and apply: time and peak memory of one process that runs them all.
3. Variances along principal axes whose spread is 10^8, from float32 wells in 50 parts, against
   a singular value decomposition in float64; beside it, what scikit-learn's PCA makes of them.

Prints one line a figure: name, figure, unit, bound. Exits with 1 if a bound is not kept.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_EXPERIMENTS, N_FEATURES, COMPARED = 50, 384, 2000
SMALL, LARGE = 50_000, 1_000_000


def say(name, figure, unit, bound="", kept=True):
    print(
        f"{name:46s} {figure:>12.4g} {unit:8s} {bound}{'' if kept else '  NOT KEPT'}",
        flush=True,
    )
    return kept


def batch(number, n_wells):
    """Wells of one experiment: correlated features, with a shift and scales of its own."""
    mixing_DD = np.random.default_rng(1).normal(size=(N_FEATURES, N_FEATURES))
    rng = np.random.default_rng([2, number])
    x_WD = rng.standard_normal((n_wells, N_FEATURES), dtype=np.float32) @ mixing_DD
    scale_D, shift_D = rng.gamma(9, 1 / 9, N_FEATURES), 3 * rng.normal(size=N_FEATURES)
    return (x_WD * scale_D + shift_D).astype(np.float32)


def peer_worker(folder):
    """Align with the reference, in its own environment; prints seconds."""
    try:
        import pandas as pd
        from efaar_benchmarking.efaar import tvn_on_controls
    except ImportError:
        sys.exit("efaar-benchmarking 1.0 is not installed here: see benchmarks/README.md")
    x_WD, control_W = np.load(folder / "x.npy"), np.load(folder / "control.npy")
    metadata = pd.DataFrame(
        {
            "role": np.where(control_W, "control", "treated"),
            "experiment": np.load(folder / "experiment.npy"),
        }
    )
    started, cpu = time.perf_counter(), time.process_time()
    aligned_WD = tvn_on_controls(x_WD, metadata, "role", "control", "experiment")
    print(time.perf_counter() - started, time.process_time() - cpu)
    np.save(folder / "peer.npy", np.real(aligned_WD[:: SMALL // COMPARED]))


def against_the_reference(python, repeats):
    from phenopipe.align.tvn import TypicalVariationNormalizer

    each = SMALL // N_EXPERIMENTS
    x_WD = np.concatenate([batch(e, each) for e in range(N_EXPERIMENTS)]).astype(np.float64)
    experiment_W = np.arange(N_EXPERIMENTS).repeat(each)
    control_W = np.arange(SMALL) % 5 == 0
    ours, peer = [], []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        arrays = {"x": x_WD, "control": control_W, "experiment": experiment_W}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        for _ in range(repeats):
            started, cpu = time.perf_counter(), time.process_time()
            normalizer = TypicalVariationNormalizer().fit(x_WD, control_W, experiment_W)
            aligned_WD = normalizer.transform(x_WD, experiment_W)
            ours.append((time.perf_counter() - started, time.process_time() - cpu))
            command = [python, __file__, "--peer-worker", folder]
            done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
            if done.returncode:
                sys.exit(1)
            peer.append(tuple(map(float, done.stdout.split()[-2:])))
        theirs = np.load(folder / "peer.npy")
    mine = aligned_WD[:: SMALL // COMPARED]
    gram, wanted = mine @ mine.T.copy(), theirs @ theirs.T.copy()
    off = float(np.abs(gram - wanted).max() / np.abs(wanted).max())
    (mine_s, mine_cpu), (peer_s, peer_cpu) = np.median(ours, axis=0), np.median(peer, axis=0)
    ratio = peer_s / mine_s
    say("alignment_processor_seconds", mine_cpu, "cpu s")
    say("alignment_peer_processor_seconds", peer_cpu, "cpu s")
    say("alignment_times_less_processor", peer_cpu / mine_cpu, "x")
    return [
        say("alignment_seconds", mine_s, "s"),
        say("alignment_peer_seconds", peer_s, "s"),
        say("alignment_times_faster", ratio, "x", ">= 10", ratio >= 10),
        say("alignment_gram_relative_difference", off, "", "<= 1e-8", off <= 1e-8),
    ]


def write_large(folder):
    """Write embeddings and qc tables of a million wells, an experiment at a time."""
    import polars as pl

    from phenopipe.formats.embeddings import write_embeddings
    from phenopipe.formats.qc import write_qc_wells
    from phenopipe.formats.wells import COLUMNS

    each = LARGE // N_EXPERIMENTS
    schema = {name: dtype for name, (dtype, _) in COLUMNS.items()}
    for e in range(N_EXPERIMENTS):
        name = f"e{e:02d}"
        at = pl.int_range(each, eager=True)
        role = pl.when(at % 5 == 0).then(pl.lit("negative_control")).otherwise(pl.lit("empty"))
        same = {"screen": "s", "experiment": name, "plate": "p", "well": "A01", "row": 1}
        same |= {"column": 1, "cell_type": "HUVEC", "layout": "l", "treatments": []}
        wells = pl.DataFrame({"at": at}).with_columns(
            **{k: pl.lit(v) if v != [] else pl.lit([]) for k, v in same.items()},
            role=role,
            well_id=pl.format(name + "/{}", pl.col("at").cast(pl.String).str.zfill(5)),
            n_images=pl.lit(1),
            passes=pl.lit(True),
            reason=pl.lit(""),
        )
        wells = wells.drop("at").cast({**schema, "n_images": pl.Int32})
        write_qc_wells(folder / f"{name}.parquet", wells, {})
        write_embeddings(
            folder / f"{name}.zarr",
            batch(e, each)[:, None],
            wells["well_id"].to_list(),
            block_numbers=[1],
            block_dims=[N_FEATURES],
            stamp={},
        )


def large_worker(folder):
    """Run the steps over the experiments in a folder; prints seconds of each, and memory."""
    from phenopipe.align import apply, center, fit, moments

    names = [f"e{e:02d}" for e in range(N_EXPERIMENTS)]
    labels = ["--screen", "s", "--encoder", "e"]
    spent = {}

    def at(name):
        return str(folder / name)

    def timed(step, commands):
        started = time.perf_counter()
        for argv in commands:
            with contextlib.redirect_stdout(None):
                step.main([*argv, *labels])
        spent[step.__name__.split(".")[-1]] = time.perf_counter() - started

    def inputs(name):
        files = ["--embeddings", at(f"{name}.zarr"), "--wells", at(f"{name}.parquet")]
        return [*files, "--experiment", name]

    gathered = [at(f"{n}.npz") for n in names]
    timed(moments, [[*inputs(n), "--moments", at(f"{n}.npz")] for n in names])
    made = ["--axes", at("axes.npz"), "--controls", at("controls.parquet")]
    timed(fit, [["--moments", *gathered, *made]])
    timed(center, [["--axes", at("axes.npz"), "--transform", at("transform.npz")]])
    given = ["--transform", at("transform.npz")]
    timed(apply, [[*inputs(n), *given, "--aligned", at(f"{n}-aligned.parquet")] for n in names])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": spent, "peak": peak}))


def a_million_wells():
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as made:
        command = [sys.executable, __file__, "--large-worker", made]
        write_large(Path(made))
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    for step, seconds in told["seconds"].items():
        say(f"alignment_million_{step}_seconds", seconds, "s")
    peak = told["peak"]
    return [say("alignment_million_peak_memory", peak, "GiB", "< 2", peak < 2)]


def small_variances():
    from sklearn.decomposition import PCA

    from phenopipe.align.statistics import moments, pooled, principal_axes

    rng = np.random.default_rng(0)
    turn_DD = np.linalg.qr(rng.normal(size=(N_FEATURES, N_FEATURES)))[0]
    scale_D = np.logspace(2, -2, N_FEATURES)
    x_WD = (rng.normal(size=(20_000, N_FEATURES)) * scale_D @ turn_DD).astype(np.float32)
    centered_WD = x_WD - x_WD.mean(axis=0, dtype=np.float64)
    exact_D = np.linalg.svd(centered_WD, compute_uv=False) ** 2 / len(x_WD)
    total = pooled(map(moments, np.array_split(x_WD, N_EXPERIMENTS)))
    _, found_D = principal_axes(total.scatter / total.count)
    off = float(np.abs(found_D / exact_D - 1).max())
    peer_D = PCA().fit(x_WD).explained_variance_ * (1 - 1 / len(x_WD))
    peer_off = float(np.abs(peer_D / exact_D - 1).max())
    return [
        say("alignment_variance_spread", exact_D[0] / exact_D[-1], "x"),
        say("alignment_variance_relative_error", off, "", "<= 1e-6", off <= 1e-6),
        say("alignment_variance_error_float32_pca", peer_off, ""),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--large-worker", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peer_worker:
        peer_worker(chosen.peer_worker)
    elif chosen.large_worker:
        large_worker(chosen.large_worker)
    else:
        kept = small_variances()
        kept += against_the_reference(chosen.peer_python, chosen.repeats)
        kept += a_million_wells()
        sys.exit(not all(kept))


if __name__ == "__main__":
    main()
