"""Properties of every method, and the value of each method's loss."""

import copy
import io

import lightning.pytorch as pl
import pytest
import torch
from helpers import (
    BRANCHED,
    CLASSES,
    FEATURE_TAUGHT,
    METHODS,
    at,
    bare_trainer,
    batch_of,
    make,
    same,
    sgd,
    train_loader,
)
from torch import nn

from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.feature_hooks import FeatureHook
from distill_lightning.losses import cross_entropy, kd
from distill_lightning.methods.base import Method
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.checks import refuse_cuda_graphs
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.teachers import FrozenNetwork, Teachers
from distill_lightning.values import StepOutput, TeacherGiver, TeacherOutput


class Teacher(pl.Callback, TeacherGiver):
    """Random logits, the same for the same sample, and the features of a random network."""

    view_cycle = None

    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.teachers = Teachers([FrozenNetwork(ConvNet(width=8))])

    def watch(self, layers, shape, batch_statistics=False):
        return self.teachers.watch(layers, shape, batch_statistics)

    def read(self, reading):
        self.teachers.read(reading)

    def copy_of_teacher(self, shape):
        return self.teachers.copied(shape)

    def on_fit_start(self, trainer, pl_module):
        self.teachers.prepare(trainer)

    def teach(self, batch):
        logits = torch.stack([torch.sin(batch.index * (k + 1.0)) * 3 for k in range(10)], 1)
        features = self.teachers.answer(batch.images).features
        return TeacherOutput(logits, features, torch.stack([logits, logits.roll(1, 1)]))


def train(method: Method, epochs: int = 1, **data) -> pl.Trainer:
    trainer = bare_trainer(max_epochs=epochs, num_sanity_val_steps=2, callbacks=[Teacher()])
    trainer.fit(method, datamodule=Digits(**{"batch_size": 100, **data}))
    return trainer


def adapted(name: str, network: nn.Module) -> Method:
    """A method whose adapters are made: a first step knows the shapes of the teacher's features."""
    method = make(name, network)
    if name in FEATURE_TAUGHT:
        trainer = bare_trainer(max_epochs=1, limit_train_batches=1, callbacks=[Teacher()])
        trainer.fit(method, datamodule=Digits(batch_size=100))
    return method


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_gets_a_gradient_and_moves(name):
    method = adapted(name, ConvNet())
    before = {k: v.clone() for k, v in method.named_parameters() if v.requires_grad}
    train(method)
    assert [k for k, v in method.named_parameters() if v.requires_grad and v.equal(before[k])] == []
    assert {k.split(".")[1] for k, v in method.named_parameters() if not v.requires_grad} <= {"classifier"}  # SimKD's


