"""Losses as pure functions of tensors: logits, features, embeddings. All are in nats or squared units of the features.

Each function is one term of a loss without its weight: for example ``kd`` is the soft term alone, and the loss of
Hinton et al. is ``w_hard * cross_entropy(s, y) + w_soft * kd(s, t, temperature=T)``. What a method keeps or trains
beside the network (adapters, banks) is an argument.
"""

from distill_lightning.losses.groups import okddip, one, ramp, weighted_logits
from distill_lightning.losses.logits import (
    ca_mkd,
    cross_entropy,
    ctkd,
    dist,
    dkd,
    kd,
    kl_divergence,
    nkd,
    standardised,
    without_label,
    wsld,
)
from distill_lightning.losses.maps import at, fitnets, hcl, nst, ofd, ofd_margins, same_size, simkd, srrl, vid
from distill_lightning.losses.relations import (
    crd,
    crd_rows,
    crd_similarity,
    pkt,
    rkd_angle,
    rkd_distance,
    seed,
    seed_local,
    sp,
)
from distill_lightning.losses.self_distillation import (
    adjusted,
    feature_distance,
    mutual,
    past_predictions,
    softened_teacher,
    symmetric_kl,
    virtual_teacher,
)
from distill_lightning.losses.specialists import (
    dustbin_correction,
    dustbin_cross_entropy,
    dustbin_labels,
    dustbin_logits,
)

__all__ = [
    "adjusted",
    "at",
    "ca_mkd",
    "crd",
    "crd_rows",
    "crd_similarity",
    "cross_entropy",
    "ctkd",
    "dist",
    "dkd",
    "dustbin_correction",
    "dustbin_cross_entropy",
    "dustbin_labels",
    "dustbin_logits",
    "feature_distance",
    "fitnets",
    "hcl",
    "kd",
    "kl_divergence",
    "mutual",
    "nkd",
    "nst",
    "ofd",
    "ofd_margins",
    "okddip",
    "one",
    "past_predictions",
    "pkt",
    "ramp",
    "rkd_angle",
    "rkd_distance",
    "same_size",
    "seed",
    "seed_local",
    "simkd",
    "softened_teacher",
    "sp",
    "srrl",
    "standardised",
    "symmetric_kl",
    "vid",
    "virtual_teacher",
    "weighted_logits",
    "without_label",
    "wsld",
]
