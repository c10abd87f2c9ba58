"""Plan a training before it burns GPU-hours: operations, hours, memory, network, data.

    python -m phenopipe.pretrain.plan --config configs/paper.yaml --gpu h100 --gpus 256

Tells every masked autoencoder of a configuration, or those named by ``--encoder``. It is a
command for people, no step of the workflow, and computes on shapes alone.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from phenopipe.errors import UserError
from phenopipe.formats.funnels import read_funnel
from phenopipe.knobs import describe, run_step
from phenopipe.pretrain.config import MaeKnobs
from phenopipe.pretrain.cost import crop_cost
from phenopipe.pretrain.estimate import (
    GPUS,
    Machine,
    Plan,
    implied_utilization,
    plan_training,
)

KINDS = ("mae", "ca_mae")
# Keys of an encoder that are no knobs of its training.
NO_KNOBS = ("kind", "manifest", "initialize_from")
# What a simulated screen has, and what the paper's screens have.
CHANNELS = 6


# --- the configuration ---------------------------------------------------------------


def read_config(path: Path) -> dict[str, Any]:
    """Read a workflow configuration as a mapping.

    Raises
    ------
    UserError
        If the file cannot be read or holds no encoders.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not isinstance(content.get("encoders"), dict):
        raise UserError(f"{path}: no mapping 'encoders', wanted a workflow configuration")
    return content


