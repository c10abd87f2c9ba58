"""What all zarr stores share: a fingerprint that also marks them as whole."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from phenopipe.errors import UserError


def content_digest(block: NDArray[Any]) -> str:
    """Digest one block of an array: type, shape and bytes."""
    digest = hashlib.sha256(f"{block.dtype}{block.shape}".encode())
    digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def save_attributes(
    node: zarr.Array | zarr.Group, attributes: Mapping[str, Any], digests: Iterable[str]
) -> None:
    """Write attributes last, with a fingerprint of content and attributes."""
    facts = json.dumps({**attributes, "digests": list(digests)}, sort_keys=True, default=str)
    mark = hashlib.sha256(facts.encode()).hexdigest()[:16]
    node.attrs.update(json.loads(json.dumps({**attributes, "fingerprint": mark}, default=str)))


def open_store(path: Path) -> Any:  # noqa: ANN401 - an array or a group, as it was written
    """Open a store for reading.

    Raises
    ------
    UserError
        If there is no store or its writer did not finish.
    """
    try:
        store = zarr.open(str(path), mode="r")
    except Exception as error:  # zarr raises many kinds for a torn store
        raise UserError(f"{path}: not a readable zarr store ({error})") from None
    if "fingerprint" not in store.attrs:
        raise torn(path)
    return store


def torn(path: Path) -> UserError:
    """Tell of a store that is not whole."""
    return UserError(f"{path}: a torn zarr store, delete it and rerun its rule")
