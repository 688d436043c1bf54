"""Losses of logits, features and relations: values, gradients, and what goes wrong without care. Golden values: from
float64 by independent formulas, and by the authors' functions where these exist.
"""

import pytest
import torch
import torch.nn.functional as F
from test_losses import S, T, Y
from torch import Tensor

from distill_lightning import losses


def made(function, factor: float, offset: float, *shape: int) -> Tensor:
    """function(factor i + offset) for the flat index i, in float64."""
    flat = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return function(factor * flat + offset).reshape(shape)


A, Q = (made(torch.sin, 0.7, 0.3, 3, channels, 4, 4) for channels in (2, 3))
B, B2 = (made(torch.cos, 0.37, 0, 3, 3, size, size) for size in (4, 2))
Q8, B8 = made(torch.sin, 0.7, 0.3, 3, 2, 8, 8), made(torch.cos, 0.37, 0, 3, 2, 8, 8)
V, W = made(torch.sin, 1, 1, 3, 4), made(torch.cos, 0.5, 0, 3, 5)
WEIGHT, BIAS = (torch.tensor(values, dtype=torch.float64) for values in ([1, 0.5, 2], [0.1, -0.3, 0.8]))
MARGINS = losses.ofd_margins(WEIGHT, BIAS)
RAW = torch.full((3,), 5 - 1e-5, dtype=torch.float64).expm1().log()  # softplus gives a variance of 5

STUDENT_BANK = F.normalize(made(torch.sin, 1, 1, 6, 4))
TEACHER_BANK = F.normalize(made(torch.cos, 1, 2, 6, 4))
V_S, V_T = F.normalize(made(torch.sin, 0.5, 0.2, 3, 4)), F.normalize(made(torch.cos, 0.9, 0, 3, 4))
CANDIDATES = torch.tensor([[1, 0, 5], [3, 2, 0], [4, 5, 2]])
NEAR_S, NEAR_T = (
    losses.crd_similarity(V_S, TEACHER_BANK, CANDIDATES),
    losses.crd_similarity(V_T, STUDENT_BANK, CANDIDATES),
)
Z_S, Z_T = 6 * NEAR_S.mean(), 6 * NEAR_T.mean()

W4, QUEUE = made(torch.cos, 0.5, 0, 3, 4), F.normalize(made(torch.cos, 1, 2, 5, 4))
TOKENS_S, TOKENS_T = made(torch.cos, 0.37, 0, 2, 3, 4), made(torch.sin, 0.7, 0.3, 2, 3, 4)
HALF = {"temperature": 0.5, "teacher_temperature": 0.5}

CLASSIFIER, CLASSIFIER_BIAS = made(torch.sin, 0.3, 0, 4, 5), 0.1 * torch.arange(4, dtype=torch.float64)
V5 = made(torch.sin, 1, 1, 3, 5)


def classified(features: Tensor) -> Tensor:
    return F.linear(features, CLASSIFIER, CLASSIFIER_BIAS)


def rkd(f: Tensor, g: Tensor) -> Tensor:
    return 25 * losses.rkd_distance(f, g) + 50 * losses.rkd_angle(f, g)


def srrl(f: Tensor, g: Tensor, w: float = 1.0) -> Tensor:
    return losses.srrl(f, g, classified(f), classified(g), logit_weight=w)


