"""Whose file this is: what its stamp says of screen, experiment, encoder and the rest."""

from pathlib import Path
from typing import Any

from phenopipe.formats.stores import open_store
from phenopipe.formats.tables import read_stamp


def stamp_of(path: Path) -> dict[str, Any]:
    """Read what a table or zarr store says about the step that made it."""
    if path.is_dir():
        return dict(open_store(path).attrs.get("stamp", {}))
    return read_stamp(path)


def names_of(path: Path) -> dict[str, str]:
    """Read whose file this is: screen, experiment, encoder, manifest, task, benchmark."""
    names = dict(stamp_of(path).get("names", {}))
    return {str(key): str(value) for key, value in names.items()}
