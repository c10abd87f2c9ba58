"""Are p-values what they say they are? Under the null, with an effect, and combined.

    OMP_NUM_THREADS=1 python benchmarks/calibration.py

1. Consistency under the null: heavy batch structure (clusters of wells, a gradient, heavy
   tails) that conditions do not share, with 2, 3, 6 and 24 replicates, p-values pooled over
   seeds 0 to 19: uniform, never below 1/K; a strong planted effect reaches exactly 1/K.
2. Power: share of conditions found at 0.01 against the length of the planted effect, in
   standard deviations of a well's noise along one direction.
3. Combination: rate of combined p-values at 0.01 under the null, 2 to 24 experiments, the
   p-values of one condition independent, dependent by a normal variable that all share, or in
   technical pairs; beside it, the Cauchy combination of the same p-values without steps, floor
   and ceiling, whose own excess under strong dependence is known (Liu and Xie 2020).
4. The same from wells: conditions that do nothing, on plates where what lies close looks
   alike, in experiments whose layouts are drawn anew, shared by technical pairs, or shared by
   all; share of combined p-values at 0.01, and how strongly p-values of one condition in two
   experiments of one layout hang together.
5. Position: wells on plates where what lies close looks alike, and no condition does
   anything; excess statistic over the null's mean, and share called at 0.01, for layouts
   that are fixed over plates or random, with both nulls.

Prints one line a figure: name, figure, unit, bound. Exits with 1 if a bound is not kept.
"""

import sys

import numpy as np
from scipy.stats import kstest, norm

from phenopipe.combination import cauchy_score, cauchy_tail
from phenopipe.consistency.addresses import judge_by_address
from phenopipe.consistency.statistics import consistency_pvalues, judge, unit_rows

N_NULL, N_CONDITIONS, SEEDS, REPLICATES = 10_000, 40, range(20), (2, 3, 6, 24)
N_FEATURES = 16
N_ROWS, N_COLUMNS, N_PLATES = 16, 24, 6
# Wells and trials of the combination from wells: 400 conditions of three in each.
N_WELLS, N_TRIALS = 1200, 25


def say(name, figure, unit="", bound="", kept=True):
    print(
        f"{name:52s} {figure:>10.4g} {unit:6s} {bound}{'' if kept else '  NOT KEPT'}",
        flush=True,
    )
    return kept


def batches(seed, n_replicates):
    """Wells without any effect, in clusters and along a gradient, of very unequal lengths."""
    rng = np.random.default_rng(seed)
    n_wells = N_CONDITIONS * n_replicates
    x_WD = rng.normal(size=(n_wells, N_FEATURES)) * rng.gamma(1, 1, size=(n_wells, 1))
    x_WD += 1.5 * rng.normal(size=(4, N_FEATURES))[rng.integers(0, 4, n_wells)]
    x_WD += np.linspace(-1, 1, n_wells)[:, None] * rng.normal(size=N_FEATURES)
    number_W = rng.permutation(n_wells) // n_replicates
    return x_WD, np.array([f"c{number:02d}" for number in number_W])


def under_the_null():
    kept = []
    for n in REPLICATES:
        pooled, smallest = [], []
        for seed in SEEDS:
            x_WD, label_W = batches(seed, n)
            table = consistency_pvalues(x_WD, label_W, n_null=N_NULL, seed=seed)
            pooled.extend(table["p_value"])
            x_WD[label_W == "c00"] += 1e4  # random pairs may point one way to four digits
            strong = consistency_pvalues(x_WD, label_W, n_null=N_NULL, seed=seed)
            smallest.append(strong["p_value"][0])
            pooled_min = min(*pooled, *strong["p_value"])
        uniform = kstest(pooled, "uniform").pvalue
        called = float(np.mean(np.array(pooled) <= 0.01))
        least, strongest = pooled_min * N_NULL, max(smallest) * N_NULL
        name = f"calibration_{n}_replicates"
        kept += [
            say(f"{name}_ks_pvalue", uniform, "", "> 0.01", uniform > 0.01),
            say(f"{name}_called_at_0.01", called),
            say(f"{name}_smallest_p_times_K", least, "", ">= 1", least >= 1),
            say(f"{name}_strong_effect_p_times_K", strongest, "", "= 1", strongest == 1),
        ]
    return kept


def power():
    for n in REPLICATES:
        for length in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0):
            found = []
            for seed in range(4):
                rng = np.random.default_rng([seed, n])
                x_WD = rng.normal(size=(100 * n, N_FEATURES))
                label_W = np.array([f"c{w // n:03d}" for w in range(len(x_WD))])
                # A fifth of the conditions act, each along a direction of its own.
                effect_CD = rng.normal(size=(20, N_FEATURES))
                effect_CD *= length / np.linalg.norm(effect_CD, axis=1, keepdims=True)
                x_WD[: 20 * n] += effect_CD.repeat(n, axis=0)
                table = consistency_pvalues(x_WD, label_W, n_null=1000, seed=seed)
                found.extend(table["p_value"][:20] <= 0.01)
            say(f"power_{n}_replicates_effect_{length:g}", float(np.mean(found)))


