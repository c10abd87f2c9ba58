"""Draws depend on names alone, and are the same everywhere."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.seeds import generator, hash_uniform


@given(st.lists(st.text(), unique=True, min_size=1), st.integers(0, 2**31))
def test_an_id_keeps_its_number_whatever_stands_beside_it(ids, seed):
    together = dict(zip(ids, hash_uniform(seed, ids), strict=True))
    assert all(hash_uniform(seed, [one])[0] == together[one] for one in ids)


def test_hash_is_uniform():
    values = hash_uniform(1, map(str, range(20_000)))
    counts = np.histogram(values, bins=20, range=(0, 1))[0]
    assert abs(counts - 1000).max() < 150


def test_hash_is_the_same_on_every_machine():
    assert hash_uniform(0, ["well-1"])[0] == 0.47498356752850335


def test_generators_of_different_names_differ():
    draws = {generator(0, *names).random() for names in (("a", "b"), ("ab",), ("a", 1), ())}
    assert len(draws) == 4
