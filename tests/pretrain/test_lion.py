import subprocess

import pytest
import timm.optim
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh

from phenopipe.pretrain import lion
from phenopipe.pretrain.lion import Lion, compile_kernel, update_compiled

SHAPES = [(1200, 900), (1200,), (3, 5, 7), ()]
SETTINGS = {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.05}


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(lion.shutil, "which", lambda name: None)
    compile_kernel.cache_clear()
    yield
    compile_kernel.cache_clear()


def parameters(dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in SHAPES]


def updated(optimizer, learned, updates=3, first=0):
    """Make updates with gradients of their own, some of them zero, at changing rates."""
    for update in range(first, first + updates):
        torch.manual_seed(100 + update)
        for parameter in learned:
            gradient = torch.randn(parameter.shape).to(parameter.dtype)
            parameter.grad = gradient * (gradient > -1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 / (1 + update)
        optimizer.step()
    momenta = [optimizer.state[parameter]["exp_avg"] for parameter in learned]
    return [*(parameter.detach() for parameter in learned), *momenta]


def timms(dtype=torch.float32):
    learned = parameters(dtype)
    return updated(timm.optim.Lion(learned, **SETTINGS), learned)


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_weights_and_momenta_are_timms_to_the_last_bit(threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        learned = parameters()
        found = updated(Lion(learned, **SETTINGS), learned)
    finally:
        torch.set_num_threads(before)
    assert_equal(found, timms())


def test_without_a_compiler_they_are_too(no_compiler):
    assert compile_kernel() is None
    learned = parameters()
    assert_equal(updated(Lion(learned, **SETTINGS), learned), timms())


def test_a_compiler_that_fails_is_done_without(monkeypatch):
    def fails(*args, **kwargs):
        raise subprocess.CalledProcessError(1, "cc")

    compile_kernel.cache_clear()
    monkeypatch.setattr(lion.subprocess, "run", fails)
    assert compile_kernel() is None
    compile_kernel.cache_clear()


def test_the_compiled_function_is_in_use_where_there_is_a_compiler(monkeypatch):
    if lion.shutil.which("cc") is None:
        pytest.skip("no compiler")
    calls = []
    monkeypatch.setattr(lion, "update_natively", lambda *args, **kwargs: calls.append(1))
    learned = parameters()
    updated(Lion(learned, **SETTINGS), learned, updates=1)
    assert calls == [1]


def test_other_layouts_and_types_are_timms_as_well():
    learned = [torch.nn.Parameter(torch.randn(1100, 1000).T)]
    other = [torch.nn.Parameter(learned[0].detach().clone())]
    ours, peer = Lion(learned, **SETTINGS), timm.optim.Lion(other, **SETTINGS)
    assert_equal(updated(ours, learned), updated(peer, other))
    short = parameters(torch.bfloat16)
    assert_equal(updated(Lion(short, **SETTINGS), short), timms(torch.bfloat16))


def test_either_optimizer_takes_up_the_others_state():
    wanted = timms()
    for first, second in [(Lion, timm.optim.Lion), (timm.optim.Lion, Lion)]:
        learned = parameters()
        begun = first(learned, **SETTINGS)
        updated(begun, learned, updates=1)
        ended = second(learned, **SETTINGS)
        ended.load_state_dict(begun.state_dict())
        assert_equal(updated(ended, learned, updates=2, first=1), wanted)


def test_parameters_without_a_gradient_stay_as_they_are():
    learned = parameters()
    optimizer = Lion(learned, **SETTINGS)
    optimizer.step()
    assert_equal([p.detach() for p in learned], [p.detach() for p in parameters()])
    assert not optimizer.state


def test_shards_of_distributed_tensors_are_updated_in_place(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        whole = parameters()[:3]
        learned = [torch.nn.Parameter(distribute_tensor(p, mesh, [Shard(0)])) for p in whole]
        optimizer = Lion(learned, **SETTINGS)
        peer = timm.optim.Lion(whole, **SETTINGS)
        for _ in range(2):
            for parameter, one in zip(learned, whole, strict=True):
                one.grad = torch.randn_like(one)
                parameter.grad = distribute_tensor(one.grad, mesh, [Shard(0)])
            optimizer.step()
            peer.step()
        for parameter, one in zip(learned, whole, strict=True):
            momentum = optimizer.state[parameter]["exp_avg"]
            assert isinstance(momentum, DTensor) and momentum.placements == (Shard(0),)
            assert torch.equal(parameter.full_tensor(), one)
            assert torch.equal(momentum.full_tensor(), peer.state[one]["exp_avg"])
    finally:
        dist.destroy_process_group()


def test_kernels_made_for_gpus_round_but_agree():
    learned, wanted = parameters(), parameters()
    momenta = [torch.randn_like(p) for p in learned]
    gradients = [torch.randn_like(p) for p in learned]
    peer = timm.optim.Lion(wanted, **SETTINGS)
    for parameter, momentum, gradient in zip(wanted, momenta, gradients, strict=True):
        peer.state[parameter]["exp_avg"] = momentum.clone()
        parameter.grad = gradient
    peer.step()
    weights = [p.detach() for p in learned]
    settings = {"lr": 1e-3, "weight_decay": 0.05, "beta1": 0.9, "beta2": 0.95}
    update_compiled(weights, gradients, momenta, **settings)
    for weight, momentum, parameter in zip(weights, momenta, wanted, strict=True):
        # An update whose sign hangs on rounding may go the other way, twice the rate off.
        off = (weight - parameter).abs() > 1e-6
        assert off.float().mean() < 1e-5
        assert torch.allclose(momentum, peer.state[parameter]["exp_avg"], atol=1e-6)