@pytest.mark.parametrize(
    ("capability", "machine", "precision", "warned"),
    [
        ("AVX2", "x86_64", "bf16-mixed", True),
        ("DEFAULT", "AMD64", "bf16-true", True),
        ("AVX512", "x86_64", "bf16-mixed", False),
        ("AVX2", "x86_64", "32-true", False),
        ("DEFAULT", "aarch64", "bf16-mixed", False),  # ARM has kernels of its own
    ],
)
def test_a_precision_that_the_cpu_only_emulates_is_named(capability, machine, precision, warned, monkeypatch, capsys):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr("platform.machine", lambda: machine)
    trainer = bare_trainer(max_epochs=1, limit_train_batches=1, precision=precision)
    trainer.fit(Baseline(LeNet300100(image_size=8)), datamodule=Digits(batch_size=100))
    line = f"{precision} is many times slower on this CPU, which has no AVX-512: give --trainer.precision 32-true"
    assert (line in capsys.readouterr().err) == warned


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_asked_for_once_a_batch_and_never_in_evaluation(name, monkeypatch):
    calls = []
    original = CLASSES[name].training_loss

    def counted(self, batch, position):
        calls.append(1)
        return original(self, batch, position)

    monkeypatch.setattr(CLASSES[name], "training_loss", counted)
    trainer = train(make(name), epochs=2)
    assert len(calls) == trainer.global_step
    method = trainer.lightning_module
    kept = {name: copy.deepcopy(getattr(method, name)) for name in (*method.memory, *method.shared_memory)}
    trainer.validate(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    assert len(calls) == trainer.global_step
    assert all(same(getattr(method, name), value) for name, value in kept.items())


@pytest.mark.parametrize(
    ("name", "options", "updates"),
    [
        *((name, {}, 2 if name == "cs_kd" else 1) for name in METHODS),
        ("dlb", {"separate_halves": True}, 2),
    ],
)
def test_running_statistics_move_so_often_a_step(name, options, updates):
    method = make(name, ConvNet(), **options)
    steps = train(method).global_step
    first = 1 if options else 0  # the very first step has no second half
    batch_norm = getattr(method.model, "trunk", method.model)[1]  # SimKD deploys another network
    assert int(batch_norm.num_batches_tracked) == updates * steps - first


@pytest.mark.parametrize("name", METHODS)
def test_a_network_is_compiled_as_a_whole_and_seldom_again(name, monkeypatch):
    """With torch's eager backend: what is traced computes the same, bit by bit, hooks and branches included."""
    graphs, ends, torch_compile = [], [], torch.compile

    def traced(graph, inputs):
        graphs.append(graph)
        return graph

    def traced_compile(network, mode=None):
        return torch_compile(network, backend=traced, fullgraph=True)

    monkeypatch.setattr(torch, "compile", traced_compile)
    torch.compiler.reset()
    for compiled in (False, True):
        torch.manual_seed(0)
        method = make(name, ConvNet(), compile=compiled)
        train(method, epochs=3)
        ends.append(method.state_dict())
    assert same(*ends)
    # for training, for validation without gradients, and for batches of another size
    assert 2 <= len(graphs) <= 4


def test_cuda_graphs_need_a_gpu_and_gradients_of_their_own():
    with pytest.raises(InputError, match=r"model\.cuda_graphs needs a GPU, and the device is cpu: give model\.compile"):
        train(make("baseline", cuda_graphs=True))
    with pytest.raises(InputError, match=r"cannot add up gradients: leave trainer\.accumulate_grad_batches out"):
        refuse_cuda_graphs("cuda", 2)


@pytest.mark.parametrize("name", METHODS)
def test_a_second_fit_begins_without_the_memory_of_the_first(name):
    method = adapted(name, ConvNet(dropout=0.2))
    start = copy.deepcopy(method.state_dict())
    ends = []
    for _ in range(2):
        method.load_state_dict(start)
        trainer = bare_trainer(max_epochs=3, callbacks=[Teacher()])
        trainer.fit(method, datamodule=Digits(batch_size=100))
        ends.append(copy.deepcopy(method.state_dict()))
    assert same(*ends)


@pytest.mark.parametrize("name", METHODS)
def test_its_network_can_be_copied_and_pickled_in_a_fit(name):
    """As pruning and the bench do, with hooks on it or not; a copy has nothing to do with the method."""

    class Copies(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                other = copy.deepcopy(pl_module.model)
                file = io.BytesIO()
                torch.save(other, file)
                assert file.tell() < 10**6
                held = [
                    v for value in vars(pl_module).values() for v in (value if isinstance(value, list) else [value])
                ]
                hooks = [value for value in held if isinstance(value, FeatureHook)]
                of_branches = {"branches": 1, "one": 1, "okddip": 4, "pcl": 4}
                assert len(hooks) == ({"ddgsd": 1, "byot": 3} | of_branches).get(name, 0)
                other.train()(batch.images)
                for hook in hooks:  # the step has taken what was held, and the copy gives them nothing
                    with pytest.raises(RuntimeError, match="no batch has passed"):
                        hook.take()

    trainer = bare_trainer(max_epochs=1, callbacks=[Teacher(), Copies()])
    trainer.fit(make(name, ConvNet()), datamodule=Digits(batch_size=100))


@pytest.mark.parametrize("name", METHODS)
def test_the_last_partial_batch_may_be_one_sample(name):
    """In training; where batch norm or a repeated batch need two, it is refused instead."""
    network = LeNet300100(image_size=8)
    if name in ("byot", *BRANCHED, *FEATURE_TAUGHT):
        with pytest.raises(InputError, match="needs 2 samples"):
            train(make(name), keep_last=True, train_part=301)
        return
    if name == "dlb":
        with pytest.raises(InputError, match="needs 2 samples"):
            train(make(name, network), keep_last=True, train_part=301)
        network, part, steps = LeNet300100(image_size=8), 302, 8
    else:
        part, steps = 301, 8
    trainer = train(make(name, network), epochs=2, keep_last=True, train_part=part)
    assert trainer.global_step == steps
    assert all(torch.isfinite(p).all() for p in trainer.lightning_module.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_trained_again_from_the_same_seed_is_bitwise_equal(name):
    weights = []
    for _ in range(2):
        torch.manual_seed(1)
        weights.append(train(make(name, ConvNet(dropout=0.2))).lightning_module.state_dict())
        torch.rand(7)  # what else draws in this process does not matter
    assert all(weights[0][k].equal(weights[1][k]) for k in weights[0])


def test_kd_is_its_equation():
    method = make("kd", temperature=3, soft_weight=0.7, hard_weight=0.2)
    batch = batch_of(torch.randn(6, 1, 8, 8), torch.arange(6), teacher=TeacherOutput(torch.randn(6, 10)))
    logits = method.model(batch.images)
    output = method.training_loss(batch, at())
    terms = output.terms
    assert output.logits.equal(logits)
    assert terms["hard"].item() == pytest.approx(0.2 * cross_entropy(logits, batch.labels).item(), rel=1e-6)
    expected = 0.7 * kd(logits, batch.teacher.logits, temperature=3).item()
    assert terms["soft"].item() == pytest.approx(expected, rel=1e-6)


def test_the_two_forms_of_kd_differ_by_t_squared_in_the_learning_rate():
    """L' = CE / T^2 + KL at rate T^2 r walks the path of L = CE + T^2 KL at rate r."""
    temperature, rate = 4.0, 0.01
    images, labels, teacher = torch.randn(20, 1, 8, 8), torch.arange(20) % 10, torch.randn(20, 10) * 3
    weights = []
    for factor in (1.0, temperature**-2):
        torch.manual_seed(0)
        network = LeNet300100(image_size=8).double()
        optimizer = torch.optim.SGD(network.parameters(), lr=rate / factor)
        for _ in range(5):
            logits = network(images.double())
            loss = cross_entropy(logits, labels) + kd(logits, teacher.double(), temperature=temperature)
            optimizer.zero_grad()
            (factor * loss).backward()
            optimizer.step()
        weights.append(torch.cat([p.flatten() for p in network.parameters()]))
    assert torch.allclose(weights[0], weights[1], atol=1e-12)


def test_soft_weights_alone_still_learn():
    with pytest.raises(InputError, match="SoftTargets"):
        make("kd").training_loss(batch_of(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.long)), at())


def test_dlb_is_its_equation():
    """Three steps of DLB, by hand, on the batches that the data module gives."""
    method = make("dlb", temperature=2, alpha=0.5)
    torch.manual_seed(0)
    network = LeNet300100(image_size=8)
    optimizer = sgd(network.parameters())
    data = Digits(batch_size=100, train_part=300)
    data.setup("fit")
    last = None
    for batch in train_loader(data, needs=method.needs):
        logits = network(batch.images)
        loss = cross_entropy(logits, batch.labels)
        if last is not None:
            loss = loss + 0.5 * kd(logits[100:], last, temperature=2)
        last = logits[:100].detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    train(method, train_part=300)
    for a, b in zip(method.model.parameters(), network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert torch.allclose(method.last_logits, last, atol=1e-5)


def test_dlb_counts_steps_and_exposures():
    method = make("dlb")
    trainer = train(method, epochs=2, train_part=300)
    assert trainer.global_step == 6
    assert method.means.exposures == 6 * 100 + 5 * 100


def test_label_smoothing_is_torchs():
    method = make("baseline", label_smoothing=0.2)
    batch = batch_of(torch.randn(6, 1, 8, 8), torch.arange(6))
    expected = nn.functional.cross_entropy(method.model(batch.images), batch.labels, label_smoothing=0.2)
    assert method.training_loss(batch, at()).terms["ce"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_label_probs_replace_labels():
    method = make("baseline")
    probs = torch.rand(6, 10).softmax(1)
    batch = batch_of(torch.randn(6, 1, 8, 8), torch.arange(6), label_probs=probs)
    expected = -(probs * method.model(batch.images).log_softmax(1)).sum(1).mean()
    assert method.training_loss(batch, at()).terms["ce"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("baseline", {"label_smoothing": 1.0}),
        ("kd", {"temperature": 0.0}),
        ("kd", {"soft_weight": -0.1}),
        ("kd", {"hard_weight": -0.1}),
        ("dlb", {"temperature": -1.0}),
        ("dlb", {"alpha": -1.0}),
        ("born_again", {"hard_weight": -1.0}),
    ],
)
def test_bad_options(name, options):
    with pytest.raises(InputError):
        make(name, **options)


@pytest.mark.parametrize(("name", "network"), [("dlb", None), ("baseline", ConvNet())])
def test_batches_of_one_are_refused(name, network):
    with pytest.raises(InputError, match="needs 2 samples"):
        train(make(name, network), batch_size=1)


def test_a_network_of_other_classes_is_refused():
    with pytest.raises(InputError, match="needs 10 logits"):
        train(make("baseline", ConvNet(num_classes=7)))


def test_a_network_of_other_channels_is_refused():
    with pytest.raises(InputError, match="cannot take pictures"):
        train(make("baseline", ConvNet(in_channels=3)))


def test_a_foreign_data_module_is_refused():
    class Foreign(pl.LightningDataModule):
        def train_dataloader(self):
            return [torch.zeros(1)]

    with pytest.raises(InputError, match="DLB needs the last batch again.*use a data module of distill_lightning"):
        pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit(make("dlb"), datamodule=Foreign())


def test_not_a_number_names_the_first_bad_step():
    class Breaks(Baseline):
        def training_loss(self, batch, position):
            output = super().training_loss(batch, position)
            factor = float("nan") if position.step == 4 else 1.0
            return StepOutput({"ce": output.terms["ce"] * factor}, output.logits)

    with pytest.raises(FloatingPointError, match="from step 5 on"):
        train(Breaks(LeNet300100(image_size=8), optimizer=sgd))


def test_weight_decay_can_spare_norms_and_biases():
    def decaying(parameters):
        return torch.optim.SGD(parameters, lr=0.1, weight_decay=0.5)

    method = Baseline(ConvNet(), optimizer=decaying, decay_norms_and_biases=False)
    groups = method.configure_optimizers().param_groups
    assert [g["weight_decay"] for g in groups] == [0.5, 0.0]
    assert {p.ndim for p in groups[1]["params"]} == {1}
    assert sum(len(g["params"]) for g in groups) == len(list(method.parameters()))


@pytest.mark.parametrize("fraction", [0.0, 0.4])
def test_what_is_memorised_of_wrong_labels(fraction):
    """Counted by hand from the logits of each step."""
    written, counts = {}, torch.zeros(5)

    class Counting(Baseline):
        def training_loss(self, batch, position):
            output = super().training_loss(batch, position)
            predicted, label, clean = output.logits.argmax(1), batch.labels, batch.clean_labels
            flipped = label != clean
            for place, chosen in enumerate(
                (
                    ~flipped,
                    flipped,
                    ~flipped & (predicted == label),
                    flipped & (predicted == label),
                    flipped & (predicted == clean),
                )
            ):
                counts[place] += chosen.sum()
            return output

        def log_metrics(self, stage, metrics, step):
            written.update({f"{stage}/{name}": value for name, value in metrics.items()})

    torch.manual_seed(0)
    train(Counting(LeNet300100(image_size=8), optimizer=sgd), label_noise=fraction)
    clean, flipped, right, memorised, recovered = counts.tolist()
    assert written["train/epoch_accuracy_clean"] == pytest.approx(right / clean)
    if not fraction:
        assert right and not {"train/epoch_memorised", "train/epoch_recovered"} & set(written)
        return
    assert written["train/epoch_memorised"] == pytest.approx(memorised / flipped)
    assert written["train/epoch_recovered"] == pytest.approx(recovered / flipped)
    assert written["train/epoch_accuracy"] == pytest.approx((right + memorised) / (clean + flipped))
