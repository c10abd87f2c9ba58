"""Fingerprints and sizes of files and folders: what they hold, never when it was written."""

import hashlib
import json
from pathlib import Path


def fingerprint(path: Path) -> str:
    """Digest the content of a file, or of all files of a folder with their names.

    A zarr store is asked for the fingerprint that its writer left among its attributes,
    so that large arrays are not read again.
    """
    metadata = path / "zarr.json"
    if metadata.is_file():
        stored = json.loads(metadata.read_text()).get("attributes", {}).get("fingerprint")
        if stored:
            return str(stored)
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; 0 if there is none."""
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
