"""States of a training on disk: written whole, the last few kept, the newest good one read.

A state is a folder: tensors as safetensors, one file a process, written and read by
``torch.distributed.checkpoint`` in its layout without pickles; and ``state.json``, which
says what training it belongs to, which files it has and how far it is. It carries another
name until all of it is written, so that a part of it is never taken for a state. Any
number of processes may read what any other number wrote.
"""

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.storage import WriteResult
from torch.optim import Optimizer

from phenopipe.errors import UserError
from phenopipe.pretrain.config import TrainingKnobs
from phenopipe.pretrain.distributed import World

# Bump when the same knobs and data would train other weights than before.
TRAINING_VERSION = 2
# Knobs that change how a training runs but, up to the order of sums, not what comes out.
WITHOUT_EFFECT = (
    *("checkpoints", "checkpoint_every", "states_kept", "wait_for_states", "memory_mb"),
    *("micro_batch", "parallel", "activation_checkpointing", "compile"),
    *("logs", "log_every", "panels_every", "peak_tflops", "license"),
    *("measure_every", "least_rank", "stop_collapsed"),
    *("probe_every", "probe_label", "probe_classes", "probe_images"),
)
PART = ".part"
Facts = dict[str, Any]

# One process is what is meant, not an oversight.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")


def training_facts(stamp: Mapping[str, Any]) -> Facts:
    """Everything that decides the weights: knobs and data, in any order of files."""
    facts = {
        "version": TRAINING_VERSION,
        "step": stamp["step"],
        "knobs": {k: v for k, v in stamp["knobs"].items() if k not in WITHOUT_EFFECT},
        "inputs": {name: sorted(prints) for name, prints in stamp["inputs"].items()},
    }
    return cast(Facts, json.loads(json.dumps(facts, sort_keys=True)))


