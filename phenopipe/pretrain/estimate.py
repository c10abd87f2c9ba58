"""Hours, memory, network and data of a training, worked out from what one crop costs."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from phenopipe.pretrain.config import MaeKnobs
from phenopipe.pretrain.cost import Cost

# Bytes a learned number: itself, its gradient and Lion's momentum, all in float32.
STATE_BYTES, GRADIENT_BYTES, WEIGHT_BYTES, SHORT_BYTES = 12, 4, 4, 2
# Bytes that an update of Lion moves for each number.
STEP_BYTES = 20
# The backward pass is two thirds of an update; gradients travel while it runs.
BACKWARD = 2.0 / 3.0
# The rest of a GPU's memory goes to fragments and workspaces.
FILLED = 0.9
# Products of large matrices reach this share of a GPU's peak.
PRODUCTS = 0.7
# Kept bytes are written, read again, and so are their gradients.
TIMES_MOVED = 4


class Gpu(NamedTuple):
    """A GPU as its maker describes it.

    peak : operations a second, dense bfloat16.
    memory : bytes.
    bandwidth : bytes a second, of the memory.
    network : bytes a second by which a node of them exchanges gradients with others, four
        fifths of its links: eight of 400 Gb/s (h100, h200), of 200 (a100), one of 100 (l4).
    """

    peak: float
    memory: float
    bandwidth: float
    network: float


GPUS = {
    "a100": Gpu(312e12, 80e9, 2.04e12, 160e9),
    "h100": Gpu(989e12, 80e9, 3.35e12, 320e9),
    "h200": Gpu(989e12, 141e9, 4.8e12, 320e9),
    "l4": Gpu(121e12, 24e9, 0.3e12, 10e9),
}


@dataclass(frozen=True)
class Machine:
    """What a training would run on, and what it reads.

    Attributes
    ----------
    gpu : Gpu
        Each of them.
    gpus, gpus_a_node : int
        How many.
    utilization : float
        Operations done, as a share of the peak.
    price_per_hour : float or None
        Of one GPU.
    network : float
        Bytes a second, see :class:`Gpu`.
    side, pixel_bytes : int
        A stored site: its height and width, and bytes a pixel and channel.
    """

    gpu: Gpu
    gpus: int
    gpus_a_node: int
    utilization: float
    price_per_hour: float | None
    network: float
    side: int
    pixel_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a training would take; bytes, seconds and operations unless named otherwise.

    Attributes
    ----------
    crops, updates, crops_a_gpu
        How much is learned from, and the share of an update that one GPU takes.
    gpu_hours, days, price
        At the stated utilization; operations are those spent after stochastic depth.
    memory_ddp, memory_fsdp, and the same checkpointed
        Peak of an update on one GPU whose share passes at once. FSDP shards weights,
        gradients and momentum over all GPUs.
    attainable
        Operations done as a share of the peak, if products of matrices ran at seven tenths of
        it, all other work took the time of moving its bytes, and nothing waited.
    crops_that_fit
        At once with DDP, in nine tenths of the memory; what is more has to be accumulated.
    update_seconds, network_seconds
        Of one update: computing, and sending gradients between nodes if nothing overlapped.
    network_binds_at_nodes
        Nodes from which the gradients take longer than the backward pass hides.
    crops_a_second, crop_bytes_a_second, site_bytes_a_second
        What the data must deliver: crops alone, or the whole site that each is cut from.
    state_bytes, seconds_between_states, state_bytes_a_second
        Checkpoints, at the knob ``checkpoint_every``.
    """

    cost: Cost
    crops: float
    updates: int
    crops_a_gpu: int
    gpu_hours: float
    days: float
    price: float | None
    memory_ddp: float
    memory_ddp_checkpointed: float
    memory_fsdp: float
    memory_fsdp_checkpointed: float
    attainable: float
    crops_that_fit: int
    update_seconds: float
    network_seconds: float
    network_binds_at_nodes: int
    crops_a_second: float
    crop_bytes_a_second: float
    site_bytes_a_second: float
    state_bytes: float
    seconds_between_states: float
    state_bytes_a_second: float


