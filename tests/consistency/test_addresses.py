"""The null of one position: where its wells come from, and that it is not fooled by place."""

import numpy as np
import polars as pl
import pytest

from phenopipe.consistency import addresses
from phenopipe.consistency.addresses import Window, draw_at, judge_by_address, window_around
from phenopipe.consistency.config import PvaluesKnobs
from phenopipe.consistency.pvalues import experiment_pvalues
from phenopipe.consistency.statistics import judge, replicate_consistency, unit_rows
from phenopipe.errors import UserError

N_ROWS, N_COLUMNS, N_PLATES = 8, 12, 4


def plates(seed, *, fixed, strength):
    """Four plates of 96 conditions without any effect, where each address looks alike."""
    rng = np.random.default_rng(seed)
    place = rng.normal(size=(N_ROWS + 4, N_COLUMNS + 4, 12))
    # Averages over five by five addresses: what lies close looks alike.
    steps = [(row, column) for row in range(5) for column in range(5)]
    smooth = sum(place[r : r + N_ROWS, c : c + N_COLUMNS] for r, c in steps) / 5
    x, labels, where = [], [], []
    for _ in range(N_PLATES):
        order = np.arange(N_ROWS * N_COLUMNS) if fixed else rng.permutation(96)
        for at, condition in enumerate(order):
            row, column = divmod(at, N_COLUMNS)
            x.append(strength * smooth[row, column] + rng.normal(size=12))
            labels.append(f"g{condition:02d}")
            where.append((row + 1, column + 1))
    return np.array(x), np.array(labels), np.array(where)


def judged(x_WD, label_W, address_W2, n_null=300, in_pool_W=None):
    pool_W = np.ones(len(x_WD), bool) if in_pool_W is None else in_pool_W
    return judge_by_address(
        unit_rows(x_WD),
        label_W,
        label_W,
        pool_W,
        address_W2,
        n_null=n_null,
        rng_of=lambda label: np.random.default_rng(int(label[1:])),
    )


def test_pvalues_equal_the_slow_oracle_given_the_same_draws(monkeypatch):
    drawn = {}

    def remember(windows, place_N, n_draws, rng):
        set_NK = draw_at(windows, place_N, n_draws, rng)
        drawn[len(drawn)] = set_NK
        return set_NK

    monkeypatch.setattr(addresses, "draw_at", remember)
    x_WD, label_W, address_W2 = plates(0, fixed=True, strength=1.0)
    for most in (4096, 0):
        drawn.clear()
        monkeypatch.setattr(addresses, "MOST_WELLS_OF_A_GRAM", most)
        got = judged(x_WD, label_W, address_W2, n_null=50)
        # The pool's rows, as the function numbers them.
        located = np.column_stack([address_W2.astype(float), unit_rows(x_WD)])
        pool_WD = x_WD[addresses.content_order(located, label_W)]
        for at, (label, n, statistic, p_value, _) in enumerate(got.iter_rows()):
            wanted = replicate_consistency(x_WD[label_W == label])
            null_K = np.array([replicate_consistency(pool_WD[wells]) for wells in drawn[at].T])
            assert n == 4
            assert statistic == pytest.approx(wanted, rel=1e-12)
            assert p_value == max((null_K >= wanted).sum(), 1) / 50


def test_a_window_is_the_smallest_that_holds_enough_other_labels():
    _, label_W, address_W2 = plates(0, fixed=True, strength=0.0)
    order = np.argsort(label_W, kind="stable")
    names_L, start_L, code_W = np.unique(label_W[order], return_index=True, return_inverse=True)
    parts = (address_W2[order], code_W, start_L)
    middle = np.array([4, 5])
    own_L = names_L == "g40"  # what sits at row 4, column 5
    small = window_around(middle, *parts, own_L, 8)
    assert len(small.label) == 8
    assert len(small.well) == 8 * N_PLATES
    assert len(window_around(middle, *parts, own_L, 9).label) == 24
    corner = window_around(np.array([1, 1]), *parts, names_L == "g00", 3)
    assert set(names_L[corner.label]) == {"g01", "g12", "g13"}


