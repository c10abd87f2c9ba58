import json
import math
import platform
from dataclasses import replace

import numpy as np
import pytest
import torch
from timm.optim import Lion
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from phenopipe.errors import UserError
from phenopipe.pretrain.config import TrainingKnobs
from phenopipe.pretrain.loop import Training, one_cycle
from phenopipe.pretrain.states import States
from phenopipe.pretrain.stream import CropStream


class Mean(nn.Module):
    """Learns one number: the mean pixel."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))
        self.drop = nn.Dropout(0.5)

    def forward(self, images):
        return self.drop(images.float() / 255) - self.value


def squared(model, batch):
    return {"loss": model(batch[0]).square().mean()}


def training(screen, folder, loss_of=squared, **knobs):
    torch.manual_seed(0)
    settings = TrainingKnobs(**{"updates": 12, "batch": 4, "checkpoint_every": 5, **knobs})
    stream = CropStream(
        screen.sites(), crop=16, batch=4, seed=0, flips=True, extras=lambda rng, site: ()
    )
    return Training(Mean(), stream, loss_of, settings, States(folder), "test")


@pytest.mark.parametrize("updates", [20, 100, 537])
@pytest.mark.parametrize("warmup", [0.1, 0.3])
def test_schedule_equals_torchs_one_cycle(updates, warmup):
    optimizer = Lion([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = OneCycleLR(
        optimizer, 3e-4, total_steps=updates, pct_start=warmup, cycle_momentum=False
    )
    expected = []
    for _ in range(updates):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < updates:
            schedule.step()
    found = [one_cycle(update, updates, 3e-4, warmup) for update in range(updates)]
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("updates", range(1, 25))
def test_schedule_stays_between_zero_and_its_peak_in_short_trainings(updates):
    rates = [one_cycle(update, updates, 1.0, 0.1) for update in range(updates)]
    assert all(0.0 < rate <= 1.0 for rate in rates)


def test_history_tells_every_update_and_the_loss_falls(screen, tmp_path):
    run = training(screen, tmp_path, updates=80, lr=0.05)
    history = run.run()
    assert history["update"].to_list() == list(range(1, 81))
    assert history["epoch"][-1] == pytest.approx(80 * 4 / 24)
    assert history["loss"].tail(10).mean() < 0.8 * history["loss"].head(3).mean()


def test_stopped_training_ends_with_the_same_weights(screen, tmp_path):
    whole = training(screen, tmp_path / "whole")
    expected = whole.run()
    # Dropout draws from torch's generator: a continued training must find it as it was.
    stopped = training(screen, tmp_path / "stopped", loss_of=stop_after(8))
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    torch.rand(17)
    continued = training(screen, tmp_path / "stopped")
    history = continued.run()
    assert torch.equal(continued.model.value, whole.model.value)
    assert history.equals(expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("lacks", [False, True])
def test_a_processor_without_the_precision_is_told(
    screen, tmp_path, capsys, monkeypatch, precision, lacks
):
    has = {"avx512_bf16": not lacks, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    training(screen, tmp_path, precision=precision, updates=2).run()
    told = "this processor has no bfloat16: float32 is several times as fast here"
    assert (told in "".join(capsys.readouterr())) == (lacks and precision == "bfloat16")


def stop_after(updates):
    made = []

    def loss(model, batch):
        made.append(1)
        if len(made) > updates:
            raise KeyboardInterrupt
        return squared(model, batch)

    return loss


def test_gradient_that_is_not_finite_changes_nothing(screen, tmp_path):
    calls = []

    def sometimes_nan(model, batch):
        calls.append(1)
        loss = squared(model, batch)["loss"]
        return {"loss": loss * math.nan if len(calls) == 3 else loss}

    run = training(screen, tmp_path, loss_of=sometimes_nan, updates=4)
    values = []
    for update in range(4):
        run.step(update, run.stream.batch(update))
        values.append(run.model.value.item())
    assert values[1] == values[2] != values[3]
    assert math.isfinite(values[3]) and run.guard.skipped == 0


class Normed(Mean):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, images):
        return self.norm(images.float() / 255) - self.value


def test_skipped_update_leaves_running_means_alone_and_is_told(screen, tmp_path, capsys):
    def infinite(model, batch):
        scale = math.inf if run.done == 2 else 1.0
        return {"loss": squared(model, batch)["loss"] * scale}

    run = training(screen, tmp_path, updates=4, logs=str(tmp_path / "logs"), log_every=1)
    run = replace(run, model=Normed(), loss_of=infinite)
    means = []
    run.watch = lambda model, update: means.append(model.norm.running_mean.tolist())
    history = run.run()
    assert means[0] != means[1] == means[2] != means[3]
    assert history["skipped"].to_list() == [False, False, True, False]
    assert "update 3 skipped, its gradient is nan long (1 in all)" in capsys.readouterr().err
    lines = (tmp_path / "logs" / "log.jsonl").read_text()
    assert all(json.loads(line, parse_constant=pytest.fail) for line in lines.splitlines())


def test_training_without_finite_gradients_stops_with_one_line(screen, tmp_path):
    def always_nan(model, batch):
        return {"loss": squared(model, batch)["loss"] * math.nan}

    run = training(screen, tmp_path, loss_of=always_nan, max_skipped=2)
    with pytest.raises(UserError, match="in 3 updates running") as caught:
        run.run()
    assert "\n" not in str(caught.value)