CE = losses.cross_entropy(S, Y)
GOLDEN = {
    "dkd 2": (losses.dkd(S, T, Y, temperature=4, beta=2), 1.100809737),
    "dkd 8": (losses.dkd(S, T, Y, temperature=4), 3.640694759),
    # the teacher of two networks is the mean of their logits
    "kd of an ensemble": (losses.kd(S, torch.stack([T, T.roll(1, 1)]).mean(0), temperature=4), 0.846024254),
    "kd standardised": (losses.kd(S, T, temperature=2, standardise=True), 0.264041691),
    "kd with labels": (0.1 * CE + 9 * losses.kd(S, T, temperature=2, standardise=True), 2.414967385),
    "dkd standardised": (
        losses.dkd(S, T, Y, temperature=2, alpha=9, beta=72, standardise=True),
        24.331748255,
    ),
    "dist inter": (losses.dist(S, T, temperature=4, intra_weight=0), 5.944629741),
    "dist intra": (losses.dist(S, T, temperature=4, inter_weight=0), 5.565919018),
    "dist 1": (losses.dist(S, T), 0.734548680),
    "dist with labels": (CE + 2 * losses.dist(S, T, temperature=4), 23.407019183),
    "nkd 1": (losses.nkd(S, T, Y), 1.903050699),
    "nkd 4": (losses.nkd(S, T, Y, temperature=4), 26.660282460),
    "wsld 4": (2.25 * losses.wsld(S, T, Y, temperature=4), 28.420506613),
    "wsld 2": (2.5 * losses.wsld(S, T, Y, temperature=2), 7.382803948),
    "fitnets": (losses.fitnets(Q, B), 0.944939305),
    "simkd": (losses.simkd(Q, B), 0.944939305),
    "at": (losses.at(A, B), 0.018061653),
    "at of two sizes": (losses.at(A, B2), 0.009164272),
    "at of an attention": (losses.at(A, losses.attention(B2)), 0.009164272),
    "at of a smaller attention": (losses.at(B2, losses.attention(A, (2, 2))), 0.009164272),
    "sp": (losses.sp(A, B), 0.607362913),
    "nst": (losses.nst(A, B), 1.312254754),
    "cat_kd normalised": (losses.cat_kd(Q, B, normalise=True), 0.479904190),
    "cat_kd": (losses.cat_kd(Q, B), 0.267095545),
    "rkd distance": (losses.rkd_distance(V, W), 0.005255772),
    "rkd angle": (losses.rkd_angle(V, W), 0.004883663),
    "rkd": (rkd(V, W), 0.375577426),
    "pkt": (losses.pkt(V, W), 0.009005992),
    "vid": (losses.vid(Q, B, RAW), 0.899212887),
    "ofd": (losses.ofd(Q, B, MARGINS) / 1000, 0.041571198),
    "hcl 4": (losses.hcl(Q, B), 0.617891303),
    "hcl 8": (losses.hcl(Q8, B8), 0.654743947),
    "srrl features": (srrl(V5, W, 0), 0.840415562),
    "srrl": (srrl(V5, W), 6.874055974),
    "seed": (losses.seed(W4, V, QUEUE), 12.833115576),
    "seed 1": (losses.seed(W4, V, QUEUE, temperature=1, teacher_temperature=1), 0.357421124),
    "seed local": (losses.seed_local(TOKENS_S, TOKENS_T), 0.573467191),
    "seed local 1": (losses.seed_local(TOKENS_S, TOKENS_T, temperature=1, teacher_temperature=1), 0.338394374),
    "crd z_s": (Z_S, 111.805284),
    "crd z_t": (Z_T, 1695722.005504),
    "crd": (losses.crd(NEAR_S, 6, Z_S) + losses.crd(NEAR_T, 6, Z_T), 31.104547242),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name):
    value, golden = GOLDEN[name]
    assert value.item() == pytest.approx(golden, abs=1e-6, rel=1e-9)


def test_golden_vectors():
    assert MARGINS.tolist() == pytest.approx([-0.762617, -0.529574, -1.337512], abs=1e-6)
    row = losses.crd_rows(STUDENT_BANK[[1, 3, 4]], V_S)[0]
    assert row.tolist() == pytest.approx([-0.279491, 0.140062, 0.595011, 0.740425], abs=1e-6)
    student = S.clone().requires_grad_()
    losses.dkd(student, T, Y, temperature=4).backward()
    assert student.grad[0].tolist() == pytest.approx([-0.062923264, -0.61299357, -0.296490393, 0.972407226], abs=1e-6)
    weights = [
        (losses.wsld(S[i : i + 1], T[i : i + 1], Y[i : i + 1], temperature=4) / 16).item()
        / F.cross_entropy(S[i : i + 1] / 4, (T[i : i + 1] / 4).softmax(1)).item()
        for i in range(3)
    ]
    assert weights == pytest.approx([0.8425605, 0.7844459, 0.1147491], abs=1e-6)


