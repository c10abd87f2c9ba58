"""A student and its teacher train, stop, go on, and leave an ordinary encoder."""

import json
import signal
import subprocess
import sys
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from phenopipe.encoders.folder import load_encoder, read_config, save_encoder, trimmed
from phenopipe.errors import UserError
from phenopipe.formats.histories import HISTORY
from phenopipe.formats.tables import read_table
from phenopipe.pretrain import mae
from phenopipe.pretrain.config import DinoKnobs
from phenopipe.pretrain.dino import build_dino, describe_encoder, image_flops, main
from phenopipe.pretrain.dino_losses import effective_rank
from phenopipe.pretrain.distillation import (
    Distillation,
    teacher_momentum,
    teacher_temperature,
)
from phenopipe.pretrain.distributed import World
from phenopipe.pretrain.loop import Training
from phenopipe.pretrain.measures import Labelled, Measures
from phenopipe.pretrain.states import States
from phenopipe.pretrain.views import ViewStream

from . import test_mae

TINY = {
    "crop": 16,
    "small_crop": 8,
    "patch": 4,
    "dim": 16,
    "depth": 2,
    "heads": 2,
    "prototypes": 32,
    "head_dim": 16,
    "head_features": 8,
    "batch": 4,
    "held_out": 2,
    "measure_every": 5,
    "checkpoint_every": 5,
}


def command(screen, out, **knobs):
    settings = DinoKnobs(**{**TINY, "updates": 12, "checkpoints": str(out / "states"), **knobs})
    return [
        f"--manifest={screen.manifest}",
        f"--images={screen.images}",
        f"--pixels={screen.pixels}",
        f"--model={out}/encoder/model.safetensors",
        f"--config={out}/encoder/config.json",
        f"--card={out}/encoder/README.md",
        f"--history={out}/history.parquet",
        "--encoder=tiny",
        *settings.as_flags(),
    ]


def history_of(folder):
    return read_table(folder / "history.parquet", HISTORY)


def bytes_of(folder):
    return (folder / "encoder/model.safetensors").read_bytes()


def test_step_writes_an_ordinary_encoder(screen, tmp_path):
    main(command(screen, tmp_path, drop_path=0.2))
    folder = tmp_path / "encoder"
    encoder = load_encoder(folder)
    assert encoder.config.kind == "dino" and encoder.config.channels == ("dna", "actin")
    # Twelve updates of four images, six crops each.
    assert encoder.config.crops_seen == 12 * 4 * 6 and encoder.config.training_flops > 0
    images = torch.zeros(3, 2, 16, 16, dtype=torch.uint8)
    assert encoder.forward_blocks(images).shape == (3, 2, 16)
    cut = trimmed(encoder.config, 1, of="tiny")
    images = torch.randint(0, 255, (3, 2, 16, 16), dtype=torch.uint8)
    assert torch.equal(
        load_encoder(folder, trim=1).forward_blocks(images)[:, 0],
        encoder.forward_blocks(images)[:, 0],
    )
    assert cut.best_block == 1
    history = history_of(tmp_path)
    assert history.height == 12
    assert history["held_out_loss"].is_not_null().to_list() == [
        update in (5, 10, 12) for update in range(1, 13)
    ]
    parts = 1.0 * history["dino"] + 1.0 * history["ibot"] + 0.1 * history["koleo"]
    assert np.allclose(parts, history["loss"], rtol=1e-5)


def test_killed_training_ends_with_the_same_teacher(screen, tmp_path):
    knobs = {"centring": "centre", "drop_path": 0.5, "measure_every": 3}
    main(command(screen, tmp_path / "whole", **knobs))
    flags = command(screen, tmp_path / "killed", checkpoint_every=1, **knobs)
    code = (
        "import os, signal, sys, phenopipe.pretrain.loop as loop\n"
        "step = loop.Training.step\n"
        "def dying(self, update, batch):\n"
        "    if update == 7:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, update, batch)\n"
        "loop.Training.step = dying\n"
        "from phenopipe.pretrain.dino import main\n"
        "main(sys.argv[1:])\n"
    )
    died = subprocess.run(
        [sys.executable, "-c", code, *flags], capture_output=True, check=False
    )
    assert died.returncode == -signal.SIGKILL
    main(flags)
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "killed")
    assert history_of(tmp_path / "whole").equals(history_of(tmp_path / "killed"))


