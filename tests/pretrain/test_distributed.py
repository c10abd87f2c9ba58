"""One process, two with a whole model each, two with half of it each: one training."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from phenopipe.errors import UserError
from phenopipe.pretrain.config import MaeKnobs
from phenopipe.pretrain.distributed import World
from phenopipe.pretrain.loop import Training
from phenopipe.pretrain.mae import autoencoder_loss, build_autoencoder
from phenopipe.pretrain.states import States
from phenopipe.pretrain.stream import CropStream
from tests.pretrain import test_classifier, test_dino, test_mae, worker

UPDATES = 20
# Left-out crops: in shares of two crops, now and then nobody passes a block.
DROPPED = {"drop_path": 0.6, "drop_path_rule": "uniform"}
ADAMW = {"optimizer": "adamw"}
# The teacher looks at all pieces, whose nearest neighbours and prototypes they share.
DINO = {"step": "dino", "optimizer": "adamw", "measure_every": 8, **DROPPED}
STEPS = {"mae": test_mae, "classifier": test_classifier, "dino": test_dino}
LEGS = (("ddp", 2, 7), ("one", 1, 13), ("fsdp", 2, None))


def entry(screen, folder, name, *, step="mae", stop=None, states=None, **knobs):
    """One training of a plan for :mod:`tests.pretrain.worker`."""
    out = folder / name
    out.mkdir(parents=True)
    module = STEPS[step]
    settings = {"updates": UPDATES, "checkpoint_every": 100, **knobs}
    settings["checkpoints"] = str(folder / (states or name) / "states")
    plan = {"step": step, "flags": module.command(screen, out, **settings)}
    return {**plan, "log": str(out / "log"), **({} if stop is None else {"stop": stop})}


def launch(folder, name, plan, processes=2):
    (folder / f"{name}.json").write_text(json.dumps(plan))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += [str(processes), "-m", "tests.pretrain.worker", str(folder / f"{name}.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def trained(screen, tmp_path_factory):
    """Folder of all trainings that the tests below look at."""
    return train_all(screen, tmp_path_factory.mktemp("trained"))


def train_all(screen, folder):
    """Run every training, on one process and on two."""

    def one(name, **settings):
        return entry(screen, folder, name, **settings)

    legs = {}
    for number, (kind, _, stop) in enumerate(LEGS):
        way = {"parallel": "fsdp"} if kind == "fsdp" else {}
        for label, settings in (("lion", DROPPED), ("adamw", ADAMW), ("dino", DINO)):
            name = f"{label}-leg-{number}"
            states = f"{label}-leg-0"
            legs[label, number] = one(name, stop=stop, states=states, **settings, **way)
    labels = ("lion", "adamw", "dino")
    many = [
        one("ddp", **DROPPED),
        one("fsdp", **DROPPED, parallel="fsdp", activation_checkpointing=True),
        one("judge-2", step="classifier", updates=8),
        one("dino-ddp", **DINO, micro_batch=1),
        one("dino-short", **DINO, updates=2, precision="bfloat16", parallel="fsdp"),
        one("short", **DROPPED, updates=2, precision="bfloat16", parallel="fsdp"),
    ]
    launch(folder, "first", [*many, *(legs[label, 0] for label in labels)])
    alone = [
        one("alone", **DROPPED),
        one("pieces", **DROPPED, micro_batch=3),
        one("adamw", **ADAMW),
        one("judge-1", step="classifier", updates=8),
        one("dino-alone", **DINO),
    ]
    assert worker.run(alone) == [0] * len(alone)
    assert worker.run([legs[label, 1] for label in labels]) == [85] * len(labels)
    launch(folder, "last", [legs[label, 2] for label in labels])
    return folder


def rows(folder, *names):
    found = []
    for name in names:
        for path in sorted((folder / name).glob("log.*.jsonl")):
            found += [json.loads(line) for line in path.read_text().splitlines()]
    return found


def losses(folder, *names):
    found = {row["update"]: row["loss"] for row in rows(folder, *names)}
    return np.array([found[update] for update in range(len(found))])


def samples(folder, *names):
    return {k: v for row in rows(folder, *names) for k, v in row["samples"].items()}


def weights(folder, update, *names):
    (path,) = [p for name in names for p in (folder / name).glob(f"log.{update}.npz")]
    return dict(np.load(path))


def legs_of(label):
    return [f"{label}-leg-{number}" for number in range(len(LEGS))]


def loss_apart(folder, alone, *others):
    """Largest relative difference between the losses of one update."""
    return float(np.abs(losses(folder, *others) / losses(folder, alone) - 1).max())


def weights_apart(folder, alone, *others):
    """Relative norm of the difference between the last weights, tensor by tensor."""
    found = weights(folder, UPDATES - 1, *others)
    # Attention does not see what all keys share: nothing but rounding moves their biases.
    return {
        name: float(np.linalg.norm(found[name] - expected) / np.linalg.norm(expected))
        for name, expected in weights(folder, UPDATES - 1, alone).items()
        if not name.endswith("k_norm.bias")
    }


def flipped_signs(folder, alone, *legs):
    """Share of all moves of weights that went the other way."""
    flipped = []
    for update in range(1, UPDATES):
        here, there = (
            [weights(folder, u, *one) for u in (update - 1, update)] for one in ([alone], legs)
        )
        for name in here[0]:
            moves = [np.sign(after[name] - before[name]) for before, after in (here, there)]
            flipped.append((moves[0] != moves[1]).ravel())
    return float(np.concatenate(flipped).mean())


@pytest.mark.parametrize("way", ["ddp", "fsdp", "pieces"])
def test_loss_goes_the_same_way_however_a_training_is_run(trained, way):
    assert len(losses(trained, way)) == UPDATES
    assert loss_apart(trained, "alone", way) < 1e-4
    assert samples(trained, way) == samples(trained, "alone")


def test_two_then_one_then_two_processes_see_the_same_samples(trained):
    for label in ("lion", "adamw"):
        legs = legs_of(label)
        seen = [row["update"] for row in rows(trained, *legs)]
        # Each update was made once by each process of its leg.
        assert np.bincount(seen).tolist() == [2] * 7 + [1] * 6 + [2] * 7
        whole = "alone" if label == "lion" else "adamw"
        assert samples(trained, *legs) == samples(trained, whole)
        assert len(samples(trained, whole)) == UPDATES * 4


def test_with_adamw_weights_agree_after_two_one_and_two_processes(trained):
    apart = weights_apart(trained, "adamw", *legs_of("adamw"))
    assert len(apart) > 30 and max(apart.values()) <= 1e-4, apart


def test_biases_of_keys_which_are_not_compared_hold_nothing(trained):
    found = weights(trained, UPDATES - 1, "adamw")
    sizes = [np.linalg.norm(v) for name, v in found.items() if name.endswith("k_norm.bias")]
    assert sizes and max(sizes) < 1e-8


def test_with_lion_the_loss_agrees_and_few_signs_flip(trained):
    assert loss_apart(trained, "alone", *legs_of("lion")) < 1e-4
    assert flipped_signs(trained, "alone", *legs_of("lion")) < 0.02


def test_classifier_trains_on_two_processes_as_on_one(trained):
    assert loss_apart(trained, "judge-1", "judge-2") < 1e-4
    assert samples(trained, "judge-2") == samples(trained, "judge-1")


def test_shards_in_bfloat16_train(trained):
    assert np.isfinite(losses(trained, "short")).all()
    assert (trained / "short/encoder/model.safetensors").exists()


@pytest.mark.parametrize("form", ["as_released", "patch", "image"])
@pytest.mark.parametrize("channel_agnostic", [False, True])
def test_mean_of_pieces_is_the_mean_of_the_batch(screen, tmp_path, form, channel_agnostic):
    knobs = MaeKnobs(
        **{**test_mae.TINY, "fourier": form, "fourier_weight": 0.5, "batch": 6},
        channel_agnostic=channel_agnostic,
    )
    n_noise = 16 * (2 if channel_agnostic else 1)
    found = []
    for pieces in (None, 4, 1):
        torch.manual_seed(0)
        stream = CropStream(
            screen.sites(),
            **{"crop": 16, "batch": 6, "seed": 0, "flips": True},
            extras=lambda rng, site: (rng.random(n_noise, np.float32),),
        )
        run = Training(
            build_autoencoder(knobs, 2),
            *(stream, autoencoder_loss),
            knobs.model_copy(update={"micro_batch": pieces}),
            *(States(tmp_path), "test"),
        )
        numbers = run._gradients(stream.batch(0))
        gradient = torch.cat(
            [p.grad.flatten() for p in run.model.parameters() if p.requires_grad]
        )
        found.append((float(numbers["fourier"]), float(numbers["loss"]), gradient))
    for fourier, loss, gradient in found[1:]:
        assert (fourier, loss) == pytest.approx(found[0][:2], rel=1e-5)
        assert (gradient - found[0][2]).norm() < 1e-5 * gradient.norm()


def test_world_that_is_not_the_one_asked_for_is_refused(monkeypatch):
    monkeypatch.setenv("PHENOPIPE_PROCESSES", "4")
    with pytest.raises(UserError, match=r"4 processes were asked for .*, found 1"):
        World.join()
    monkeypatch.setenv("PHENOPIPE_PROCESSES", "many")
    with pytest.raises(UserError, match="wanted a number of processes"):
        World.join()
    monkeypatch.delenv("PHENOPIPE_PROCESSES")
    assert World.join().size == 1
    with pytest.raises(UserError, match="batch 10 cannot be shared equally by 4 processes"):
        World(0, 4).share_of(10)
    assert World().spread(model := nn.Linear(1, 1), "fsdp", bfloat16=False) is model


def test_student_and_teacher_go_the_same_way_however_they_are_trained(trained):
    for way in (["dino-ddp"], legs_of("dino")):
        assert len(losses(trained, *way)) == UPDATES
        assert loss_apart(trained, "dino-alone", *way) < 1e-5
        assert samples(trained, *way) == samples(trained, "dino-alone")


def test_teacher_agrees_after_two_one_and_two_processes(trained):
    apart = weights_apart(trained, "dino-alone", *legs_of("dino"))
    assert sum(name.startswith("teacher.") for name in apart) > 30
    assert max(apart.values()) <= 1e-4, apart


def test_student_and_teacher_train_in_shards_in_bfloat16(trained):
    assert np.isfinite(losses(trained, "dino-short")).all()
    assert (trained / "dino-short/encoder/model.safetensors").exists()