OF_STUDENT_AND_TEACHER = {
    "dkd": (lambda s, t: losses.dkd(s, t, Y, temperature=4), S, T),
    "kd standardised": (lambda s, t: losses.kd(s, t, temperature=2, standardise=True), S, T),
    "dist": (lambda s, t: losses.dist(s, t, temperature=4), S, T),
    "nkd": (lambda s, t: losses.nkd(s, t, Y, temperature=2), S, T),
    "wsld": (lambda s, t: losses.wsld(s, t, Y, temperature=2), S, T),
    "fitnets": (losses.fitnets, Q, B),
    "simkd": (losses.simkd, Q, B8[:, :1].expand(-1, 3, -1, -1)),
    "at": (losses.at, A, B),
    "sp": (losses.sp, A, B),
    "nst": (losses.nst, A, B),
    "cat_kd": (losses.cat_kd, Q, B),
    "cat_kd normalised": (lambda m, t: losses.cat_kd(m, t, size=3, normalise=True), Q, B8[:, :1].expand(-1, 3, -1, -1)),
    "rkd": (rkd, V, W),
    "pkt": (losses.pkt, V, W),
    "vid": (lambda f, g: losses.vid(f, g, RAW), Q, B),
    "ofd": (lambda f, g: losses.ofd(f, g, MARGINS), Q, B),
    "hcl": (losses.hcl, Q8, B8),
    "srrl": (lambda f, g: losses.srrl(f, g, classified(f), classified(g.detach())), V5, W),
    "seed": (lambda s, t: losses.seed(s, t, QUEUE, **HALF), W4, V),
    "seed local": (lambda s, t: losses.seed_local(s, t, **HALF), TOKENS_S, TOKENS_T),
    "crd": (lambda v, bank: losses.crd(losses.crd_similarity(v, bank, CANDIDATES), 6, Z_S), V_S, TEACHER_BANK),
}


@pytest.mark.parametrize("name", OF_STUDENT_AND_TEACHER)
def test_gradients_are_right_and_of_the_student_alone(name):
    function, student, teacher = OF_STUDENT_AND_TEACHER[name]
    if name == "wsld":  # whose weights have no gradient, and depend on the student
        frozen = torch.tensor([0.8425605, 0.7844459, 0.1147491], dtype=torch.float64)
        s = student.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(s, teacher), s)
        soft = F.cross_entropy(s / 2, (teacher / 2).softmax(1), reduction="none")
        (expected,) = torch.autograd.grad(4 * (frozen * soft).mean(), s)
        assert torch.allclose(gradient, expected, atol=1e-7)
    else:
        assert torch.autograd.gradcheck(lambda s: function(s, teacher), student.clone().requires_grad_())
    s, t = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    function(s, t).backward()
    assert t.grad is None and s.grad.abs().max() > 0


@pytest.mark.parametrize("name", sorted(OF_STUDENT_AND_TEACHER.keys() - {"nkd", "wsld", "vid", "ofd", "srrl", "crd"}))
def test_zero_where_both_agree(name):
    function, student, _ = OF_STUDENT_AND_TEACHER[name]
    assert function(student, student.clone()).item() == pytest.approx(0, abs=1e-4)  # DIST's 1e-8


@pytest.mark.parametrize(
    "name",
    ["kd standardised", "dkd", "dist", "nkd", "at", "nst", "cat_kd normalised", "rkd", "pkt", "seed", "seed local"],
)
def test_what_changes_nothing(name):
    """A shift of logits; a scale of features; with standardisation, both."""
    function, student, teacher = OF_STUDENT_AND_TEACHER[name]
    scaled = ("kd standardised", "at", "nst", "cat_kd normalised", "rkd", "pkt", "seed", "seed local")
    factor = 3.0 if name in scaled else 1.0
    shift = 5.0 if student is S else 0.0
    changed = function(factor * student + shift, teacher).item()
    assert changed == pytest.approx(function(student, teacher).item(), rel=1e-5)


# What goes wrong without care


def test_sure_networks_give_finite_decoupled_losses():
    """The logarithm of a sum of probabilities is -inf in float32 from a gap of 110 on."""
    student = torch.tensor([[300.0, 0, 1, 2]], requires_grad=True)
    teacher = torch.tensor([[0.0, 250, 1, 2]])
    for loss in (losses.dkd, losses.nkd):
        value = loss(student, teacher, torch.tensor([0]), temperature=1)
        (gradient,) = torch.autograd.grad(value, student)
        assert value.isfinite() and gradient.isfinite().all()


