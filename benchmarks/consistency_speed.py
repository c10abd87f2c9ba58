"""Time the permutation test of one experiment against a cosine matrix for every draw.

    OMP_NUM_THREADS=1 python benchmarks/consistency_speed.py

One experiment of 1,400 wells and 1,664 features, 10,000 null sets, conditions of every size
from 2 to 24 replicates. The peer is what a notebook would do: for each size and each draw
gather the wells, scale them, multiply, take the mean; it is given its draws, ours are part of
the time. Both run on the threads that OMP_NUM_THREADS allows, in turn; medians of repeats.
Prints one line a figure: name, figure, unit, bound. Exits with 1 if a bound is not kept.
"""

import argparse
import resource
import sys
import time

import numpy as np

from phenopipe.consistency.addresses import judge_by_address
from phenopipe.consistency.null import draw_sets
from phenopipe.consistency.statistics import ROUNDING, content_order, judge, unit_rows

N_WELLS, N_FEATURES, N_NULL, SIZES = 1400, 1664, 10_000, range(2, 25)
N_COLUMNS = 48


def made_up_experiment(rng):
    """Wells without effects; conditions of 2, 3, ... 24, 2, 3, ... replicates."""
    labels: list[str] = []
    while len(labels) < N_WELLS:
        number = len(set(labels))
        labels += [f"c{number:04d}"] * SIZES[number % len(SIZES)]
    return rng.normal(size=(N_WELLS, N_FEATURES)), np.array(labels[:N_WELLS])


def per_draw(x_WD, sets):
    """Null statistics of every size, one cosine matrix a draw."""
    null = {}
    for n in SIZES:
        null_K = np.empty(sets.shape[1])
        for draw, wells in enumerate(sets[:n].T):
            x_ND = x_WD[wells]
            unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
            null_K[draw] = (unit_ND @ unit_ND.T).mean()
        null[n] = null_K
    return null


def seconds(call):
    """Run once and return what came out, and how long it took by the clock and in CPU."""
    started, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, (time.perf_counter() - started, time.process_time() - cpu)


def say(name, figure, unit, bound="", kept=True):
    print(f"{name:46s} {figure:>12.4g} {unit:8s} {bound}{'' if kept else '  NOT KEPT'}")
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    x_WD, label_W = made_up_experiment(np.random.default_rng(0))
    everywhere = np.ones(N_WELLS, bool)
    address_W2 = np.column_stack(np.divmod(np.arange(N_WELLS), N_COLUMNS)) + 1
    pool_WD = x_WD[content_order(unit_rows(x_WD), label_W)]
    counts = np.unique(label_W, return_counts=True)[1]
    sets = draw_sets(counts, N_NULL, max(SIZES), np.random.default_rng(1))

    def ours():
        rng = np.random.default_rng(1)
        return judge(unit_rows(x_WD), label_W, label_W, everywhere, n_null=N_NULL, rng=rng)

    def at_addresses():
        return judge_by_address(
            unit_rows(x_WD),
            label_W,
            label_W,
            everywhere,
            address_W2,
            n_null=N_NULL,
            rng_of=lambda label: np.random.default_rng(int(label[1:])),
        )

    ours()  # warm-up
    times = {"ours": [], "peer": [], "address": []}
    for _ in range(repeats):
        for name, call in (
            ("ours", ours),
            ("peer", lambda: per_draw(pool_WD, sets)),
            ("address", at_addresses),
        ):
            result, spent = seconds(call)
            times[name].append(spent)
            if name == "ours":
                table = result
            if name == "peer":
                null = result
    wrong = 0
    for _, n, statistic, p_value, _ in table.iter_rows():
        at_least = (null[n] >= statistic - ROUNDING).sum()
        wrong += p_value != max(at_least, 1) / N_NULL
    middle = {
        name: float(np.median([wall for wall, _ in spent])) for name, spent in times.items()
    }
    in_cpu = {
        name: float(np.median([cpu for _, cpu in spent])) for name, spent in times.items()
    }
    ratio = middle["peer"] / middle["ours"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    kept = [
        say("consistency_seconds", middle["ours"], "s", "< 1", middle["ours"] < 1),
        say("consistency_peer_seconds", middle["peer"], "s"),
        say("consistency_times_faster", ratio, "x", ">= 15", ratio >= 15),
        say("consistency_processor_seconds", in_cpu["ours"], "cpu s"),
        say("consistency_peer_processor_seconds", in_cpu["peer"], "cpu s"),
        say("consistency_times_less_processor", in_cpu["peer"] / in_cpu["ours"], "x"),
        say("consistency_conditions", table.height, "tests"),
        say("consistency_pvalues_that_differ", wrong, "tests", "= 0", wrong == 0),
        say("consistency_address_null_seconds", middle["address"], "s"),
        say("consistency_peak_memory", peak, "GiB"),
    ]
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
