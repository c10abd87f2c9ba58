"""What past jobs left behind: who made a file and how (provenance), and what it cost.

Part of the roof: reads ``logs/provenance`` and ``logs/benchmarks`` of a run, writes nothing.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from phenopipe.errors import UserError
from phenopipe.formats.fingerprint import fingerprint, size

PROVENANCE = Path("logs", "provenance")
BENCHMARKS = Path("logs", "benchmarks")


@dataclass(frozen=True)
class Job:
    """One job as it recorded itself; ``inputs`` are digests by the name of the flag."""

    step: str
    names: dict[str, str]
    knobs: dict[str, Any]
    inputs: dict[str, list[str]]
    outputs: dict[str, str]
    version: str
    source: str | None
    packages: dict[str, str] = field(default_factory=dict)
    host: str | None = None
    job: str | None = None
    seconds: float | None = None
    bytes: int = 0

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read one record."""
        record = json.loads(path.read_text())
        stamp = record["stamp"]
        return cls(
            step=f"{stamp['stage']}.{stamp['step']}",
            names=stamp["names"],
            knobs=stamp["knobs"],
            inputs=stamp["inputs"],
            outputs=record["outputs"],
            version=stamp["version"],
            source=record.get("source"),
            packages=record.get("packages", {}),
            host=record.get("host"),
            job=record.get("job"),
            seconds=record.get("seconds"),
            bytes=record.get("bytes", 0),
        )


class Run:
    """A folder in which the workflow ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, path: Path) -> "Run":
        """Find the run that a result belongs to: the nearest folder with records above it.

        Raises
        ------
        UserError
            If there is none.
        """
        for folder in path.absolute().parents:
            if (folder / PROVENANCE).is_dir():
                return cls(folder)
        raise UserError(
            f"{path}: no folder above it has {PROVENANCE}, wanted a result of a run"
        )

    @cached_property
    def jobs(self) -> list[Job]:
        """Every job that left a record."""
        return [Job.read(p) for p in sorted((self.folder / PROVENANCE).rglob("*.json"))]

    @cached_property
    def _makers(self) -> dict[str, tuple[str, Job]]:
        return {
            digest: (path, job) for job in self.jobs for path, digest in job.outputs.items()
        }

    def maker(self, digest: str) -> tuple[str, Job] | None:
        """Path and job of the content with a digest; None: it came from outside."""
        return self._makers.get(digest)

    def made(self, path: Path) -> tuple[str, Job | None]:
        """Digest of a file as it lies there, and the job that made exactly this content."""
        digest = fingerprint(path)
        found = self.maker(digest)
        return digest, found[1] if found else None

    def seconds(self) -> dict[str, float]:
        """Mean wall time of each step's jobs, from Snakemake's benchmark records."""
        return {step: mean(row["s"] for row in rows) for step, rows in self._benchmarks.items()}

    def memory_mb(self) -> dict[str, float]:
        """Highest memory of each step's jobs."""
        return {
            step: max(row["max_rss"] for row in rows) for step, rows in self._benchmarks.items()
        }

    def bytes_made(self) -> dict[str, float]:
        """Mean size of what one job of each step made."""
        sizes: dict[str, list[int]] = {}
        for job in self.jobs:
            sizes.setdefault(job.step, []).append(job.bytes)
        return {step: mean(found) for step, found in sizes.items()}

    def bytes_here(self) -> int:
        """Size of what jobs made and what still lies there."""
        return sum(
            size(self.folder / path) for path in {p for j in self.jobs for p in j.outputs}
        )

    @cached_property
    def _benchmarks(self) -> dict[str, list[dict[str, float]]]:
        rows: dict[str, list[dict[str, float]]] = {}
        root = self.folder / BENCHMARKS
        for path in root.rglob("*.tsv"):
            stage, step = (*path.relative_to(root).with_suffix("").parts, "")[:2]
            rows.setdefault(f"{stage}.{step}", []).extend(_numbers(path))
        return {step: found for step, found in rows.items() if found}


def _numbers(path: Path) -> Iterator[dict[str, float]]:
    with path.open() as handle:
        for row in csv.DictReader(handle, delimiter="\t"):
            # Very short jobs have no memory record.
            told = {"s": row.get("s"), "max_rss": row.get("max_rss")}
            yield {
                k: float(v) if v not in (None, "", "-", "NA") else 0.0 for k, v in told.items()
            }
