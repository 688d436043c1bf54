"""Terms of the relations between the samples of a batch, or between samples and a bank of others.

f are the student's features, g the teacher's, (B, D) and (B, D'): any width. The gradient flows into the student's
alone, unless a function says something else. N(x) is x divided by the larger of its length and 1e-12. All compute in
float32.

All but ``crd``, ``seed`` and ``seed_local`` depend on which samples are in the batch: the mean over two halves of a
batch is not the value of the whole.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.losses.logits import kl_divergence
from distill_lightning.losses.precision import in_full_precision

WHOLE = 16
"""A product with a whole bank is faster than one with the rows of the candidates, up to so many rows for each of them:
it moves no rows, 537 MB for 16,385 candidates of 64 samples with 128 numbers each.
"""


@in_full_precision
def sp(features: Tensor, teacher_features: Tensor) -> Tensor:
    """|| R(f) - R(g) ||_F^2 / B^2, similarity-preserving distillation (SP: Tung & Mori, ICCV 2019, arXiv:1907.09682).

    R(f) has the rows N(F F^T), where F is (B, C H W), without a normalisation of its own.

    Args:
        features: f, (B, ...): maps or vectors.
        teacher_features: g, (B, ...).
    """
    s, t = (_directions(x @ x.T) for x in (features.flatten(1), teacher_features.detach().flatten(1)))
    return F.mse_loss(s, t)


@in_full_precision
def rkd_distance(features: Tensor, teacher_features: Tensor) -> Tensor:
    """mean_ij huber(d_ij(f) - d_ij(g)), d_ij the distance of samples i and j divided by the mean of those above 0 (RKD:
    Park et al., CVPR 2019, arXiv:1904.05068).

    huber(x) = x^2 / 2 up to 1, |x| - 1/2 beyond. The mean is over all B^2 pairs, those of a sample with itself
    included.

    Args:
        features: f, (B, D).
        teacher_features: g, (B, D').
    """
    return F.huber_loss(_distances(features), _distances(teacher_features.detach()))


def _distances(features: Tensor) -> Tensor:
    # by differences: |a|^2 + |b|^2 - 2ab has no correct digits for features that differ by a percent
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    return distances / (distances.sum() / (distances > 0).sum().clamp_min(1)).clamp_min(1e-12)


@in_full_precision
def rkd_angle(features: Tensor, teacher_features: Tensor) -> Tensor:
    """mean_ijk huber(cos_ijk(f) - cos_ijk(g)), cos_ijk of the angle at sample j between i and k (RKD: Park et al., CVPR
    2019, arXiv:1904.05068). huber and mean as in ``rkd_distance``, over all B^3 triples.

    The memory is B^3 + B^2 D numbers: 5 MB for B = 64, 0.8 GB for B = 512, at D = 256.

    Args:
        features: f, (B, D).
        teacher_features: g, (B, D').
    """
    return F.huber_loss(_cosines(features), _cosines(teacher_features.detach()))


def _cosines(features: Tensor) -> Tensor:
    directions = _directions(features[None] - features[:, None])
    return directions @ directions.mT


def _directions(vectors: Tensor) -> Tensor:
    """Each vector divided by its length. One of length 0 has no direction: it gives 0 with the gradient 0, which a
    division by a small number, as in F.normalize, would make huge.
    """
    squares = vectors.square().sum(-1, keepdim=True)
    return torch.where(squares > 0, vectors * torch.where(squares > 0, squares, 1.0).rsqrt(), 0.0)


@in_full_precision
def pkt(features: Tensor, teacher_features: Tensor) -> Tensor:
    """mean_ij q_ij log((q_ij + e) / (p_ij + e)), e = 1e-7, probabilistic knowledge transfer (PKT: Passalis & Tefas,
    ECCV 2018, arXiv:1803.10837).

    p_ij is (cos(f_i, f_j) + 1) / 2, divided by the sum of its row; q likewise for g. The mean is over B^2 pairs, those
    of a sample with itself included.

    Args:
        features: f, (B, D).
        teacher_features: g, (B, D').
    """
    p, q = _probabilities(features), _probabilities(teacher_features.detach())
    return (q * ((q + 1e-7) / (p + 1e-7)).log()).mean()


def _probabilities(features: Tensor) -> Tensor:
    directions = features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-7)
    similarity = (directions @ directions.T + 1) / 2
    probabilities: Tensor = similarity / similarity.sum(1, keepdim=True)
    return probabilities


@in_full_precision
def crd_similarity(embedding: Tensor, bank: Tensor, candidates: Tensor, *, temperature: float = 0.07) -> Tensor:
    """exp(M[c] . v / T), (B, K + 1): how near each sample is to its candidates in a bank (CRD, see ``crd``).

    Args:
        embedding: v, (B, D), rows of length 1.
        bank: M, (N, D), rows of length 1, no gradient.
        candidates: c, (B, K + 1), rows of the bank: the sample itself, then K of other classes.
        temperature: T.
    """
    bank = bank.detach()
    if len(bank) <= WHOLE * candidates.shape[1]:
        near = (embedding @ bank.T).gather(1, candidates)
    else:
        near = (bank[candidates] @ embedding[:, :, None])[:, :, 0]
    return (near / temperature).exp()


@in_full_precision
def crd(similarity: Tensor, bank_size: int, normaliser: Tensor) -> Tensor:
    """-mean_b [log (o_0 / (o_0 + K/N + e)) + sum_k log ((K/N) / (o_k + K/N + e))] with o = similarity / Z and e = 1e-7,
    one side of contrastive representation distillation (CRD: Tian et al., ICLR 2020, arXiv:1910.10699).

    The loss is the sum of two sides: the student's embedding against the teacher's bank, and the teacher's embedding
    (both embeddings are trained) against the student's bank. Z is N times the mean similarity of the first batch of a
    run, and is then kept.

    Args:
        similarity: (B, K + 1), see ``crd_similarity``; the first column is of the sample itself.
        bank_size: N.
        normaliser: Z, a scalar.
    """
    negatives = similarity.shape[1] - 1
    noise = negatives / bank_size
    score = similarity / normaliser.detach()
    right = (score[:, 0] / (score[:, 0] + noise + 1e-7)).log()
    wrong = (noise / (score[:, 1:] + noise + 1e-7)).log().sum(1)
    return -(right + wrong).mean()


@in_full_precision
def crd_rows(rows: Tensor, embedding: Tensor, *, momentum: float = 0.5) -> Tensor:
    """N(m M[i] + (1 - m) v), the new rows of a bank for the samples of a batch, without gradient (CRD, see ``crd``).

    Args:
        rows: M[i], (B, D), the rows of the samples.
        embedding: v, (B, D).
        momentum: m.
    """
    return F.normalize(momentum * rows + (1 - momentum) * embedding.detach())


@in_full_precision
def seed(
    embedding: Tensor,
    teacher_embedding: Tensor,
    queue: Tensor,
    *,
    temperature: float = 0.07,
    teacher_temperature: float = 0.07,
) -> Tensor:
    """mean_b KL(softmax(Q N(t_b) / T_t) || softmax(Q N(s_b) / T_s)): the student shall be as near to the teacher's
    embeddings of other samples as the teacher is (SEED: Fang et al., ICLR 2021, arXiv:2101.04731).

    The rows of the queue stand in for classes. The paper has the cross-entropy, which differs by the entropy of the
    teacher, without gradient.

    Args:
        embedding: s, (B, D).
        teacher_embedding: t, (B, D).
        queue: Q, (M, D), the teacher's embeddings of other samples, rows of length 1, no gradient.
        temperature: T_s.
        teacher_temperature: T_t.
    """
    s, t = (_directions(rows) @ queue.detach().T for rows in (embedding, teacher_embedding))
    return kl_divergence(s / temperature, t / teacher_temperature)


@in_full_precision
def seed_local(
    tokens: Tensor, teacher_tokens: Tensor, *, temperature: float = 0.07, teacher_temperature: float = 0.07
) -> Tensor:
    """mean_bi KL(softmax_j(N(t_bi) . N(t_bj) / T_t) || softmax_j(N(s_bi) . N(s_bj) / T_s)): the places i and j of a
    picture b shall be as alike for the student as for the teacher. The local term of the method SEED.

    The memory is 2 B L^2 numbers: 40 MB for B = 128 and L = 196, 1.1 GB for L = 1,024.

    Args:
        tokens: s, (B, L, D), the features at the L places of each picture.
        teacher_tokens: t, (B, L, D'), at the same places.
        temperature: T_s.
        teacher_temperature: T_t.
    """
    s, t = (one @ one.mT for one in map(_directions, (tokens, teacher_tokens)))
    return kl_divergence((s / temperature).flatten(0, 1), (t / teacher_temperature).flatten(0, 1))
