"""What every update told, row by row on disk, so that states stay small and nothing is lost."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic


class Update(NamedTuple):
    """One row of the history."""

    update: int
    epoch: float
    loss: float
    lr: float
    gradient_norm: float
    skipped: bool
    parts: dict[str, float]


class History:
    """The rows of one training, kept in a file of lines; only the first process writes it."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.path = path
        self.writes = writes
        self._file: TextIO | None = None

    def append(self, row: Update) -> None:
        """Add the row of an update."""
        if not self.writes:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a")
        values = {**row._asdict(), **row.parts}
        del values["parts"]
        # Handed over line by line: what a killed process had written is not lost.
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Let the disk have all rows, before a state that counts on them is written."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def cut(self, updates: int) -> None:
        """Forget what came after a number of updates.

        Raises
        ------
        UserError
            If not all rows up to there are in the file.
        """
        if not self.writes:
            return
        self.close()
        rows = [row for row in self._rows() if row["update"] <= updates]
        if [row["update"] for row in rows] != list(range(1, updates + 1)):
            raise UserError(
                f"{self.path}: rows of updates 1 to {updates} are wanted, found {len(rows)}; "
                f"remove {self.path.parent} to train from the start"
            )
        with atomic(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def _rows(self) -> list[dict[str, Any]]:
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        # The last line may be half of one.
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def table(self) -> pl.DataFrame:
        """Return the rows as a frame, parts of the loss as columns."""
        return pl.DataFrame(self._rows(), infer_schema_length=None)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