def training(screen, folder, **knobs):
    settings = DinoKnobs(**{**TINY, "updates": 6, **knobs})
    torch.manual_seed(0)
    model = build_dino(settings, 2)
    work = Distillation(model, settings, World(), 6)
    stream = ViewStream(screen.sites(), settings)
    run = Training(
        *(model, stream, work.loss, settings, States(folder), "test"),
        prepare=work.prepare,
        follow=work.follow,
    )
    model.train()
    return run, work


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_teacher_is_the_running_mean_of_the_student(screen, tmp_path):
    run, _ = training(screen, tmp_path, momentum=(0.8, 0.9))
    for update in range(3):
        before = state_of(run.model.teacher)
        run.step(update, run.stream.batch(update))
        keeps = teacher_momentum(run.knobs, update / 6)
        assert 0.8 <= keeps < 0.9
        for name, value in run.model.teacher.state_dict().items():
            expected = keeps * before[name] + (1 - keeps) * run.model.student.state_dict()[name]
            assert torch.allclose(value, expected, atol=1e-6), name
    assert not any(p.requires_grad for p in run.model.teacher.parameters())


def test_gradient_that_is_not_finite_leaves_teacher_and_centre_alone(screen, tmp_path):
    run, work = training(screen, tmp_path, centring="centre")
    run.step(0, run.stream.batch(0))
    before = state_of(run.model)
    assert before["crop_centre"].abs().max() > 0 and before["patch_centre"].abs().max() > 0
    run.loss_of = lambda called, piece: {
        name: value * float("nan") for name, value in work.loss(called, piece).items()
    }
    run.step(1, run.stream.batch(1))
    assert all(torch.equal(v, before[n]) for n, v in run.model.state_dict().items())
    assert run.guard.skipped == 1


def test_a_training_that_returns_takes_its_teacher_back(screen, tmp_path, monkeypatch):
    loss = Distillation.loss
    seen = {"count": 0}

    def spoiled(self, called, piece):
        seen["count"] += 1
        found = loss(self, called, piece)
        if 7 <= seen["count"] < 10:
            return {name: value * float("nan") for name, value in found.items()}
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "loss", spoiled)
        main(command(screen, tmp_path, max_skipped=2, measure_every=0, centring="centre"))
    # After the state of update 5, the crops of updates 6 to 9 were left out for good.
    assert seen["count"] == 9 + 7
    assert history_of(tmp_path)["gradient_norm"].is_finite().all()


def test_temperature_rises_in_a_line_and_momentum_by_half_a_cosine():
    knobs = DinoKnobs(teacher_warmup=0.5)
    found = [teacher_temperature(knobs, share) for share in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])
    found = [teacher_momentum(knobs, share) for share in (0.0, 0.5, 1.0)]
    assert found == pytest.approx([0.992, 0.996, 1.0])


def test_prototypes_learn_only_after_a_share_of_the_updates(screen, tmp_path):
    run, _ = training(screen, tmp_path, frozen=0.3)
    head = run.model.student.class_head
    directions = [torch.nn.functional.normalize(head.prototypes.detach(), dim=1)]
    for update in range(4):
        run.step(update, run.stream.batch(update))
        directions.append(torch.nn.functional.normalize(head.prototypes.detach(), dim=1))
    moved = [float((b - a).abs().max()) for a, b in pairwise(directions)]
    assert max(moved[:2]) < 1e-6 and min(moved[2:]) > 1e-4


@pytest.mark.parametrize("centring", ["sinkhorn", "centre"])
def test_pieces_of_a_batch_make_the_gradient_of_the_whole(screen, tmp_path, centring):
    found = []
    for pieces in (None, 4, 1):
        knobs = {"centring": centring, "drop_path": 0.6, "drop_path_rule": "uniform"}
        run, work = training(screen, tmp_path, batch=6, micro_batch=pieces, **knobs)
        numbers = run._gradients(run.stream.batch(0), 0)
        gradient = torch.cat(
            [p.grad.flatten() for p in run.model.student.parameters() if p.requires_grad]
        )
        found.append((numbers, gradient, work.lesson.of_crops))
    for numbers, gradient, guide in found[1:]:
        for name, value in found[0][0].items():
            assert float(numbers[name]) == pytest.approx(float(value), rel=1e-5), name
        assert (gradient - found[0][1]).norm() < 1e-5 * gradient.norm()
        assert torch.allclose(guide.offset_K, found[0][2].offset_K, atol=1e-4)


