"""States of a training on disk: written whole, the last two kept, the newest good one read."""

import contextlib
import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from phenopipe.formats.atomic import atomic

# Bump when the same knobs and data would train other weights than before.
TRAINING_VERSION = 1
# Knobs that change how a training runs but not what comes out.
WITHOUT_EFFECT = ("checkpoints", "checkpoint_every", "memory_mb", "license")
STATES_KEPT = 2


def training_fingerprint(stamp: Mapping[str, Any]) -> str:
    """Digest everything that decides the weights: knobs and data, in any order of files."""
    knobs = {k: v for k, v in stamp["knobs"].items() if k not in WITHOUT_EFFECT}
    inputs = {name: sorted(prints) for name, prints in stamp["inputs"].items()}
    facts = [TRAINING_VERSION, stamp["step"], knobs, inputs]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class States:
    """The states of one training, in a folder named by its fingerprint.

    A training with other knobs or data has another folder, so that no state is ever taken
    up by a training that it does not belong to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("update-*.pt"))

    def save(self, update: int, state: dict[str, Any]) -> None:
        """Write the state after ``update`` updates and drop the oldest."""
        with atomic(self.folder / f"update-{update:09d}.pt") as temporary:
            torch.save(state, temporary)
        for path in self._paths()[:-STATES_KEPT]:
            path.unlink()

    def load(self) -> dict[str, Any] | None:
        """Read the newest state that is whole; None if there is none."""
        for path in reversed(self._paths()):
            broken = (OSError, EOFError, RuntimeError, pickle.UnpicklingError)
            with contextlib.suppress(*broken):
                return dict(torch.load(path, map_location="cpu", weights_only=True))
        return None