def test_sets_hold_one_well_of_each_window_and_no_label_twice():
    labels = [np.array([0, 1, 2]), np.array([1, 2, 3])]
    windows = [
        Window(one, np.arange(3) * 2, np.full(3, 2), 10 * one.repeat(2)) for one in labels
    ]
    set_NK = draw_at(windows, np.array([0, 1, 1]), 200, np.random.default_rng(0))
    assert set(set_NK[0]) == {0, 10, 20}
    assert set(set_NK[1]) == set(set_NK[2]) == {10, 20, 30}
    assert all(len(set(column)) == 3 for column in set_NK.T)


def test_order_of_wells_and_further_conditions_change_nothing():
    x_WD, label_W, address_W2 = plates(1, fixed=False, strength=1.0)
    table = judged(x_WD, label_W, address_W2)
    order = np.random.default_rng(0).permutation(len(x_WD))
    assert judged(x_WD[order], label_W[order], address_W2[order]).equals(table)
    # A condition that is judged but not in the pool, as a positive control is.
    more = np.concatenate([x_WD, x_WD[:3] + 5])
    labels = np.concatenate([label_W, ["g99"] * 3])
    where = np.concatenate([address_W2, address_W2[:3]])
    in_pool = np.arange(len(more)) < len(x_WD)
    again = judged(more, labels, where, in_pool_W=in_pool)
    assert again.filter(pl.col("label") != "g99").equals(table)
    assert again.filter(label="g99")["n_replicates"].item() == 3


def test_position_alone_is_called_less_often():
    def shares(*, fixed):
        at_address, anywhere = [], []
        for seed in range(3):
            x_WD, label_W, address_W2 = plates(seed, fixed=fixed, strength=0.75)
            at_address.extend(judged(x_WD, label_W, address_W2)["p_value"])
            pool_W, rng = np.ones(len(x_WD), bool), np.random.default_rng(0)
            unit_WD = unit_rows(x_WD)
            plain = judge(unit_WD, label_W, label_W, pool_W, n_null=300, rng=rng)
            anywhere.extend(plain["p_value"])
        return (np.array(at_address) <= 0.05).mean(), (np.array(anywhere) <= 0.05).mean()

    # No condition does anything, yet at fixed addresses most look consistent.
    at_address, anywhere = shares(fixed=True)
    assert anywhere > 0.5
    assert at_address < 0.6 * anywhere
    # Where layouts are random, replicates and null share what positions add: nominal.
    at_address, _ = shares(fixed=False)
    assert at_address < 0.08


def test_a_true_effect_is_still_found_at_fixed_addresses():
    x_WD, label_W, address_W2 = plates(3, fixed=True, strength=1.0)
    x_WD[label_W == "g40"] += 8 * np.eye(12)[0]
    table = judged(x_WD, label_W, address_W2)
    assert table.filter(label="g40")["p_value"].item() == 1 / 300


def test_conditions_without_enough_neighbours_have_no_row():
    where = np.array([[1, 1], [1, 1], [1, 2], [1, 3]])
    x_WD = np.random.default_rng(0).normal(size=(4, 3))
    one = judged(x_WD, np.array(["g1", "g1", "g2", "g3"]), where)
    assert one["n_labels"].to_list() == [2]
    assert judged(x_WD, np.array(["g1", "g1", "g1", "g3"]), where).height == 0


def test_the_step_draws_at_addresses_and_wants_them(one_experiment):
    at = pl.int_range(pl.len(), dtype=pl.Int32)
    wells = one_experiment.with_columns(row=at // 16 + 1, column=at % 16 + 1)
    x_WD = np.random.default_rng(0).normal(size=(wells.height, 10))
    knobs = PvaluesKnobs(n_null=100, null="address")
    table = experiment_pvalues(wells, x_WD, knobs)
    assert table.height == 110
    order = np.random.default_rng(1).permutation(wells.height)
    assert experiment_pvalues(wells[order], x_WD[order], knobs).equals(table)
    plain = experiment_pvalues(wells, x_WD, PvaluesKnobs(n_null=100))
    assert table["statistic"].to_list() == pytest.approx(plain["statistic"].to_list())
    assert not table["p_value"].equals(plain["p_value"])
    lost = wells.with_columns(row=pl.lit(None, pl.Int32))
    with pytest.raises(UserError, match="no row and column"):
        experiment_pvalues(lost, x_WD, knobs)