def test_a_batch_without_hidden_patches_trains(screen, tmp_path):
    run, _ = training(screen, tmp_path, masked=0.0, small_crops=0)
    row = run.step(0, run.stream.batch(0))
    assert row.parts["ibot"] == 0.0 and np.isfinite(row.loss)
    assert all(p.grad is not None for p in run.model.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", ["mae", "dino"])
def test_training_starts_from_an_encoder_of_the_same_network(screen, tmp_path, kind):
    shared = {"crop": 16, "patch": 4, "dim": 16, "depth": 2, "heads": 2}
    first = tmp_path / "first"
    if kind == "mae":
        mae.main(test_mae.command(screen, first, updates=3))
    else:
        main(command(screen, first, updates=3, measure_every=0))
    start = [
        f"--start-model={first}/encoder/model.safetensors",
        f"--start-config={first}/encoder/config.json",
    ]
    slow = {**shared, "updates": 1, "lr": 1e-9, "measure_every": 0}
    main([*command(screen, tmp_path / "warm", **slow), *start])
    before, warm = (load_encoder(p / "encoder") for p in (first, tmp_path / "warm"))
    for name, value in before.model.state_dict().items():
        assert torch.allclose(value, warm.model.state_dict()[name], atol=1e-7), name
    assert warm.config.crops_seen == before.config.crops_seen + 24
    with pytest.raises(UserError, match=r"model_args.depth is 2 there and 3 here"):
        main([*command(screen, tmp_path / "deep", **{**slow, "depth": 3}), *start])


def test_loss_falls_and_embeddings_stay_apart(screen, tmp_path):
    main(
        command(
            screen,
            tmp_path,
            **{"updates": 100, "batch": 8, "dim": 32, "lr": 1e-3, "measure_every": 50},
            **{"checkpoint_every": 1000, "probe_every": 50},
        )
    )
    history = history_of(tmp_path)
    assert history["loss"].tail(20).mean() < history["loss"].head(20).mean() - 0.3
    accuracies = history.filter(pl.col("probe_1").is_not_null())
    assert accuracies["update"].to_list() == [50, 100]
    assert accuracies["probe_2"][-1] == 1.0
    # Two genes, stripes across and down: the teacher tells them apart.
    encoder = load_encoder(tmp_path / "encoder")
    sites = screen.sites()
    pixels = np.stack([sites.pixels(at)[:, 2:18, 2:18] for at in range(len(sites))])
    rank = effective_rank(encoder.forward_blocks(torch.from_numpy(pixels))[:, -1])
    assert rank > 3.2


def test_collapse_is_told_once_and_stops_where_it_shall(screen, tmp_path, capsys):
    # Neither sharpened nor spread: a teacher whose targets are all alike.
    flat = {"centring": "centre", "teacher_temperature": (100.0, 100.0), "koleo_weight": 0.0}
    main(command(screen, tmp_path / "on", **flat, logs=str(tmp_path / "logs")))
    told = [json.loads(line) for line in (tmp_path / "logs/log.jsonl").read_text().splitlines()]
    events = [row["event"] for row in told if "collapsed" in row.get("event", "")]
    assert len(events) == 1 and events[0].startswith("collapsed at update 5: ")
    with pytest.raises(UserError, match="collapsed at update 5") as caught:
        main(command(screen, tmp_path / "stops", **flat, stop_collapsed=True))
    assert "\n" not in str(caught.value)


def test_operations_of_an_image_are_those_of_its_crops():
    sizes = {"dim": 64, "depth": 5, "prototypes": 50, "head_dim": 40, "head_features": 30}
    knobs = DinoKnobs(**sizes, masked=1.0, mask_ratio=(0.25, 0.25))

    def encode(patches):
        tokens, dim = patches + 1, 64
        block = 2 * tokens * 12 * dim**2 + 4 * tokens**2 * dim
        return 5 * block + 2 * patches * 2 * 8 * 8 * dim

    def head(rows):
        return 2 * rows * (64 * 40 + 40 * 40 + 40 * 30 + 30 * 50)

    hidden = 2 * 64 // 4
    student = 2 * encode(64) + 4 * encode(16) + head(6) + head(hidden)
    teacher = 2 * encode(64) + head(2) + head(hidden)
    assert image_flops(knobs, 2) == pytest.approx(3 * student + teacher, rel=0.01)


def test_presets_are_those_of_the_appendix():
    for preset, patch in (("L/16", 16), ("L/8", 8)):
        knobs = DinoKnobs(preset=preset)
        assert (knobs.patch, knobs.dim, knobs.depth, knobs.heads) == (patch, 1024, 24, 16)
        assert (knobs.prototypes, knobs.large_crops, knobs.small_crops) == (65_536, 2, 4)
        assert (knobs.dino_weight, knobs.ibot_weight, knobs.koleo_weight) == (1.0, 1.0, 0.1)
        assert (knobs.optimizer, knobs.lr, knobs.weight_decay) == ("lion", 1e-5, 0.05)
        assert knobs.betas == (0.9, 0.95) and knobs.crop == 256
    with torch.device("meta"):
        model = build_dino(DinoKnobs(preset="L/8"), 6)
    encoder = sum(p.numel() for p in model.teacher.encoder.parameters())
    assert encoder == 303_664_128


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"small_crop": 30}, "small_crop 30: wanted a multiple of patch"),
        ({"small_crop": 128}, "wanted at most crop 64"),
        ({"mask_ratio": (0.5, 0.1)}, "wanted the least first"),
        ({"momentum": (0.9, 1.1)}, "wanted shares from 0 to 1"),
        ({"preset": "L/4"}, "preset"),
    ],
)
def test_knobs_that_do_not_fit_are_refused(knobs, told):
    with pytest.raises(ValidationError, match=told):
        DinoKnobs(**knobs)


