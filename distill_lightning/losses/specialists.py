"""Terms for specialists: a softmax over some classes and a dustbin (Hinton, Vinyals & Dean 2015, section 5.4).

A specialist keeps the logits z of all K classes, (B, K). Its dustbin D stands for all classes outside its set S:

    z_D = logsumexp_{k not in S} z_k,        so that p_D = sum_{k not in S} p_k

It is trained on batches in which the share h of the samples is of S. In the data the share is pi = N_S / N. A softmax
that fits such batches has z_D too low by

    b = log[ h / pi / ((1 - h) / (1 - pi)) ] = log[ (N - N_S) / N_S h / (1 - h) ]

which is the ratio of the two factors by which S and the rest are oversampled. The paper adds b to the bias of the
dustbin after training. To subtract b from z_D inside the loss has the same optimum, and then the network's own logits
are right: nothing is left to be added later, and nothing can be added twice.
"""

import math

import torch
from torch import Tensor

from distill_lightning.losses.logits import cross_entropy
from distill_lightning.losses.precision import in_full_precision


def dustbin_correction(special: int, total: int, share: float = 0.5) -> float:
    """b, in nats.

    Args:
        special: N_S, the number of training samples of the specialist's classes, 1 or more and below N.
        total: N, the number of all training samples.
        share: h, the share of special samples in the batches, in (0, 1).

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 0 < special < total or not 0 < share < 1:
        raise ValueError(f"{special} of {total} samples at the share {share}: both shares must lie between 0 and 1")
    return math.log((total - special) / special * share / (1 - share))


@in_full_precision
def dustbin_logits(logits: Tensor, classes: Tensor) -> Tensor:
    """The logits of a specialist's classes and, as the last column, of its dustbin.

    Args:
        logits: z, (B, K).
        classes: S, (s,) int64, below K.

    Returns:
        (B, s + 1).
    """
    rest = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
    rest[classes] = False
    return torch.cat([logits[:, classes], logits[:, rest].logsumexp(1, keepdim=True)], dim=1)


def dustbin_labels(labels: Tensor, classes: Tensor) -> Tensor:
    """The column of ``dustbin_logits`` that belongs to each label, (B,) int64."""
    matches = labels[:, None] == classes
    return torch.where(matches.any(1), matches.long().argmax(1), len(classes))


def dustbin_cross_entropy(logits: Tensor, labels: Tensor, classes: Tensor, correction: float = 0.0) -> Tensor:
    """Cross-entropy over a specialist's classes and its dustbin, mean over the batch.

    Args:
        logits: z, (B, K).
        labels: (B,) int64.
        classes: S, (s,) int64.
        correction: b, which is subtracted from the dustbin's logit; 0 for batches with the shares of the data.
    """
    columns = dustbin_logits(logits, classes)
    shifted = torch.cat([columns[:, :-1], columns[:, -1:] - correction], dim=1)
    return cross_entropy(shifted, dustbin_labels(labels, classes))
