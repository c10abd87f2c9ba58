"""The three losses of DINOv2, and the targets that a teacher sets.

A student learns to say of a crop what its teacher, a running mean of itself, says of another
crop of the same image (DINO), and of a hidden patch what the teacher says who sees it (iBOT);
the embeddings of a batch are driven apart (KoLeo). What a network says is a distribution over
prototypes. Nothing but the targets keeps all crops from being told alike: they are sharpened,
and spread over the prototypes by a number for each of them, from a whole batch of all
processes.

Shape suffixes
    N images, V crops of an image that the student sees, G of them that the teacher sees too
    (the first ones), M rows (crops or patches), K prototypes, F width of the features before
    them, B images of the batch of all processes, D width of an embedding
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

# Logits of a chunk of rows are computed at once, as many numbers as this.
CHUNK = 2**24
LEAST_DISTANCE = 1e-4


class Processes(Protocol):
    """What of a :class:`~phenopipe.pretrain.distributed.World` is needed here."""

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over all processes."""

    def largest(self, tensor: Tensor) -> Tensor:
        """Largest of all processes, number by number."""


# --- targets -------------------------------------------------------------------------


def targets(
    features_MF: Tensor, prototypes_KF: Tensor, temperature: float, offset_K: Tensor
) -> Tensor:
    """Distributions over prototypes that a teacher sets.

    Parameters
    ----------
    features_MF, prototypes_KF : tensors
        Of the teacher, rows of length 1.
    temperature : float
        The lower, the sharper.
    offset_K : tensor
        Added to the logits of each prototype: of :func:`sinkhorn_offset` or
        :func:`centre_offset`.

    Returns
    -------
    float32 tensor of shape (M, K)
        Rows sum to 1.
    """
    logits_MK = functional.linear(features_MF, prototypes_KF).float()
    return (logits_MK / temperature + offset_K).softmax(dim=1)


