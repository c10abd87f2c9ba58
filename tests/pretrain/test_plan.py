import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from timm.optim import Lion
from torch.profiler import ProfilerActivity, profile

from phenopipe.errors import UserError
from phenopipe.pretrain.config import MaeKnobs
from phenopipe.pretrain.cost import crop_cost, saved_bytes
from phenopipe.pretrain.estimate import (
    GPUS,
    Machine,
    crop_seconds,
    implied_utilization,
    plan_training,
)
from phenopipe.pretrain.mae import build_autoencoder
from phenopipe.pretrain.plan import images_of, knobs_of, main, planned, read_config

PAPER = Path(__file__).parents[2] / "configs" / "paper.yaml"
TINY = {
    "crop": 16,
    "patch": 4,
    "dim": 16,
    "depth": 5,
    "heads": 2,
    "decoder_dim": 8,
    "decoder_depth": 3,
    "decoder_heads": 2,
    "batch": 100,
}


def machine(gpu="h100", gpus=256, **others):
    one = {"gpus_a_node": 8, "utilization": 0.35, "price_per_hour": None}
    one |= {"network": GPUS[gpu].network, "side": 2048, "pixel_bytes": 1}
    return Machine(gpu=GPUS[gpu], gpus=gpus, **{**one, **others})


def plan_of(name, where):
    config = read_config(PAPER)
    knobs = knobs_of(config, name)
    images = images_of(config, name, Path("no results"))
    return plan_training(knobs, crop_cost(knobs, 6), where, channels=6, images=images)


def test_the_papers_crops_hours_and_the_utilization_that_they_imply():
    where = machine()
    uncurated, large, giant = (
        plan_of(name, where) for name in ("mae_l8_rpi93m", "mae_l8", "mae_g8")
    )
    assert 3.5e9 <= uncurated.crops <= 3.8e9
    assert large.crops == pytest.approx(8e9, rel=1e-4)
    assert giant.crops == pytest.approx(8e9, rel=1e-4)
    assert large.cost.flops / 1e9 == pytest.approx(694, rel=0.01)
    assert giant.cost.flops / 1e9 == pytest.approx(3111, rel=0.01)
    assert implied_utilization(large, where, 15_360) == pytest.approx(0.102, abs=0.001)
    assert implied_utilization(giant, where, 48_000) == pytest.approx(0.146, abs=0.001)
    # Stochastic depth spares the whole update 1.39 times (G/8) and 1.12 times (L/8).
    assert giant.cost.flops / giant.cost.flops_spent == pytest.approx(1.39, abs=0.03)
    assert large.cost.flops / large.cost.flops_spent == pytest.approx(1.12, abs=0.03)


