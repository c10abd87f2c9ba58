"""Each loss against a slow oracle that is written from its paper's formula."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from phenopipe.pretrain.dino_losses import (
    centre_offset,
    dino_loss,
    effective_rank,
    entropy,
    ibot_loss,
    koleo_loss,
    mean_logits,
    sinkhorn_offset,
    targets,
)
from phenopipe.pretrain.distributed import World


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def softmax(values):
    shares = [math.exp(value) for value in values]
    return [share / sum(shares) for share in shares]


def cross_entropy(wanted, said):
    return -sum(p * math.log(q) for p, q in zip(wanted, said, strict=True))


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("temperature", [0.04, 0.5])
def test_sinkhorn_equals_scaling_the_whole_matrix_in_turn(rounds, temperature):
    features, prototypes = unit(10, 6), unit(7, 6, seed=1)
    # Rows are prototypes, columns crops, as SwAV writes it.
    q = np.exp((features.double() @ prototypes.double().T).numpy().T / temperature)
    q /= q.sum()
    for _ in range(rounds):
        q /= q.sum(axis=1, keepdims=True) * len(prototypes)
        q /= q.sum(axis=0, keepdims=True) * len(features)
    expected = (q * len(features)).T
    offset = sinkhorn_offset(
        features, prototypes, temperature, rounds=rounds, processes=World()
    )
    found = targets(features, prototypes, temperature, offset)
    assert np.allclose(found, expected, atol=2e-6)


def test_many_rounds_use_all_prototypes_equally_often():
    features, prototypes = unit(64, 8), unit(5, 8, seed=1)
    found = targets(
        *(features, prototypes, 0.1),
        sinkhorn_offset(features, prototypes, 0.1, rounds=200, processes=World()),
    )
    assert torch.allclose(found.mean(dim=0), torch.full((5,), 0.2), atol=1e-4)
    assert torch.allclose(found.sum(dim=1), torch.ones(64), atol=1e-5)


class Both:
    """Answers as if two processes held the same rows each."""

    def total(self, tensor):
        return 2 * tensor

    def largest(self, tensor):
        return tensor


def test_rows_that_another_process_holds_count(monkeypatch):
    features, prototypes = unit(6, 4), unit(9, 4, seed=1)
    doubled = torch.cat([features, features])
    settings = {"rounds": 3, "processes": World()}
    expected = sinkhorn_offset(doubled, prototypes, 0.05, **settings)
    found = sinkhorn_offset(features, prototypes, 0.05, rounds=3, processes=Both())
    assert torch.allclose(found, expected, atol=1e-4)
    # In chunks of a row, as where there are too many prototypes to hold all logits.
    monkeypatch.setattr("phenopipe.pretrain.dino_losses.CHUNK", 1)
    found = sinkhorn_offset(doubled, prototypes, 0.05, **settings)
    assert torch.allclose(found, expected, atol=1e-4)


def test_no_rows_leave_logits_alone():
    prototypes = unit(5, 4)
    empty = torch.empty(0, 4)
    offset = sinkhorn_offset(empty, prototypes, 0.05, rounds=3, processes=World())
    assert torch.equal(offset, torch.zeros(5))
    assert mean_logits(empty, prototypes, World()) is None


def test_centre_is_taken_off_before_the_temperature():
    features, prototypes, centre = unit(3, 4), unit(5, 4, seed=1), torch.rand(5)
    found = targets(features, prototypes, 0.2, centre_offset(centre, 0.2))
    for row, feature in zip(found, features, strict=True):
        logits = [float(feature @ one) for one in prototypes]
        expected = softmax([(x - float(c)) / 0.2 for x, c in zip(logits, centre, strict=True)])
        assert row.tolist() == pytest.approx(expected, rel=1e-4)
    mean = mean_logits(features, prototypes, World())
    assert torch.allclose(mean, (features @ prototypes.T).mean(dim=0), atol=1e-6)


def test_dino_is_the_mean_cross_entropy_over_pairs_of_different_crops():
    n, g, v, k = 3, 2, 5, 6
    logits, aims = torch.randn(n, v, k), torch.rand(n, g, k).softmax(dim=-1)
    pairs = []
    for image in range(n):
        for teachers in range(g):
            for students in range(v):
                if students != teachers:
                    said = softmax((logits[image, students] / 0.1).tolist())
                    pairs.append(cross_entropy(aims[image, teachers].tolist(), said))
    assert len(pairs) == n * (v * g - g)
    assert float(dino_loss(logits, aims, 0.1)) == pytest.approx(np.mean(pairs), rel=1e-5)


def test_ibot_is_the_mean_over_crops_of_the_mean_over_their_hidden_patches():
    hidden = [3, 0, 1, 2]
    logits, aims = torch.randn(6, 4), torch.rand(6, 4).softmax(dim=-1)
    weight = torch.tensor([1 / (count * len(hidden)) for count in hidden for _ in range(count)])
    of_patch = [
        cross_entropy(aims[m].tolist(), softmax((logits[m] / 0.1).tolist())) for m in range(6)
    ]
    of_crop, first = [], 0
    for count in hidden:
        of_crop.append(np.mean(of_patch[first : first + count]) if count else 0.0)
        first += count
    found = ibot_loss(logits, aims, weight, 0.1)
    assert float(found) == pytest.approx(np.mean(of_crop), rel=1e-5)
    assert float(ibot_loss(logits[:0], aims[:0], weight[:0], 0.1)) == 0.0


def test_koleo_is_minus_the_mean_log_distance_to_the_nearest_neighbour():
    x = torch.randn(9, 4)
    units = [[float(v) / math.hypot(*row.tolist()) for v in row] for row in x]
    nearest = [
        min(math.dist(one, other) for j, other in enumerate(units) if j != i)
        for i, one in enumerate(units)
    ]
    expected = -np.mean(np.log(nearest))
    assert float(koleo_loss(x, x, 0)) == pytest.approx(expected, rel=1e-4)


def test_koleo_does_not_drive_apart_what_rounding_alone_tells_apart():
    x = torch.ones(4, 3)
    x[3, 2] += 1e-6
    x.requires_grad_()
    loss = koleo_loss(x, x.detach(), 0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-math.log(1e-4), rel=1e-5)
    assert torch.equal(x.grad, torch.zeros(4, 3))


def test_gradients_of_the_parts_of_a_batch_make_that_of_the_whole():
    x = torch.randn(10, 4, dtype=torch.float64)
    whole = x.clone().requires_grad_()
    koleo_loss(whole, x, 0).backward()
    parts = x.clone().requires_grad_()
    for first, last in ((0, 3), (3, 7), (7, 10)):
        share = (last - first) / 10
        loss = koleo_loss(parts[first:last], x, first)
        assert float(loss.detach()) == pytest.approx(float(koleo_loss(x, x, 0)), rel=1e-6)
        (loss * share).backward()
    assert torch.allclose(parts.grad, whole.grad, atol=1e-5)


def test_effective_rank_counts_directions():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(40, 40)))[0][:, :7]
    spread = torch.from_numpy(basis @ np.eye(7, 12)) * 3.0
    spread = spread - spread.mean(dim=0)
    values = np.linalg.svd(spread.numpy(), compute_uv=False)
    shares = values[values > 1e-12] / values.sum()
    expected = math.exp(-sum(s * math.log(s) for s in shares))
    assert effective_rank(spread + 5.0) == pytest.approx(expected, rel=1e-6)
    assert 6.5 < effective_rank(spread) <= 7.0
    assert effective_rank(torch.ones(5, 3)) == 0.0


def test_entropy_is_none_for_a_sure_answer_and_largest_for_equal_shares():
    assert entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist() == pytest.approx(
        [0.0, math.log(2)]
    )
