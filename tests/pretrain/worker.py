"""One of several processes of a test: runs trainings one after another and writes what it saw.

    torchrun --nproc-per-node 2 -m tests.pretrain.worker plan.json

The plan is a list of trainings: ``step``, ``flags``, ``log`` (a file for each process), and
``stop``, after how many updates the last process gets a signal.
"""

import hashlib
import json
import os
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch.distributed as dist

from phenopipe.pretrain.distributed import World, whole
from phenopipe.pretrain.launch import EXIT_REQUEUE
from phenopipe.pretrain.loop import Training


class Watched(Training):
    """A training that writes down which samples each update saw, and where it led."""

    log = None
    stop_after = None

    def step(self, update, batch):
        places = [update * self.knobs.batch + at for at in self.stream.places]
        digests = [
            hashlib.sha256(b"".join(part[at].numpy().tobytes() for part in batch)).hexdigest()
            for at in range(len(batch[0]))
        ]
        if update + 1 == self.stop_after and self.world.rank == self.world.size - 1:
            self.signals.asked = "SIGTERM"
        row = super().step(update, batch)
        named = self.model.named_parameters()
        named = [(n, p) for n, p in named if p.requires_grad or n.startswith("teacher.")]
        weights = {n: whole(p.detach()).numpy() for n, p in named}
        with Path(f"{self.log}.{self.world.rank}.jsonl").open("a") as file:
            told = {"update": update, "samples": dict(zip(places, digests, strict=True))}
            file.write(json.dumps({**told, "loss": row.loss}) + "\n")
        if self.world.leads:
            np.savez(f"{self.log}.{update}.npz", **weights)
        return row


def run(plan):
    """Run the trainings of a plan; returns the exit code of each."""
    codes = []
    for one in plan:
        Watched.log, Watched.stop_after = one["log"], one.get("stop")
        module = import_module(f"phenopipe.pretrain.{one['step']}")
        before, module.Training = module.Training, Watched
        try:
            module.main(one["flags"])
            codes.append(0)
        except SystemExit as stopped:
            codes.append(stopped.code)
        finally:
            module.Training = before
    return codes


if __name__ == "__main__":
    world = World.join()
    # They stay together between trainings.
    World.join = classmethod(lambda cls: world)
    World.leave = lambda self: dist.barrier()
    plan = json.loads(Path(sys.argv[1]).read_text())
    wanted = [EXIT_REQUEUE if "stop" in one else 0 for one in plan]
    assert run(plan) == wanted
    dist.destroy_process_group()
    assert os.environ["WORLD_SIZE"] == str(world.size)
