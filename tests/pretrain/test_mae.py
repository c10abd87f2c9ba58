import json
import math
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from phenopipe.encoders import channel_agnostic
from phenopipe.encoders.folder import load_encoder
from phenopipe.errors import UserError
from phenopipe.formats.histories import HISTORY
from phenopipe.formats.tables import read_table
from phenopipe.pretrain import config
from phenopipe.pretrain.config import MaeKnobs
from phenopipe.pretrain.flops import training_flops
from phenopipe.pretrain.loop import Training
from phenopipe.pretrain.mae import build_autoencoder, main
from phenopipe.pretrain.reconstructions import hold_out
from tests.pretrain.conftest import make_screen

TINY = {
    "crop": 16,
    "patch": 4,
    "dim": 16,
    "depth": 2,
    "heads": 2,
    "decoder_dim": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "batch": 4,
    "held_out": 2,
    "checkpoint_every": 5,
}


def command(screen, out, **knobs):
    settings = MaeKnobs(**{**TINY, "updates": 12, "checkpoints": str(out / "states"), **knobs})
    return [
        f"--manifest={screen.manifest}",
        f"--images={screen.images}",
        f"--pixels={screen.pixels}",
        f"--model={out}/encoder/model.safetensors",
        f"--config={out}/encoder/config.json",
        f"--card={out}/encoder/README.md",
        f"--history={out}/history.parquet",
        f"--reconstructions={out}/reconstructions.npz",
        f"--panels={out}/panels",
        "--encoder=tiny",
        *settings.as_flags(),
    ]


@pytest.mark.parametrize("channel_agnostic", [False, True])
def test_step_writes_an_encoder_that_loads(screen, tmp_path, channel_agnostic):
    main(command(screen, tmp_path, channel_agnostic=channel_agnostic, drop_path=0.2))
    encoder = load_encoder(tmp_path / "encoder")
    assert encoder.config.channels == ("dna", "actin")
    assert encoder.config.crops_seen == 48 and encoder.config.training_flops > 0
    blocks = encoder.forward_blocks(torch.zeros(1, 2, 16, 16, dtype=torch.uint8))
    assert blocks.shape == (1, 2, 16)
    history = read_table(tmp_path / "history.parquet", HISTORY)
    assert history.height == 12 and {"l2", "fourier"} < set(history.columns)
    painted = np.load(tmp_path / "reconstructions.npz")
    shape = (2, 2, 16, 16)
    assert all(painted[name].shape == shape for name in ("input", "output", "mask"))
    assert painted["mask"].mean() == pytest.approx(0.75)
    assert list(painted["channels"]) == ["dna", "actin"] and painted["l2"].shape == (2,)


def test_equal_runs_give_equal_bytes(screen, tmp_path):
    for name in ("first", "second"):
        main(command(screen, tmp_path / name, checkpoints=str(tmp_path / name / "states")))
    files = ["encoder/model.safetensors", "reconstructions.npz"]
    for file in files:
        first, second = ((tmp_path / name / file).read_bytes() for name in ("first", "second"))
        assert first == second, file
    tables = [
        pl.read_parquet(tmp_path / name / "history.parquet") for name in ("first", "second")
    ]
    assert tables[0].equals(tables[1])


def test_killed_training_ends_with_the_same_weights(screen, tmp_path):
    main(command(screen, tmp_path / "whole"))
    flags = command(screen, tmp_path / "killed", checkpoint_every=1)
    code = (
        "import os, signal, phenopipe.pretrain.loop as loop\n"
        "step = loop.Training.step\n"
        "def dying(self, update, batch):\n"
        "    if update == 7:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, update, batch)\n"
        "loop.Training.step = dying\n"
        "import sys\n"
        "from phenopipe.pretrain.mae import main\n"
        "main(sys.argv[1:])\n"
    )
    died = subprocess.run(
        [sys.executable, "-c", code, *flags], capture_output=True, check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/encoder").exists()
    main(flags)
    whole, killed = (
        (tmp_path / name / "encoder/model.safetensors").read_bytes()
        for name in ("whole", "killed")
    )
    assert whole == killed
    histories = [pl.read_parquet(tmp_path / n / "history.parquet") for n in ("whole", "killed")]
    assert histories[0].equals(histories[1])


def test_a_resumed_training_leaves_the_same_crops_out(screen, tmp_path, monkeypatch):
    knobs = {"drop_path": 0.6, "drop_path_rule": "uniform", "updates": 12}
    main(command(screen, tmp_path / "whole", **knobs))
    step = Training.step

    def stopping(self, update, batch):
        if update == 7:
            raise KeyboardInterrupt
        return step(self, update, batch)

    flags = command(screen, tmp_path / "stopped", **knobs)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            main(flags)
    main(flags)
    whole, stopped = (
        (tmp_path / name / "encoder/model.safetensors").read_bytes()
        for name in ("whole", "stopped")
    )
    assert whole == stopped
    main(command(screen, tmp_path / "dense", updates=12))
    assert (tmp_path / "dense/encoder/model.safetensors").read_bytes() != whole


def test_compiled_blocks_train_to_the_same_weights(screen, tmp_path):
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"torch.compile needs a C++ compiler, found no {compiler}")
    # Without layer scale the blocks decide the loss from the first update on.
    knobs = {"updates": 6, "optimizer": "adamw", "layer_scale": 1.0}
    torch._dynamo.reset()
    counters.clear()
    for compiled in (False, True):
        main(command(screen, tmp_path / str(compiled), **knobs, compile=compiled))
        assert bool(counters["stats"]["unique_graphs"]) is compiled
    losses, weights = [], []
    for name in ("False", "True"):
        losses.append(pl.read_parquet(tmp_path / name / "history.parquet")["loss"].to_numpy())
        weights.append(load_file(tmp_path / name / "encoder/model.safetensors"))
    assert len(losses[0]) == 6 and np.allclose(*losses, rtol=1e-5, atol=0)
    for name, wanted in weights[0].items():
        # Attention does not see what all keys share: rounding alone moves their biases.
        if not name.endswith("k_norm.bias"):
            assert (weights[1][name] - wanted).norm() <= 1e-4 * wanted.norm(), name


