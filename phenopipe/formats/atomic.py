"""Whole files or none: outputs are written beside their place and renamed into it."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of a file or folder; it takes the place on success only.

    The sibling is removed if the block raises, so that a reader sees the old content,
    the new content or nothing, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside = path.with_name(f".{path.name}.{os.getpid()}.old.part")
    _remove(temporary)
    try:
        yield temporary
        sync(temporary)
        if path.is_dir():
            # A folder cannot be replaced in one move: the old one steps aside whole, so that
            # whoever is killed here leaves no half of it in its place.
            path.replace(aside)
        temporary.replace(path)
    finally:
        _remove(temporary)
        _remove(aside)


def clear_leftovers(path: Path) -> None:
    """Remove what killed writers of a path left beside it; a path has one writer at a time."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        _remove(leftover)


def sync(path: Path) -> None:
    """Wait until a file, or all files of a folder, are on disk."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