def test_the_giant_fits_a_gpu_of_80_gb_with_and_without_shards():
    giant = plan_of("mae_g8", machine())
    states = 12 * giant.cost.learning
    assert states / 1e9 == pytest.approx(22.4, abs=0.1)
    assert giant.memory_fsdp < giant.memory_ddp < 80e9
    assert giant.memory_ddp_checkpointed < giant.memory_ddp
    assert giant.crops_that_fit >= giant.crops_a_gpu == 32
    assert giant.state_bytes / 1e9 == pytest.approx(14.9, abs=0.1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("channel_agnostic", [False, True])
def test_bytes_kept_by_the_whole_model_follow_from_models_of_few_blocks(
    precision, channel_agnostic
):
    knobs = MaeKnobs(**TINY, precision=precision, channel_agnostic=channel_agnostic)
    cost = crop_cost(knobs, 3)
    direct = saved_bytes(knobs, 3, crops=7)
    assert 7 * cost.kept + cost.cast == pytest.approx(direct, rel=1e-6)
    assert cost.kept_checkpointed < cost.kept


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bytes_kept_are_those_of_a_real_forward_pass(precision):
    knobs = MaeKnobs(**TINY, precision=precision)
    model = build_autoencoder(knobs, 3)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor
        return tensor

    bfloat16 = precision == "bfloat16"
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
        torch.autograd.graph.saved_tensors_hooks(note, lambda x: x),
    ):
        model(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.rand(4, 16))
    real = sum(x.untyped_storage().nbytes() for x in kept.values())
    assert saved_bytes(knobs, 3, crops=4) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_planned_memory_is_that_of_a_real_update(precision):
    sizes = {"crop": 32, "dim": 64, "depth": 4, "heads": 4, "decoder_dim": 32}
    knobs = MaeKnobs(**{**TINY, **sizes}, updates=1, precision=precision)
    cost = crop_cost(knobs, 6)
    model = build_autoencoder(knobs, 6)
    optimizer = Lion([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    crops, noise = torch.zeros(64, 6, 32, 32, dtype=torch.uint8), torch.rand(64, 64)

    def update():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(crops, noise).loss
        loss.backward()
        optimizer.step()

    update()
    optimizer.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        update()
    events = watched.profiler.kineto_results.events()
    taken = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    peak = np.cumsum([size for _, size in taken]).max()
    # Weights and momentum were there before; several processes also keep their gradients.
    found = 12 * cost.learning + peak
    where = machine(gpus=1)
    plan = plan_training(
        knobs.model_copy(update={"batch": 64}), cost, where, channels=6, images=None
    )
    assert plan.memory_ddp == pytest.approx(found, rel=0.1)


def test_stochastic_depth_spares_what_its_skipped_blocks_cost():
    def cost(**knobs):
        return crop_cost(MaeKnobs(**TINY, **knobs), 3)

    whole, half = cost(), cost(drop_path=0.5, drop_path_rule="uniform")
    assert whole.flops_spent == whole.flops == half.flops
    less = cost(drop_path=0.25, drop_path_rule="uniform")
    assert whole.flops - half.flops_spent == pytest.approx(
        2 * (whole.flops - less.flops_spent), rel=1e-9
    )
    assert half.kept < less.kept < whole.kept
    assert cost(drop_path=0.5, drop_path_form="masked").flops_spent == whole.flops


def test_figures_by_hand():
    knobs = MaeKnobs(**TINY, updates=10, checkpoint_every=5)
    cost = crop_cost(knobs, 3)
    where = machine(gpus=16, utilization=0.5, price_per_hour=2.0, network=1e9, side=32)
    plan = plan_training(knobs, cost, where, channels=3, images=None)
    speed = 989e12 * 0.5
    assert (plan.updates, plan.crops, plan.crops_a_gpu) == (10, 1000, 7)
    assert plan.gpu_hours == pytest.approx(1000 * cost.flops / speed / 3600)
    assert plan.price == pytest.approx(2 * plan.gpu_hours)
    assert plan.days == pytest.approx(plan.gpu_hours / 16 / 24)
    assert plan.update_seconds == pytest.approx(100 * cost.flops / speed / 16)
    assert plan.crops_a_second == pytest.approx(100 / plan.update_seconds)
    assert plan.crop_bytes_a_second == pytest.approx(plan.crops_a_second * 3 * 16 * 16)
    assert plan.site_bytes_a_second == pytest.approx(4 * plan.crop_bytes_a_second)
    assert plan.network_seconds == pytest.approx(8 * cost.learning / 1e9 / 2)
    assert plan.state_bytes == 8 * cost.learning
    assert plan.seconds_between_states == pytest.approx(5 * plan.update_seconds)
    assert plan.memory_ddp == pytest.approx(
        12 * cost.learning + cost.cast + 7 * (cost.kept + cost.loss)
    )


def test_what_a_gpu_can_attain_on_paper_by_hand():
    knobs = MaeKnobs(**TINY, updates=10)
    cost = crop_cost(knobs, 3)
    crop = cost.flops / (0.7 * 989e12) + 4 * cost.kept / 3.35e12
    assert crop_seconds(cost, 0.7 * 989e12, 3.35e12) == pytest.approx(crop)
    plan = plan_training(knobs, cost, machine(gpus=10), channels=3, images=None)
    update = 10 * crop + 20 * cost.learning / 3.35e12
    assert plan.attainable == pytest.approx(10 * cost.flops / 989e12 / update)
    assert plan.attainable < 0.7


def test_the_papers_models_can_attain_a_third_of_the_peak():
    large, giant = (plan_of(name, machine()) for name in ("mae_l8", "mae_g8"))
    assert large.attainable == pytest.approx(0.42, abs=0.02)
    assert giant.attainable == pytest.approx(0.48, abs=0.03)
    for plan in (large, giant):
        assert plan.attainable * plan.cost.flops / plan.cost.flops_spent > 0.35


def test_gradients_bind_where_the_planned_number_of_nodes_says():
    knobs = MaeKnobs(preset="L/8", batch=16384, updates=10)
    cost = crop_cost(knobs, 6)
    bound = plan_training(
        knobs, cost, machine(network=20e9), channels=6, images=None
    ).network_binds_at_nodes
    for nodes, binds in ((bound - 1, False), (bound, True)):
        where = machine(gpus=8 * nodes, network=20e9)
        plan = plan_training(knobs, cost, where, channels=6, images=None)
        alone = plan.network_seconds * nodes / (nodes - 1)
        assert (alone > 2 / 3 * plan.update_seconds) == binds


def test_plan_reads_a_configuration_as_the_workflow_does(tmp_path):
    config = {
        "encoders": {"a": {"kind": "mae", "manifest": "m", "preset": "S/16", "lr": 1e-3}},
        "pretrain": {"mae": {"dim": 64, "batch": 7}},
        "manifests": {"m": {"screens": ["s"]}},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    knobs = knobs_of(read_config(path), "a")
    assert (knobs.dim, knobs.lr, knobs.batch, knobs.drop_path) == (384, 1e-3, 7, 0.1)
    with pytest.raises(UserError, match=r"manifests\.m\.images: missing key"):
        images_of(config, "a", tmp_path)
    funnel = tmp_path / "phenoprints" / "m" / "funnel.json"
    funnel.parent.mkdir(parents=True)
    funnel.write_text(json.dumps({"steps": [{"images": 9}, {"images": 5}]}))
    assert images_of(config, "a", tmp_path) == 5


def test_command_prints_a_plan_and_writes_its_figures(tmp_path, capsys):
    config = {
        "encoders": {
            "own": {"kind": "mae", "manifest": "m", **TINY, "updates": 3},
            "other": {"kind": "pixels"},
        },
        "manifests": {"m": {"screens": ["s"]}},
        "screens": {"s": {"source": "images", "channels": ["a", "b"]}},
    }
    path, out = tmp_path / "config.yaml", tmp_path / "plan.json"
    path.write_text(yaml.safe_dump(config))
    flags = [f"--config={path}", f"--json={out}", "--price-per-hour=2", "--gpu-hours=5"]
    # The training itself would refuse eight processes.
    with pytest.raises(UserError, match="batch 100 cannot be shared equally by 8 GPUs"):
        main(flags)
    main([*flags, "--gpus=4"])
    printed = capsys.readouterr().out
    for word in ("own", "GPU-hours", "memory a GPU, FSDP", "price", "5 GPU-hours mean"):
        assert word in printed
    figures = json.loads(out.read_text())["own"]
    assert figures["updates"] == 3 and figures["cost"]["learning"] > 0
    two = build_autoencoder(MaeKnobs(**TINY), 2)
    assert figures["cost"]["parameters"] == sum(p.numel() for p in two.parameters())


@pytest.mark.parametrize(
    ("text", "wanted", "told"),
    [
        ("encoders: {a: {kind: pixels}}", [], "none is of kind mae or ca_mae"),
        ("encoders: {a: {kind: mae, manifest: m}}", ["b"], "--encoder: found 'b'"),
        ("screens: {}", [], "no mapping 'encoders'"),
        ("encoders: {", [], "not readable"),
        ("encoders: {a: mae}", [], "none is of kind"),
        ("encoders: {a: {kind: mae, dim: wide}}", [], r"encoders\.a\.dim"),
        ("encoders: {a: {kind: mae, manifest: m, epocs: 5}}", [], r"encoders\.a\.epocs"),
        ("{encoders: {a: {kind: mae}}, pretrain: 3}", [], "pretrain: found 3, wanted knobs"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, text, wanted, told):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=told) as caught:
        config = read_config(path)
        for name in planned(config, wanted):
            knobs_of(config, name)
    assert "\n" not in str(caught.value)


def test_a_utilization_is_a_share(capsys):
    with pytest.raises(SystemExit):
        main(["--config=any.yaml", "--utilization=35"])
    assert "found 35, wanted a share" in capsys.readouterr().err