def sinkhorn_offset(
    features_MF: Tensor,
    prototypes_KF: Tensor,
    temperature: float,
    *,
    rounds: int,
    processes: Processes,
) -> Tensor:
    """What to add to logits so that rows use all prototypes equally often.

    Parameters
    ----------
    features_MF, prototypes_KF, temperature
        As in :func:`targets`; the rows of this process.
    rounds : int
        Times that prototypes and rows are normalized.
    processes : Processes
        With whose rows together the prototypes are used equally often.

    Returns
    -------
    float32 tensor of shape (K,)
        Zeros where no process has a row.

    Notes
    -----
    Sinkhorn & Knopp scale exp(logits / temperature) by a number a prototype and a number a
    row, so that each prototype gets M / K and each row 1, in turn, rows last (Cuturi 2013;
    SwAV, Caron et al. 2020; three rounds in DINOv2). After the last round a row is the
    softmax of its logits and the logarithm of the prototypes' numbers, which is all that is
    kept: they are sums over rows, so that rows may lie in any number of processes, and are
    computed again in each round in place of held.
    """
    offset_K = torch.zeros(len(prototypes_KF), device=features_MF.device)
    for number in range(rounds):
        mass_K = torch.full_like(offset_K, -torch.inf)
        for rows_MF in torch.split(features_MF, max(1, CHUNK // len(prototypes_KF))):
            scaled_MK = functional.linear(rows_MF, prototypes_KF).float() / temperature
            if number:
                scaled_MK = scaled_MK - (scaled_MK + offset_K).logsumexp(dim=1, keepdim=True)
            mass_K = torch.logaddexp(mass_K, scaled_MK.logsumexp(dim=0))
        offset_K = -_log_total(mass_K, processes)
    return torch.where(offset_K.isfinite(), offset_K, 0.0)


def _log_total(logarithm_K: Tensor, processes: Processes) -> Tensor:
    """Logarithm of the sum over processes of what these are logarithms of."""
    top_K = processes.largest(logarithm_K).clamp_min(torch.finfo(torch.float32).min)
    return top_K + processes.total((logarithm_K - top_K).exp()).log()


def centre_offset(centre_K: Tensor, temperature: float) -> Tensor:
    """What to add to logits so that the usual one is taken off each prototype.

    Notes
    -----
    DINO (Caron et al. 2021), Eq. 4: softmax((logits - centre) / temperature).
    """
    return -centre_K / temperature


def mean_logits(
    features_MF: Tensor, prototypes_KF: Tensor, processes: Processes
) -> Tensor | None:
    """Mean logit of each prototype over the rows of all processes, by which a centre moves.

    Returns
    -------
    tensor of shape (K,) or None
        None where no process has a row.
    """
    total_F = processes.total(features_MF.float().sum(dim=0))
    count = processes.total(torch.tensor(float(len(features_MF)), device=total_F.device))
    return functional.linear(total_F / count, prototypes_KF.float()) if count else None


# --- losses --------------------------------------------------------------------------


def dino_loss(logits_NVK: Tensor, targets_NGK: Tensor, temperature: float) -> Tensor:
    """Cross entropy between what the student says of a crop and the teacher of another.

    Parameters
    ----------
    logits_NVK : tensor
        The student's, of all crops of an image, those that the teacher sees first.
    targets_NGK : tensor
        The teacher's, see :func:`targets`.
    temperature : float
        The student's.

    Returns
    -------
    tensor
        Mean over images and over the V * G - G pairs of two different crops.

    Notes
    -----
    DINO (Caron et al. 2021), Eq. 3. Targets of a student's crop are added up first: the
    cross entropy is linear in them.
    """
    n_crops, n_targets = logits_NVK.shape[1], targets_NGK.shape[1]
    says_NVK = (logits_NVK.float() / temperature).log_softmax(dim=-1)
    # All targets but the one of the same crop.
    wanted_NVK = targets_NGK.sum(dim=1, keepdim=True).expand_as(says_NVK).clone()
    wanted_NVK[:, :n_targets] -= targets_NGK
    pairs = n_crops * n_targets - n_targets
    return -(wanted_NVK * says_NVK).sum(dim=(1, 2)).mean() / pairs


def ibot_loss(
    logits_MK: Tensor, targets_MK: Tensor, weight_M: Tensor, temperature: float
) -> Tensor:
    """Cross entropy between what the student says of a hidden patch and the teacher of it.

    Parameters
    ----------
    logits_MK, targets_MK : tensors
        Of the hidden patches of all crops.
    weight_M : tensor
        Weights of the patches; see Notes.
    temperature : float
        The student's.

    Notes
    -----
    iBOT (Zhou et al. 2022), Eq. 2, on patches alone: a crop counts by the mean over its
    hidden patches, and one without any by 0, as DINOv2's published code has it. So the
    weight of a patch is 1 / (hidden patches of its crop * crops), hidden patches or not.
    """
    says_MK = (logits_MK.float() / temperature).log_softmax(dim=-1)
    return -((targets_MK * says_MK).sum(dim=1) * weight_M).sum()


def koleo_loss(mine_ND: Tensor, all_BD: Tensor, first: int) -> Tensor:
    """Mean negative logarithm of each embedding's distance to its nearest neighbour.

    Parameters
    ----------
    mine_ND : tensor
        Embeddings of some images of the batch, through which gradients flow.
    all_BD : tensor
        Those of the whole batch, the same ones among them.
    first : int
        Row of ``all_BD`` at which they begin.

    Returns
    -------
    tensor
        The loss of the whole batch. Its gradient is that of the whole batch for the rows
        given, times B / N: where the batch is parted, the mean over parts by their number of
        images has the gradient of the whole.

    Notes
    -----
    KoLeo (Sablayrolles et al. 2019), Eq. 3, after Kozachenko & Leonenko: -mean log d_i with
    embeddings of length 1, whose nearest neighbour is the one of the largest product. Distances
    below 1e-4 count as that and have no gradient. DINOv2's published code adds 1e-8 instead:
    equal embeddings, as of crops that skip all blocks, are then driven apart a million times
    as strongly as others, in a direction that rounding chooses.
    """
    n, b = len(mine_ND), len(all_BD)
    all_BD = torch.cat([all_BD[:first], mine_ND, all_BD[first + n :]]).float()
    all_BD = functional.normalize(all_BD, dim=1)
    with torch.no_grad():
        product_BB = all_BD @ all_BD.T
        neighbour_B = product_BB.fill_diagonal_(-2.0).argmax(dim=1)
    distance_B = torch.linalg.vector_norm(all_BD - all_BD[neighbour_B], dim=1)
    loss: Tensor = -distance_B.clamp_min(LEAST_DISTANCE).log().mean()
    return loss.detach() + (loss - loss.detach()) * (b / n)


# --- what collapse looks like ----------------------------------------------------------


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy of distributions along the last axis, in nats."""
    found: Tensor = torch.special.entr(probabilities).sum(dim=-1)
    return found


def effective_rank(x_ND: Tensor) -> float:
    """Number of directions in which embeddings differ, from 1 to min(N - 1, D).

    Notes
    -----
    Roy & Vetterli 2007: exponential of the entropy of the singular values, divided by their
    sum, here of centred embeddings, so that what all have in common does not count. 0 where
    all are equal.
    """
    values = torch.linalg.svdvals((x_ND - x_ND.mean(dim=0)).double())
    total = values.sum()
    return float(entropy(values / total).exp()) if total > 0 else 0.0