def normal_scores(rng, n_trials, n, how, correlation):
    """Normal scores of one condition in n experiments: alike all over, or pair by pair."""
    if how == "pairs":
        # Technical pairs: two experiments of one layout.
        shared = rng.standard_normal((n_trials, -(-n // 2))).repeat(2, axis=1)[:, :n]
    else:
        shared = rng.standard_normal((n_trials, 1))
    own = rng.standard_normal((n_trials, n))
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own


def combined():
    kept = []
    cases = [("shared", rho) for rho in (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)] + [("pairs", 0.9)]
    for n in (2, 3, 6, 12, 24):
        for how, rho in cases:
            p = norm.sf(normal_scores(np.random.default_rng(n), 400_000, n, how, rho))
            # Permutation p-values go from 1/K to 1, in steps of 1/K.
            steps = np.maximum(np.ceil(p * N_NULL), 1) / N_NULL
            score = cauchy_score(steps, floor=1 / N_NULL, ceiling=0.99).mean(axis=1)
            size = float((cauchy_tail(score) <= 0.01).mean()) / 0.01
            exact = cauchy_score(np.clip(p, 1e-15, 1 - 1e-15)).mean(axis=1)
            exact_size = float((cauchy_tail(exact) <= 0.01).mean()) / 0.01
            name = f"combined_{n}_{how}_{rho:g}"
            good = size <= 1.2 and (rho > 0 or size >= 1 / 1.2)
            bound = "<= 1.2" if rho else "0.83 to 1.2"
            kept.append(say(f"{name}_size_over_nominal", size, "x", bound, good))
            say(f"{name}_size_of_exact_cauchy", exact_size, "x")
    return kept


def smooth_places(rng, n_rows, n_columns):
    """Something that lies within two steps alike on a plate, of unit variance."""
    place = rng.normal(size=(n_rows + 4, n_columns + 4, N_FEATURES))
    steps = [(row, column) for row in range(5) for column in range(5)]
    return sum(place[r : r + n_rows, c : c + n_columns] for r, c in steps) / 5


def combined_from_wells():
    """Combine p-values of wells whose position shows, with layouts shared or not."""
    kept = []
    for how, n_alike in (("own_layouts", 1), ("pairs", 2), ("one_layout", 24)):
        p_TCE = []
        for trial in range(N_TRIALS):
            rng = np.random.default_rng([trial, n_alike])
            place_WD = smooth_places(rng, 30, 40).reshape(N_WELLS, N_FEATURES)
            p_EC = []
            for experiment in range(24):
                if experiment % n_alike == 0:
                    number_W = rng.permutation(N_WELLS) // 3
                # The same microscope all along: positions look alike in every experiment.
                x_WD = 0.5 * place_WD + rng.normal(size=(N_WELLS, N_FEATURES))
                label_W = np.array([f"c{number:03d}" for number in number_W])
                table = consistency_pvalues(x_WD, label_W, n_null=N_NULL, seed=experiment)
                p_EC.append(table["p_value"].to_numpy())
            p_TCE.append(np.array(p_EC).T)
        p_CE = np.concatenate(p_TCE)
        z_CE = norm.isf(np.clip(p_CE, 0.5 / N_NULL, 1 - 0.5 / N_NULL))
        name = f"combined_from_wells_{how}"
        say(f"{name}_correlation", float(np.corrcoef(z_CE[:, 0], z_CE[:, 1])[0, 1]))
        say(f"{name}_single_size_over_nominal", float((p_CE <= 0.01).mean()) / 0.01, "x")
        for n in (2, 6, 24):
            # Every block of n experiments is a condition's evidence of its own.
            parts = p_CE.reshape(len(p_CE), -1, n).reshape(-1, n)
            score = cauchy_score(parts, floor=1 / N_NULL, ceiling=0.99).mean(axis=1)
            size = float((cauchy_tail(score) <= 0.01).mean()) / 0.01
            kept.append(say(f"{name}_{n}_size_over_nominal", size, "x", "<= 1.2", size <= 1.2))
    return kept


def plates(seed, *, fixed, strength):
    """Plates of 384 conditions that do nothing; what lies within two steps looks alike."""
    rng = np.random.default_rng(seed)
    smooth = smooth_places(rng, N_ROWS, N_COLUMNS)
    at = np.arange(N_ROWS * N_COLUMNS)
    address = np.column_stack(np.divmod(at, N_COLUMNS)) + 1
    number = [at if fixed else rng.permutation(at) for _ in range(N_PLATES)]
    x_WD = np.tile(strength * smooth.reshape(len(at), -1), (N_PLATES, 1))
    x_WD = x_WD + rng.normal(size=x_WD.shape)
    label_W = np.array([f"c{n:03d}" for n in np.concatenate(number)])
    return x_WD, label_W, np.tile(address, (N_PLATES, 1))


def position():
    for fixed in (True, False):
        for strength in (0.0, 0.25, 0.5):
            found = {"experiment": [], "address": []}
            excess = []
            for seed in range(2):
                x_WD, label_W, address_W2 = plates(seed, fixed=fixed, strength=strength)
                unit_WD, pool_W = unit_rows(x_WD), np.ones(len(x_WD), bool)
                parts = (unit_WD, label_W, label_W, pool_W)
                plain = judge(*parts, n_null=2000, rng=np.random.default_rng(seed))
                here = judge_by_address(
                    *parts,
                    address_W2,
                    n_null=2000,
                    rng_of=lambda label, seed=seed: np.random.default_rng(
                        [seed, int(label[1:])]
                    ),
                )
                found["experiment"].extend(plain["p_value"] <= 0.01)
                found["address"].extend(here["p_value"] <= 0.01)
                total_D = unit_WD.sum(axis=0)
                n, n_wells = N_PLATES, len(unit_WD)
                # Mean statistic of random sets of n wells, in closed form.
                pair = (total_D @ total_D - n_wells) / (n_wells * (n_wells - 1))
                excess.append(plain["statistic"].mean() - (1 + (n - 1) * pair) / n)
            name = f"position_{'fixed' if fixed else 'random'}_strength_{strength:g}"
            say(f"{name}_excess_consistency", float(np.mean(excess)))
            for null, called in found.items():
                say(f"{name}_called_by_null_{null}", float(np.mean(called)))


def main():
    kept = under_the_null()
    power()
    kept += combined()
    kept += combined_from_wells()
    position()
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