def planned(config: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """Names of the encoders to plan: the wanted ones, or all masked autoencoders.

    Raises
    ------
    UserError
        If a wanted one is unknown or of another kind, or there is none at all.
    """
    entries = {n: one for n, one in config["encoders"].items() if isinstance(one, dict)}
    known = [name for name, one in entries.items() if one.get("kind") in KINDS]
    for name in wanted:
        if name not in known:
            raise UserError(f"--encoder: found {name!r}, wanted a masked autoencoder: {known}")
    if not known:
        raise UserError(f"encoders: none is of kind {' or '.join(KINDS)}, nothing to plan")
    return list(wanted) or known


def knobs_of(config: Mapping[str, Any], name: str) -> MaeKnobs:
    """Knobs of an encoder: its own, over its section's, over the preset's and defaults.

    Raises
    ------
    UserError
        If a value does not fit.
    """
    one = config["encoders"][name]
    stages = config.get("pretrain") or {}
    section = (stages.get("mae") if isinstance(stages, Mapping) else stages) or {}
    if not isinstance(section, Mapping):
        raise UserError(f"pretrain: found {section!r}, wanted knobs of mae")
    own = {key: value for key, value in one.items() if key not in NO_KNOBS}
    own["channel_agnostic"] = one["kind"] == "ca_mae"
    try:
        return MaeKnobs.merged(section, own)
    except ValidationError as error:
        raise UserError(describe(error, f"encoders.{name}")) from None


def channels_of(config: Mapping[str, Any], name: str) -> int:
    """Count the channels of the first screen that an encoder learns from."""
    manifest = (config.get("manifests") or {}).get(
        config["encoders"][name].get("manifest")
    ) or {}
    screens = config.get("screens") or {}
    known = [screens[one] for one in manifest.get("screens", ()) if one in screens]
    return len(known[0].get("channels") or ()) or CHANNELS if known else CHANNELS


def images_of(config: Mapping[str, Any], name: str, results: Path) -> int:
    """Count the images of an encoder's manifest: those it has, or is expected to have.

    Raises
    ------
    UserError
        If neither is known.
    """
    manifest = config["encoders"][name].get("manifest")
    funnel = results / "phenoprints" / str(manifest) / "funnel.json"
    if funnel.exists():
        return int(read_funnel(funnel)["steps"][-1]["images"])
    expected = ((config.get("manifests") or {}).get(manifest) or {}).get("images")
    if expected is None:
        raise UserError(
            f"manifests.{manifest}.images: missing key and no {funnel}, wanted one of them,"
            " or --images"
        )
    if not isinstance(expected, int):
        raise UserError(f"manifests.{manifest}.images: found {expected!r}, wanted a number")
    return expected


# --- words ---------------------------------------------------------------------------


def told(name: str, plan: Plan, machine: Machine, gpu_hours: float | None = None) -> str:
    """Write a plan for people to read."""
    cost, giga = plan.cost, 1e9
    whole, encoder, decoder = (
        f"{count / 1e6:,.1f} M"
        for count in (cost.parameters, cost.encoder_parameters, cost.decoder_parameters)
    )
    limit = f"{plan.crops_that_fit} crops at once fit in {machine.gpu.memory / giga:.0f} GB"
    as_crops, as_sites, as_states = (
        f"{value / giga:.3g} GB/s"
        for value in (
            plan.crop_bytes_a_second,
            plan.site_bytes_a_second,
            plan.state_bytes_a_second,
        )
    )
    rows = {
        "parameters": f"{whole}: encoder {encoder}, decoder {decoder}",
        "operations a crop": f"{cost.flops / giga:,.0f} GFLOP of training, "
        f"{cost.flops_spent / giga:,.0f} after stochastic depth",
        "crops": f"{plan.crops / giga:.3g} billion in {plan.updates:,} updates",
        "GPU-hours": f"{plan.gpu_hours:,.0f} at {machine.utilization:.0%} of the peak, "
        f"{plan.days:.1f} days on {machine.gpus} GPUs",
        "an update": f"{plan.update_seconds:.3g} s, {plan.crops_a_gpu} crops a GPU",
        "attainable": f"{plan.attainable:.0%} of the peak on paper "
        f"({plan.attainable * cost.flops / cost.flops_spent:.0%} counting skipped blocks)",
        "memory a GPU, DDP": f"{_both(plan.memory_ddp, plan.memory_ddp_checkpointed)}; {limit}",
        "memory a GPU, FSDP": _both(plan.memory_fsdp, plan.memory_fsdp_checkpointed),
        "gradients": f"{plan.network_seconds:.2g} s an update between nodes, "
        f"more than is hidden from {plan.network_binds_at_nodes} nodes on",
        "data": f"{plan.crops_a_second:,.0f} crops a second: {as_crops} as crops, "
        f"{as_sites} as sites of {machine.side} pixels",
        "states": f"{plan.state_bytes / giga:.3g} GB every "
        f"{plan.seconds_between_states:,.0f} s: {as_states}",
    }
    if plan.price is not None:
        rows["price"] = f"{plan.price:,.0f}"
    if gpu_hours is not None:
        share = implied_utilization(plan, machine, gpu_hours)
        rows["utilization"] = f"{gpu_hours:,.0f} GPU-hours mean {share:.1%} of the peak"
    return "\n".join([name, *(f"  {label:<20}{text}" for label, text in rows.items())])


def _both(whole: float, checkpointed: float) -> str:
    return f"{whole / 1e9:.3g} GB, {checkpointed / 1e9:.3g} with activation checkpointing"


def main(argv: Sequence[str] | None = None) -> None:
    """Plan the trainings of the command line."""
    given = _parse(argv)
    gpu = GPUS[given.gpu]
    machine = Machine(
        gpu=gpu,
        gpus=given.gpus,
        gpus_a_node=given.gpus_a_node,
        utilization=given.utilization,
        price_per_hour=given.price_per_hour,
        network=given.network * 1e9 if given.network else gpu.network,
        side=given.side,
        pixel_bytes=given.pixel_bytes,
    )
    config = read_config(given.config)
    plans = {}
    for name in planned(config, given.encoder):
        knobs, channels = knobs_of(config, name), channels_of(config, name)
        images = given.images
        if images is None and knobs.updates is None:
            images = images_of(config, name, given.results)
        cost = crop_cost(knobs, channels)
        if knobs.batch % machine.gpus:
            raise UserError(
                f"encoders.{name}: batch {knobs.batch} cannot be shared equally by "
                f"{machine.gpus} GPUs, wanted a multiple"
            )
        plans[name] = plan_training(knobs, cost, machine, channels=channels, images=images)
        print(told(name, plans[name], machine, given.gpu_hours), flush=True)
    if given.json:
        content = {
            name: {**asdict(plan), "cost": plan.cost._asdict()} for name, plan in plans.items()
        }
        given.json.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    def positive(text: str) -> float:
        value = float(text)
        if not 0.0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"found {text}, wanted a number above 0")
        return value

    def share(text: str) -> float:
        if positive(text) > 1.0:
            raise argparse.ArgumentTypeError(f"found {text}, wanted a share, such as 0.35")
        return float(text)

    def count(text: str) -> int:
        return math.ceil(positive(text))

    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="workflow configuration")
    add("--encoder", action="append", default=[], metavar="NAME", help="plan this one")
    add("--gpu", choices=sorted(GPUS), default="h100", help="kind of GPU (h100)")
    add("--gpus", type=count, default=8, metavar="N", help="how many of them (8)")
    add("--gpus-a-node", type=count, default=8, metavar="N", help="GPUs of one node (8)")
    add("--utilization", type=share, default=0.35, help="share of the peak (0.35)")
    add("--price-per-hour", type=positive, metavar="X", help="price of a GPU-hour")
    add("--gpu-hours", type=positive, metavar="X", help="tell the utilization these mean")
    add("--images", type=count, metavar="N", help="images in the manifest")
    add("--network", type=positive, metavar="GB/S", help="of one node to others")
    add("--side", type=count, default=2048, help="height and width of a stored site (2048)")
    add("--pixel-bytes", type=count, default=1, help="bytes a stored pixel and channel (1)")
    add("--results", type=Path, default=Path("results"), help="where manifests lie (results)")
    add("--json", type=Path, metavar="FILE", help="write the figures here too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_step(main)
