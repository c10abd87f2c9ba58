"""Small files of named arrays and facts (``.npz``), written whole and without pickle."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[np.floating]], facts: Mapping[str, Any]
) -> None:
    """Write arrays in double precision and facts; equal content gives equal bytes.

    Raises
    ------
    UserError
        If a value is not finite.
    """
    _check_finite(arrays, path)
    text = json.dumps(dict(facts), sort_keys=True, default=str).encode()
    stored: dict[str, Any] = {name: a.astype(np.float64) for name, a in arrays.items()}
    # As bytes, so that reading needs no pickle.
    stored["facts"] = np.frombuffer(text, dtype=np.uint8)
    with atomic(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **stored)


def read_arrays(
    path: Path, names: Sequence[str], kind: Mapping[str, Any], what: str
) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
    """Read arrays and facts of one kind of file, all values finite.

    Parameters
    ----------
    path : Path
        The file.
    names : list of str
        Arrays that it must hold.
    kind : mapping
        Facts that it must have: format and format version.
    what : str
        What such a file is called.

    Raises
    ------
    UserError
        If the file is none of this kind.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in names}
            facts = dict(json.loads(stored["facts"].tobytes()))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path}: not a readable {what} ({error})") from None
    if {key: facts.get(key) for key in kind} != dict(kind):
        raise UserError(f"{path}: another format than {dict(kind)}")
    _check_finite(arrays, path)
    return arrays, facts


def _check_finite(arrays: Mapping[str, NDArray[np.floating]], path: Path) -> None:
    for array in arrays.values():
        if not np.isfinite(array).all():
            raise UserError(f"{path}: a value is not finite")