def training_fingerprint(stamp: Mapping[str, Any]) -> str:
    """Digest everything that decides the weights."""
    text = json.dumps(training_facts(stamp), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(ours: object, theirs: object, path: str = "") -> str | None:
    """Name the first difference between two sets of facts, in one line.

    Examples
    --------
    >>> difference({"knobs": {"lr": 0.1}}, {"knobs": {"lr": 0.2}})
    'knobs.lr is 0.2 there and 0.1 here'
    """
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in dict.fromkeys([*ours, *theirs]):
            inner = f"{path}.{key}".removeprefix(".")
            found = difference(ours.get(key), theirs.get(key), inner)
            if found:
                return found
        return None
    return None if ours == theirs else f"{path} is {theirs!r} there and {ours!r} here"


class States:
    """The states of one training, in a folder named by its fingerprint.

    Parameters
    ----------
    folder : Path
        Where they lie. A training with other knobs or data has another folder.
    facts : dict
        What the training is, from :func:`training_facts`.
    kept : int
        States that are kept.
    wait : bool
        Whether the training waits until a state is written; else it goes on beside it.
    """

    def __init__(
        self, folder: Path, facts: Facts | None = None, *, kept: int = 2, wait: bool = False
    ) -> None:
        self.folder = folder
        self.facts = facts or {}
        self.kept = kept
        self.wait = wait
        self.world = World()
        self._writing: Future[Any] | None = None

    @classmethod
    def of(cls, name: str, stamp: Mapping[str, Any], knobs: TrainingKnobs) -> "States":
        """Return the states of the training that a command's stamp describes."""
        folder = Path(knobs.checkpoints) / f"{name}-{training_fingerprint(stamp)}"
        facts = training_facts(stamp)
        return cls(folder, facts, kept=knobs.states_kept, wait=knobs.wait_for_states)

    def paths(self) -> list[Path]:
        """Folders of all states that were finished, the oldest first."""
        return sorted(self.folder.glob("update-*[0-9]"))

    def save(self, update: int, tensors: dict[str, Tensor], progress: Facts) -> None:
        """Write the state after ``update`` updates and drop the oldest."""
        self.finish()
        self.folder.mkdir(parents=True, exist_ok=True)
        contents = {"training": self.facts, "update": update, **progress}
        place = self.folder / f"update-{update:09d}"
        stager = DefaultStager(StagingOptions(False, False, False, False))
        found = async_save(
            tensors,
            storage_writer=StateWriter(place, contents, self.kept),
            process_group=self.world.writers,
            async_stager=stager,
        )
        stager.close()
        self._writing = found if isinstance(found, Future) else found.upload_completion
        if self.wait:
            self.finish()

    def finish(self) -> None:
        """Wait for the state that is being written."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def load(self, tensors: dict[str, Tensor]) -> Facts | None:
        """Fill tensors from the newest state that is whole; returns what was saved beside.

        Raises
        ------
        UserError
            If it is the state of another training.
        """
        self.finish()
        newest = self._newest() if self.world.leads else -1
        update = self.world.told(newest)
        if update < 0:
            return None
        path = self.folder / f"update-{update:09d}"
        contents = cast(Facts, json.loads((path / "state.json").read_text()))
        found = difference(self.facts, contents["training"])
        if found:
            raise UserError(f"{path}: the state of another training, {found}")
        reader = HuggingFaceStorageReader(str(path))
        load_tensors(tensors, storage_reader=reader, process_group=self.world.writers)
        return contents

    def others(self) -> list[str]:
        """Name other trainings of this encoder that left states, and what differs there."""
        name, _, _ = self.folder.name.rpartition("-")
        found = []
        for folder in sorted(self.folder.parent.glob(f"{name}-*")):
            if folder == self.folder or folder.name.rpartition("-")[0] != name:
                continue
            newest = next(filter(is_whole, reversed(States(folder).paths())), None)
            if newest is not None:
                theirs = json.loads((newest / "state.json").read_text())["training"]
                found.append(f"{newest}: {difference(self.facts, theirs)}")
        return found

    def _newest(self) -> int:
        """Update of the newest state that is whole, or -1; removes what a kill left over."""
        for left in self.folder.glob(f".*{PART}"):
            shutil.rmtree(left)
        whole = (path for path in reversed(self.paths()) if is_whole(path))
        return next((int(path.name.removeprefix("update-")) for path in whole), -1)


def is_whole(path: Path) -> bool:
    """Tell whether a state has all its files, each as long as its header says."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, SafetensorError):
        for name in json.loads((path / "state.json").read_text())["files"]:
            with safe_open(path / name, framework="pt"):
                pass
        return True
    return False


class StateWriter(HuggingFaceStorageWriter):
    """Writes a state beside its place; the first process moves it there at the end."""

    def __init__(self, place: Path, contents: Facts, kept: int) -> None:
        self.place = place
        self.contents = contents
        self.kept = kept
        self.temporary = place.with_name(f".{place.name}{PART}")
        super().__init__(str(self.temporary), save_distributed=True)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Called in the first process once all have written their files."""
        files = sorted({one.storage_data.relative_path for part in results for one in part})
        with (self.temporary / "state.json").open("w") as file:
            json.dump({**self.contents, "files": files}, file)
            file.flush()
            os.fsync(file.fileno())
        if self.place.exists():
            discard(self.place)
        self.temporary.rename(self.place)
        for path in sorted(self.place.parent.glob("update-*[0-9]"))[: -self.kept]:
            discard(path)


def discard(path: Path) -> None:
    """Remove a state; it loses its name first, so that half of it is never taken for one."""
    nameless = path.with_name(f".{path.name}.old{PART}")
    path.rename(nameless)
    shutil.rmtree(nameless)


def training_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """All tensors that a training consists of, by names that no way of running it changes."""
    found = {f"model.{name}": tensor.detach() for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"optimizer.{key}.{name}"] = value
    # The layout knows no tensors without an axis, such as counts of steps.
    return {name: tensor if tensor.ndim else tensor.view(1) for name, tensor in found.items()}


def prime(optimizer: Optimizer) -> None:
    """Let an optimizer make its tensors, so that a state can fill them; weights stay."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = parameter.detach() * 0.0
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