def plan_training(
    knobs: MaeKnobs, cost: Cost, machine: Machine, *, channels: int, images: int | None
) -> Plan:
    """Work out what a training takes.

    Parameters
    ----------
    knobs : MaeKnobs
        The training.
    cost : Cost
        What :func:`~phenopipe.pretrain.cost.crop_cost` gives for it.
    machine : Machine
        Where it would run.
    channels : int
        Channels of its crops.
    images : int
        Images in its manifest; None where ``knobs.updates`` is set.
    """
    assert knobs.updates is not None or images is not None
    updates = knobs.updates or math.ceil(knobs.epochs * (images or 0) / knobs.batch)
    crops = float(updates) * knobs.batch
    speed = machine.gpu.peak * machine.utilization
    crops_a_second = machine.gpus * speed / cost.flops_spent
    share = math.ceil(knobs.batch / machine.gpus)
    hours = crops * cost.flops_spent / speed / 3600.0
    update_seconds = knobs.batch / crops_a_second
    nodes = math.ceil(machine.gpus / machine.gpus_a_node)
    # Every byte of the gradients crosses the network twice in an all-reduce.
    full_round = 2 * GRADIENT_BYTES * cost.learning / machine.network
    hidden = BACKWARD * update_seconds * machine.gpus / machine.gpus_a_node
    state = (WEIGHT_BYTES + GRADIENT_BYTES) * float(cost.learning)
    replicated = STATE_BYTES * float(cost.learning) + cost.cast
    # Two blocks are whole at a time: the one at work and the next one.
    gathered = 2 * SHORT_BYTES + GRADIENT_BYTES
    sharded = STATE_BYTES * cost.learning / machine.gpus + gathered * cost.largest_block
    whole, checkpointed = (one + cost.loss for one in (cost.kept, cost.kept_checkpointed))
    pixels = channels * crops_a_second
    busy = share * crop_seconds(cost, PRODUCTS * machine.gpu.peak, machine.gpu.bandwidth)
    busy += STEP_BYTES * cost.learning / machine.gpu.bandwidth
    between = knobs.checkpoint_every * update_seconds
    return Plan(
        cost=cost,
        crops=crops,
        updates=updates,
        crops_a_gpu=share,
        gpu_hours=hours,
        days=hours / machine.gpus / 24.0,
        price=None if machine.price_per_hour is None else machine.price_per_hour * hours,
        memory_ddp=replicated + share * whole,
        memory_ddp_checkpointed=replicated + share * checkpointed,
        memory_fsdp=sharded + share * whole,
        memory_fsdp_checkpointed=sharded + share * checkpointed,
        attainable=share * cost.flops_spent / machine.gpu.peak / busy,
        crops_that_fit=max(0, math.floor((FILLED * machine.gpu.memory - replicated) / whole)),
        update_seconds=update_seconds,
        network_seconds=full_round * (nodes - 1) / nodes,
        network_binds_at_nodes=max(2, math.floor(hidden / full_round) + 1),
        crops_a_second=crops_a_second,
        crop_bytes_a_second=pixels * knobs.crop**2 * machine.pixel_bytes,
        site_bytes_a_second=pixels * machine.side**2 * machine.pixel_bytes,
        state_bytes=state,
        seconds_between_states=between,
        state_bytes_a_second=state / between,
    )


def crop_seconds(cost: Cost, products: float, bandwidth: float) -> float:
    """Seconds of training on one crop, products of matrices and all else in turn.

    Parameters
    ----------
    cost : Cost
        The model.
    products : float
        Operations a second of products of matrices of its shapes.
    bandwidth : float
        Bytes a second of the memory, reading and writing counted alike.
    """
    return cost.flops_spent / products + TIMES_MOVED * cost.kept / bandwidth


def implied_utilization(plan: Plan, machine: Machine, gpu_hours: float) -> float:
    """Share of the peak that a known number of GPU-hours means.

    All blocks count for every crop, as is usual for model FLOP utilization, whether
    stochastic depth spends them or not.
    """
    return plan.crops * plan.cost.flops / (machine.gpu.peak * gpu_hours * 3600.0)