def test_trained_autoencoder_paints_better_than_the_mean(screen, tmp_path):
    knobs = {"updates": 150, "batch": 16, "lr": 3e-3, "dim": 32, "decoder_dim": 32}
    main(command(screen, tmp_path, **knobs, mask_ratio=0.5, checkpoint_every=1000))
    painted = np.load(tmp_path / "reconstructions.npz")
    assert painted["l2"].mean() < 0.8


def test_config_says_what_was_seen(screen, tmp_path):
    main(command(screen, tmp_path))
    content = json.loads((tmp_path / "encoder/config.json").read_text())
    assert content["phenopipe"]["inputs"]["manifest"] == [content["trained_on"]]
    assert content["license"] is None and content["kind"] == "mae"
    assert "licence of the weights | not stated" in (tmp_path / "encoder/README.md").read_text()


def test_config_and_card_say_how_pixels_were_scaled(tmp_path):
    facts = {"scaling": "percentiles", "percentiles": [0.1, 99.9], "pixel_size_um": 0.65}
    screen = make_screen(tmp_path / "screen", facts={"pixels": facts})
    main(command(screen, tmp_path))
    assert load_encoder(tmp_path / "encoder").config.pixels == [facts]
    told = "scaled from 16 to 8 bits (percentiles 0.1 to 99.9 of the controls of each plate)"
    card = (tmp_path / "encoder/README.md").read_text()
    assert f"| pixels it was trained on | {told}, 0.65 micrometres wide |" in card


def test_operations_of_the_papers_models():
    small = training_flops(
        lambda: build_autoencoder(
            MaeKnobs(
                crop=256,
                patch=16,
                dim=384,
                depth=12,
                heads=6,
                decoder_dim=512,
                decoder_depth=8,
                decoder_heads=16,
            ),
            6,
        ),
        torch.zeros(1, 6, 256, 256),
        torch.zeros(1, 256),
    )
    assert small / 1e9 == pytest.approx(52.5, rel=0.01)


def test_held_out_images_stay_held_out_when_others_go(screen):
    sites = screen.sites()
    held = hold_out(sites, 2, seed=0)
    assert held.sum() == 2
    fewer = np.ones(len(sites), dtype=bool)
    fewer[np.flatnonzero(~held)[:3]] = False
    again = hold_out(sites.only(fewer), 2, seed=0)
    kept = sites.only(fewer).table["image_id"].filter(pl.Series(again))
    assert kept.to_list() == sites.table["image_id"].filter(pl.Series(held)).to_list()


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"crop": 20}, r"crop 20: wanted a multiple of patch \(8\)"),
        ({"dim": 18, "heads": 2}, "dim 18: wanted a multiple of 4"),
        ({"heads": 3}, r"dim 128: wanted a multiple of heads \(3\)"),
        ({"decoder_dim": 10, "decoder_heads": 2}, "decoder_dim 10: wanted a multiple of 4"),
        ({"decoder_heads": 3}, "decoder_dim 64: wanted a multiple of decoder_heads"),
        ({"channel_agnostic": True, "decoder_dim": 12, "decoder_heads": 2}, "multiple of 8"),
        ({"betas": (2, 0.9)}, "less than 1"),
        ({"lr": math.inf}, "finite number"),
    ],
)
def test_sizes_that_cannot_be_are_refused_before_a_training_starts(knobs, told):
    with pytest.raises(ValidationError, match=told):
        MaeKnobs(**knobs)


def test_heads_between_channels_are_one_number():
    assert config.CROSS_ATTENTION_HEADS == channel_agnostic.CROSS_ATTENTION_HEADS


def test_one_image_cannot_be_trained_on_and_held_out(tmp_path):
    one = make_screen(tmp_path / "one", n_wells=1)
    with pytest.raises(UserError, match="found 1 image"):
        main(command(one, tmp_path))
