"""The hash that chooses controls: against a slow oracle, and pinned for ever."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.undersample.hashing import uniform_of_ids

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
PINNED = [
    0.28176129772258496,
    0.8623744643203988,
    0.19850386752829652,
    0.9174868367731992,
    0.41593786912801833,
]


def mixed(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def slow_uniform(seed, text):
    """The formula of the docstring, one id and one word at a time."""
    data = text.encode()
    state = mixed((mixed((seed + GOLDEN) & MASK) + len(data) * GOLDEN) & MASK)
    for k in range(0, len(data), 8):
        word = int.from_bytes(data[k : k + 8], "little")
        state = mixed(((state ^ word) + GOLDEN) & MASK)
    return (state >> 11) / 2**53


@given(ids=st.lists(st.text(max_size=30), min_size=1, max_size=12), seed=st.integers(-9, 2**65))
def test_every_id_gets_the_number_of_the_slow_formula(ids, seed):
    found = uniform_of_ids(seed, pl.Series(ids, dtype=pl.String)).tolist()
    assert found == [slow_uniform(seed, text) for text in ids]


def test_no_id_gets_no_number():
    assert uniform_of_ids(0, pl.Series([], dtype=pl.String)).shape == (0,)


def test_the_numbers_are_pinned():
    ids = pl.Series(["", "A01", "plate-1/A01", "exp-0001/12/AF48", "RXRX3-\u00b5/001"])
    assert uniform_of_ids(0, ids).tolist() == PINNED
    assert uniform_of_ids(1, ids).tolist() != PINNED


def test_numbers_of_like_ids_are_uniform_and_unlike():
    ids = pl.Series(
        [f"exp-{e}/1/{r}{c:02d}" for e in range(60) for r in "ABCDEFGH" for c in range(48)]
    )
    values = uniform_of_ids(7, ids)
    counts = np.histogram(values, bins=20, range=(0, 1))[0]
    expected = len(ids) / 20
    # Chi squared with 19 degrees of freedom exceeds 45 once in a thousand times.
    assert ((counts - expected) ** 2 / expected).sum() < 45
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / len(ids) ** 0.5
    assert abs(np.corrcoef(values, uniform_of_ids(8, ids))[0, 1]) < 4 / len(ids) ** 0.5