def test_card_and_config_name_the_kind(screen, tmp_path):
    main(command(screen, tmp_path, updates=1, measure_every=0))
    config = read_config(tmp_path / "encoder")
    assert (config.kind, config.pooling) == ("dino", "class")
    assert "| architecture |" in (tmp_path / "encoder/README.md").read_text()
    save_encoder(tmp_path / "again", load_encoder(tmp_path / "encoder"))
    assert bytes_of(tmp_path) == (tmp_path / "again/model.safetensors").read_bytes()


def test_what_counts_as_collapsed(screen, tmp_path):
    _, work = training(screen, tmp_path, dim=16)
    sites, lines = screen.sites(), []
    shown = sites.only(np.arange(len(sites)) < 9)
    config = describe_encoder(work.knobs, sites.channels, "")
    measures = Measures(work, config, shown, None, lambda *line: lines.append(line))
    # Nine images differ in eight directions at most; a twentieth of these is 0.4.
    for update, (rank, told) in enumerate(
        [(5.0, 0.3), (0.3, 0.3), (0.3, 0.3), (2.0, 0.005), (1.0, 0.1)]
    ):
        measures._judge(update, {"held_out_rank": rank, "held_out_told": told})
    assert [update for update, _ in lines] == [1, 4]
    assert lines[0][1].startswith(
        "collapsed at update 1: embeddings differ in 0.3 directions of 8"
    )
    assert lines[1][1] == "no longer collapsed at update 4"


def test_probes_look_at_labelled_wells_half_of_which_teach(screen):
    wells = pl.read_parquet(screen.manifest)
    control = pl.col("well_id").is_in(wells["well_id"].head(6).to_list())
    role = pl.when(control).then(pl.lit("negative_control")).otherwise(pl.col("role"))
    labelled = Labelled(screen.sites(), wells.with_columns(role=role), DinoKnobs(**TINY))
    assert len(labelled.sites) == len(labelled.label_I) == 18
    assert not set(labelled.sites.table["well_id"]) & set(wells["well_id"].head(6))
    for gene in ("A", "B"):
        teach = labelled.learns_I[labelled.label_I == gene]
        assert 4 <= teach.sum() <= 5 and len(teach) == 9
    few = DinoKnobs(**TINY, probe_images=7, probe_classes=1)
    with pytest.raises(UserError, match="wanted at least two classes of two wells"):
        Labelled(screen.sites(), wells, few)
    assert len(Labelled(screen.sites(), wells, DinoKnobs(**TINY, probe_images=7)).label_I) == 7
