"""Randomness that depends on names, never on order: added data change no earlier draw."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return the random generator that belongs to a seed and a path of names.

    Examples
    --------
    >>> generator(0, "plate-1").random() == generator(0, "plate-1").random()
    True
    >>> generator(0, "plate-1").random() == generator(0, "plate-2").random()
    False
    """
    digest = hashlib.sha256("\x1f".join(map(str, (seed, *names))).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def hash_uniform(seed: int, ids: Iterable[str]) -> NDArray[np.float64]:
    """Map each id to a number in [0, 1) that is the same on every machine and version.

    Notes
    -----
    The first 53 bits of BLAKE2b of the id, keyed by the seed. ``polars`` hashes promise
    no stability between versions, so they cannot decide which wells stay.

    Examples
    --------
    >>> hash_uniform(0, ["a", "b"]).round(3).tolist()
    [0.51, 0.955]
    """
    key = str(seed).encode()
    heads = b"".join(
        hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in ids
    )
    bits = np.frombuffer(heads, dtype=">u8") >> np.uint64(11)
    return bits.astype(np.float64) / 2.0**53