def test_standardisation_divides_by_the_unbiased_deviation():
    assert torch.allclose(losses.standardised(S).std(1), torch.ones(3, dtype=torch.float64))
    constant = torch.ones(2, 4, requires_grad=True)
    value = losses.kd(constant, torch.zeros(2, 4), temperature=2, standardise=True)
    value.backward()
    assert value.item() == 0 and constant.grad.abs().max() == 0  # no NaN


def test_constant_columns_have_a_correlation():
    """A class that no sample of the batch is likely to have: its deviation is 0."""
    student = torch.tensor([[1.0, 0, -200], [0, 1, -200]], requires_grad=True)
    losses.dist(student, student.detach().flip(0)).backward()
    assert student.grad.isfinite().all()


def test_a_broadcast_hint_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 3, 4, 4\) and \(3, 1, 4, 4\)"):
        losses.fitnets(Q, B[:, :1])


def test_losses_of_gram_distance_and_contrast_do_not_compute_in_half_precision():
    """Under autocast a matrix product is in bfloat16; SP's Gram matrix and AT's squares leave float16 altogether."""
    torch.manual_seed(0)
    centre = torch.randn(1, 64)
    near, far = (centre + 0.01 * torch.randn(8, 64) for _ in range(2))  # features that differ by a percent
    large = 300 * torch.rand(8, 4, 8, 8), 300 * torch.rand(8, 6, 8, 8)
    v, bank = F.normalize(near), F.normalize(far)

    def class_maps(features: Tensor, weight: Tensor) -> Tensor:
        return losses.class_maps(features, weight[:, : features.shape[1]])

    cases = [
        (losses.rkd_distance, near, far),
        (losses.rkd_angle, near, far),
        (losses.pkt, near - centre, far - centre),
        (losses.sp, *large),
        (losses.nst, *large),
        (lambda f, g: losses.cat_kd(class_maps(f, near), class_maps(g, near)), *large),
        (lambda s, t: losses.seed(s, t, F.normalize(far - centre).to(s)), near - centre, far - centre),
        (losses.seed_local, near[None] - centre, far[None] - centre),
        (lambda v, bank: losses.crd_similarity(v, bank, torch.arange(8).expand(8, -1)), v, bank),
    ]
    for function, student, teacher in cases:
        exact = function(student.double(), teacher.double())
        with torch.autocast("cpu", torch.bfloat16):
            value = function(student, teacher)
        assert value.dtype == torch.float32
        assert torch.allclose(value.double(), exact, rtol=1e-3), function
    for function in (losses.at, losses.sp):
        value = function(*(m.half() for m in large))
        assert value.isfinite() and value.dtype == torch.float32
        exact = function(*(m.half().double() for m in large))
        assert value.item() == pytest.approx(exact.item(), rel=1e-3)


def test_distances_are_not_differences_of_large_numbers():
    """|a|^2 + |b|^2 - 2ab in float32 has three digits for features that differ by a percent."""
    torch.manual_seed(0)
    near, far = (10 + 0.01 * torch.randn(6, 64) for _ in range(2))
    exact = losses.rkd_distance(near.double(), far.double()).item()
    assert losses.rkd_distance(near, far).item() == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("loss", [losses.rkd_distance, losses.rkd_angle, losses.pkt, losses.sp])
def test_equal_and_dead_samples_have_bounded_gradients(loss):
    features = torch.tensor([[1.0, 2, 3], [1, 2, 3], [0, 0, 0], [0, 0, 0], [2, 0, 1]], requires_grad=True)
    loss(features, torch.randn(5, 4, generator=torch.Generator().manual_seed(0))).backward()
    assert features.grad.abs().max() < (1e8 if loss is losses.pkt else 10)


def test_equal_samples_alone_have_no_distance():
    features = torch.ones(3, 4, requires_grad=True)
    value = losses.rkd_distance(features, W.float())
    value.backward()
    assert value.isfinite() and features.grad.isfinite().all()


