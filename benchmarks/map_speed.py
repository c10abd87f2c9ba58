"""Benchmarks of the map against the public reference: time, memory, equal values.

    python benchmarks/map_speed.py --peer-python build/efaar/bin/python

1. Recall at 17,063 genes x 1,664 features and four sources of 20,000 pairs, all pairs as null:
   what the reference computes after its pairs are read, and ours with and without intervals and
   shuffled names. Recalls are compared value by value.
2. Recall at 17,000 x 384 with reading of the five pair files that the reference carries, in
   double precision for the reference, as its own aggregation leaves it.
3. The published null: 5,000 genes x 384, four sources, three seeds; and the golden table of the
   reference's version of January 2024, where the golden folder is given.
4. Magnitude: 1,000 conditions of 8 to 39 wells against 1,000 controls x 384.
5. Compound-gene precision: 100 seeds x 1,674 compounds x 735 genes x 8 concentrations, in two
   processes with different hash seeds.

Each side runs in a process of its own, in turn, with as many cores as it makes use of. Times
leave out imports and making of data; bounds are on seconds of the clock, so that nothing else
should run, and seconds of the processor stand beside. Memory is the peak of the process.
Prints one line a figure: name, figure, unit, bound. Exits with 1 if a bound is not kept.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from map_sides import FILES, made_map, named

SIDES = Path(__file__).with_name("map_sides.py")
LARGE, WIDE = (17_063, 1_664), (17_000, 384)
CONDITIONS, CONTROLS, FEATURES = 1_000, 1_000, 384
MEASURED = ("wall", "cpu", "peak")


def say(name, figure, unit, bound="", kept=True):
    print(
        f"{name:46s} {figure:>12.5g} {unit:8s} {bound}{'' if kept else '  NOT KEPT'}",
        flush=True,
    )
    return kept


def times_of(name, told, most=None):
    kept = most is None or told["wall"] < most
    bound = "" if most is None else f"< {most}"
    say(f"{name}_wall_seconds", told["wall"], "s", bound, kept)
    say(f"{name}_cpu_seconds", told["cpu"], "s")
    return kept


def run(python, side, task, folder, **environment):
    command = [str(python), str(SIDES), side, task, str(folder)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    if done.returncode:
        sys.exit(f"{side} {task} failed")
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(peer_python, task, peer_task, folder, repeats):
    """Medians of seconds and peaks of both sides, and their values."""
    both = {"ours": [], "peer": []}
    for _ in range(repeats):
        both["ours"].append(run(sys.executable, "ours", task, folder))
        both["peer"].append(run(peer_python, "peer", peer_task, folder))
    middle = {
        side: {key: float(np.median([one[key] for one in runs])) for key in MEASURED}
        for side, runs in both.items()
    }
    return (
        middle["ours"],
        middle["peer"],
        both["ours"][-1]["values"],
        both["peer"][-1]["values"],
    )


def write_map(folder, shape, genes):
    np.save(folder / "map.npy", made_map(shape))
    (folder / "genes.json").write_text(json.dumps(genes))


def largest_difference(one, other):
    assert set(one) == set(other), (one, other)
    return max(abs(one[key] - other[key]) for key in one)


def recall_core(peer_python, repeats, folder):
    write_map(folder, LARGE, named(LARGE[0]))
    task = "recall_core"
    mine, theirs, values, wanted = in_turn(peer_python, task, task, folder, repeats)
    off, times = largest_difference(values, wanted), theirs["wall"] / mine["wall"]
    whole = run(sys.executable, "ours", "recall_whole", folder)
    return [
        times_of("recall_17063x1664", mine),
        times_of("recall_17063x1664_peer", theirs),
        say("recall_17063x1664_times_faster", times, "x", ">= 2.5", times >= 2.5),
        say("recall_17063x1664_peak", mine["peak"], "GB", "< 1.2", mine["peak"] < 1.2),
        say("recall_17063x1664_peer_peak", theirs["peak"], "GB"),
        say("recall_17063x1664_largest_difference", off, "", "= 0", off == 0),
        times_of("recall_17063x1664_with_intervals", whole),
        say(
            "recall_17063x1664_with_intervals_peak",
            whole["peak"],
            "GB",
            "< 1.2",
            whole["peak"] < 1.2,
        ),
    ]


def recall_files(peer_python, repeats, folder):
    import polars as pl

    where = run(peer_python, "peer", "where", folder)
    (folder / "where.json").write_text(json.dumps(where))
    known = set()
    for name in FILES:
        pairs = pl.read_csv(Path(where["folder"]) / f"{name}.txt", infer_schema_length=None)
        known |= set(pairs["entity1"]) | set(pairs["entity2"])
    genes = sorted(known)
    genes += [f"made-up-{at}" for at in range(WIDE[0] - len(genes))]
    write_map(folder, WIDE, genes)
    mine, theirs, values, wanted = in_turn(
        peer_python, "recall_files", "recall_files", folder, repeats
    )
    off, times = largest_difference(values, wanted), theirs["wall"] / mine["wall"]
    smaller = theirs["peak"] / mine["peak"]
    return [
        times_of("recall_17000x384_files", mine),
        times_of("recall_17000x384_files_peer", theirs),
        say("recall_17000x384_files_times_faster", times, "x", ">= 10", times >= 10),
        say("recall_17000x384_files_peak", mine["peak"], "GB"),
        say("recall_17000x384_files_times_smaller", smaller, "x", ">= 6", smaller >= 6),
        say("recall_17000x384_files_largest_difference", off, "", "= 0", off == 0),
    ]


def recall_seeds(folder, golden):
    write_map(folder, (5_000, 384), named(5_000))
    mine = run(sys.executable, "ours", "recall_seeds", folder)
    kept = [
        times_of("recall_three_seeds", mine, 10),
        say("recall_three_seeds_peak", mine["peak"], "GB"),
    ]
    if golden is None:
        return kept
    import polars as pl

    from phenopipe.benchmark.pairs import read_pairs
    from phenopipe.benchmark.recall import relationship_recall

    table = pl.read_csv(golden / "golden/map.csv")
    wanted = pl.read_csv(golden / "golden/recall_3seeds_efaar43b3039.csv")
    pairs = read_pairs(golden / "benchmark_annotations/StringDB.txt.gz")
    x_GD, genes = table.drop("gene").to_numpy(), table["gene"].to_list()
    found = relationship_recall(x_GD, genes, pairs, null="sampled")
    same = found["recall"].to_list() == wanted["recall_0.05_0.95"].to_list()
    same &= found["n_null"].to_list() == wanted["null_distribution_size"].to_list()
    return [*kept, say("recall_three_seeds_equal_to_golden", float(same), "", "= 1", same)]


def magnitude(peer_python, repeats, folder):
    rng = np.random.default_rng(2)
    sizes = rng.integers(8, 40, CONDITIONS)
    label_W = np.repeat([f"p{at:04d}" for at in range(CONDITIONS)], sizes)
    label_W = np.concatenate([label_W, ["control"] * CONTROLS])
    x_WD = rng.standard_normal((len(label_W), FEATURES))
    x_WD[: sizes.sum()] += np.repeat(
        0.3 * rng.standard_normal((CONDITIONS, FEATURES)), sizes, 0
    )
    np.save(folder / "wells.npy", x_WD)
    np.save(folder / "labels.npy", label_W)
    mine, theirs, values, wanted = in_turn(
        peer_python, "magnitude", "magnitude", folder, repeats
    )
    times = theirs["wall"] / mine["wall"]
    off = run(sys.executable, "ours", "magnitude", folder)["off"]
    apart = max(abs(values[name] / wanted[name] - 1) for name in wanted if name in values)
    return [
        times_of("magnitude", mine),
        times_of("magnitude_peer", theirs),
        say("magnitude_times_faster", times, "x", ">= 25", times >= 25),
        say("magnitude_relative_error", off, "", "<= 1e-6", off <= 1e-6),
        say("magnitude_relative_difference_from_peer", apart, ""),
    ]


def compounds(folder):
    first, second = (
        run(sys.executable, "ours", "compounds", folder, PYTHONHASHSEED=seed)
        for seed in ("1", "2")
    )
    same = first["values"] == second["values"]
    return [
        times_of("compounds_100_seeds", first, 60),
        say("compounds_equal_in_two_processes", float(same), "", "= 1", same),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--golden", type=Path, help="folder with golden/ and annotations")
    parser.add_argument("--repeats", type=int, default=1)
    parts = ("recall_core", "recall_files", "recall_seeds", "magnitude", "compounds")
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    chosen = parser.parse_args()
    kept = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as made:
        folder = Path(made)
        if "recall_core" in chosen.only:
            kept += recall_core(chosen.peer_python, chosen.repeats, folder)
        if "recall_files" in chosen.only:
            kept += recall_files(chosen.peer_python, chosen.repeats, folder)
        if "recall_seeds" in chosen.only:
            kept += recall_seeds(folder, chosen.golden)
        if "magnitude" in chosen.only:
            kept += magnitude(chosen.peer_python, chosen.repeats, folder)
        if "compounds" in chosen.only:
            kept += compounds(folder)
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