def test_an_empty_class_map_has_a_bounded_gradient():
    """A length of 1e-12 in the place of 0 would give 1e10."""
    empty = torch.zeros(3, 2, 4, 4, requires_grad=True)
    losses.cat_kd(empty, torch.rand(3, 2, 4, 4), normalise=True).backward()
    assert 0 < empty.grad.abs().max() < 1e3


def test_a_dead_map_has_no_gradient():
    dead = torch.zeros(3, 2, 4, 4, requires_grad=True)
    value = losses.at(dead, torch.rand(3, 2, 4, 4)) + losses.nst(dead, torch.rand(3, 2, 4, 4))
    value.backward()
    assert value.isfinite() and dead.grad.isfinite().all()


def test_the_variance_of_vid_is_trained():
    """With a fixed variance it is a mean squared error; the variance goes to that of the errors."""
    raw = RAW.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: losses.vid(Q, B, a), raw)
    optimizer = torch.optim.Adam([raw], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        losses.vid(Q, B, raw).backward()
        optimizer.step()
    assert torch.allclose(F.softplus(raw.detach()), (Q - B).square().mean((0, 2, 3)), rtol=1e-2)


def test_margins_of_extreme_norms():
    """Channels that are hardly ever negative, always negative, or constant."""
    weight = torch.tensor([1.0, 1.0, -1.0, 0.0, 0.0, 1e-3])
    bias = torch.tensor([10.0, -30.0, 0.0, 0.5, -0.5, 2.0])
    expected = [-3.0, -30.0, -0.7978846, 0.0, -0.5, -3e-3]
    assert losses.ofd_margins(weight, bias).tolist() == pytest.approx(expected, abs=2e-2)


def test_margin_of_what_both_leave_negative_costs_nothing():
    student, teacher, margin = torch.full((1, 1, 1, 1), -2.0), torch.full((1, 1, 1, 1), -1.0), torch.tensor([-0.5])
    assert losses.ofd(student, teacher, margin).item() == 0
    assert losses.ofd(student + 1.8, teacher, margin).item() == pytest.approx(0.09)  # above the margin: pushed down
    assert losses.ofd(student, -teacher, margin).item() == pytest.approx(9.0)


def test_levels_of_the_hierarchy_are_smaller_than_the_map():
    pooled_1 = F.adaptive_avg_pool2d(Q - B, 1).square().mean()
    pooled_2 = F.adaptive_avg_pool2d(Q - B, 2).square().mean()
    by_hand = ((Q - B).square().mean() + pooled_2 / 2 + pooled_1 / 4) / 1.75
    assert losses.hcl(Q, B).item() == pytest.approx(by_hand.item())
    single = Q[:, :, :1, :1], B[:, :, :1, :1]
    assert losses.hcl(*single).item() == pytest.approx(F.mse_loss(*single).item())


def test_selectivity_needs_no_memory_of_channels_squared_by_positions():
    """An elementwise product of two maps of 512 channels and 16x16 positions would need 268 MB a sample."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            made = function(*args, **(kwargs or {}))
            if isinstance(made, Tensor):
                largest = max(largest, made.untyped_storage().nbytes())
            return made

    with Watch():
        losses.nst(torch.rand(1, 512, 16, 16), torch.rand(1, 512, 16, 16))
    assert largest < 2e6


def test_keywords_alone_are_enough():
    by_keywords = losses.sp(features=A, teacher_features=B)
    assert by_keywords.equal(losses.sp(A, B))


@pytest.mark.parametrize("function", [losses.rkd_distance, losses.rkd_angle])
def test_distances_and_angles_have_one_graph(function):
    """d[d > 0] would break the graph of torch.compile."""
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(V, W), function(V, W))


def test_vid_compares_maps_of_one_shape():
    """One channel would be compared with each of four."""
    with pytest.raises(ValueError, match="they must be alike"):
        losses.vid(torch.zeros(2, 4, 3, 3), torch.zeros(2, 1, 3, 3), torch.zeros(4))


def test_an_attention_that_is_larger_than_the_maps_is_refused():
    with pytest.raises(ValueError, match="the attention is .3, 4, 4. and the maps are .3, 3, 2, 2.: it must not"):
        losses.at(B2, losses.attention(A))
