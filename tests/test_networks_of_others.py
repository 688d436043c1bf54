"""Networks of torchvision, timm and users: by name, with trained weights, and those that are unusual."""

import copy
from pathlib import Path

import pytest
import torch
from helpers import bare_trainer, batch_of, distill, fit, load, sgd, write_pictures
from networks_of_others import check, check_export, main
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torchvision import models

from distill_lightning import checkpoints, losses
from distill_lightning.callbacks.lottery import Lottery
from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.lottery.rates import PruningRule
from distill_lightning.methods.at import AT
from distill_lightning.methods.base import Method
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.born_again import BornAgain
from distill_lightning.methods.checks import refuse_misfit, refuse_untrainable, warn_of_softmax
from distill_lightning.methods.cs_kd import CSKD
from distill_lightning.methods.ddgsd import DDGSD
from distill_lightning.methods.dlb import DLB
from distill_lightning.methods.dml import DML
from distill_lightning.methods.kd import KD
from distill_lightning.methods.kdcl import KDCL
from distill_lightning.models.foreign import foreign_network, spelled_out
from distill_lightning.models.outputs import auxiliary_outputs, main_output
from distill_lightning.networks import maker
from distill_lightning.runs.config import by_run
from distill_lightning.values import StepOutput

SHORT = [
    "--trainer.max_epochs",
    1,
    "--data.train_part",
    64,
    "--data.batch_size",
    32,
    "--trainer.enable_progress_bar",
    "false",
]
SMALL = "torchvision:mnasnet0_5"  # it asks for the version in its state dict


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of torch.hub, and no network connection."""

    def no_connection(url, *args, **options):
        raise OSError(f"no connection to {url}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_connection)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def said_line(capsys, *args) -> str:
    capsys.readouterr()
    assert distill(*args) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("distill: ") and "Traceback" not in line
    return line


# By name


def test_one_of_each_kind_goes_through_all(tmp_path):
    for part in ("train", "test"):
        write_pictures(tmp_path / part, 4, 4, 32)
    names = [SMALL, "timm:test_vit", "timm:test_convnext", "timm:test_nfnet", "timm:test_byobnet"]
    for name in names:
        if name.startswith("timm"):
            pytest.importorskip("timm")
        row = check(name, tmp_path)
        assert {row.trains, row.tested, row.reopens, row.teaches, row.pruned[:3]} == {"yes"}, row
    assert check_export(row, tmp_path).exported.startswith("yes")


@pytest.mark.long
def test_the_table_of_networks(tmp_path, monkeypatch):
    page = Path(__file__).parent.parent / "docs" / "results" / "networks.md"
    monkeypatch.setattr("sys.argv", ["networks_of_others.py", str(tmp_path / "rows.jsonl"), str(page)])
    main()
    assert "fails: " not in page.read_text()


def test_short_names_stand_for_class_paths():
    assert spelled_out("torchvision:resnet50") == {"class_path": "torchvision.models.resnet50", "init_args": {}}
    assert spelled_out("ConvNet") is None and spelled_out("http://x/y") is None
    with pytest.raises(InputError, match=r"torchvision has no classification network resnet5000?; did you mean"):
        spelled_out("torchvision:resnet500")
    assert maker(SMALL).func is models.mnasnet0_5
    pytest.importorskip("timm")
    with pytest.raises(InputError, match="timm has no network resnet10x; did you mean"):
        spelled_out("timm:resnet10x")


def test_timm_is_an_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"need the package timm: pip install 'distill_lightning\[timm\]'"):
        spelled_out("timm:resnet10t")


def test_a_grey_picture_needs_no_other_network_on_the_command_line_or_in_a_file(capsys):
    run = fit("digits/baseline.yaml", *SHORT, "--model.network", SMALL, "--model.optimizer.lr", 0.001)
    assert load(run)["state_dict"]["model.layers.0.weight"].shape[1] == 1
    Path("mine.yaml").write_text(f"model: {{class_path: Baseline, init_args: {{network: '{SMALL}'}}}}\ndata: Digits\n")
    again = fit(Path("mine.yaml").resolve(), *SHORT)
    assert load(again)["hyper_parameters"]["network"] == load(run)["hyper_parameters"]["network"]
    assert distill("test", "--ckpt_path", run) == 0  # the folder of the run stands for its last checkpoint
    assert by_run(str(run), lambda folder: folder.name) == f"{run.name}/last.ckpt"
    capsys.readouterr()
    assert fit("digits/kd.yaml", *SHORT, "--trainer.callbacks.teacher", run).exists()
    assert "is a folder: its checkpoints/last.ckpt is taken" in capsys.readouterr().err


def test_a_shufflenet_by_name():
    run = fit("digits/baseline.yaml", *SHORT, "--model.network", "torchvision:shufflenet_v2_x0_5")
    assert "inverted_residual" not in load(run)["hyper_parameters"]["network"]["init_args"]
    assert distill("test", "--ckpt_path", run) == 0


# Trained weights


def test_trained_weights_from_the_folder_of_torch_hub(hub, capsys):
    torch.manual_seed(3)
    given = models.mnasnet0_5()
    name = Path(models.MNASNet0_5_Weights.DEFAULT.url).name
    weights = ["--model.network", SMALL, "--model.network.weights", "DEFAULT"]
    line = said_line(capsys, "fit", "--config", "digits/baseline.yaml", *SHORT, *weights)
    assert f"put them as {name} into {hub}" in line
    torch.save(given.state_dict(), hub / name)
    arguments = {"weights": "DEFAULT", "num_classes": 7, "in_channels": 1}
    network = foreign_network("torchvision.models.mnasnet0_5", arguments)
    said = capsys.readouterr().err
    assert (
        "adapted: layers.0.weight 3 to 1 channels; new: classifier.1.weight, classifier.1.bias (the head has 7 classes"
        in said
    )
    assert network.layers[14].weight.equal(given.layers[14].weight)
    assert network.layers[0].weight.equal(given.layers[0].weight.sum(1, keepdim=True))
    run = fit("digits/baseline.yaml", *SHORT, *weights)
    (hub / name).unlink()  # the run has its weights itself: nothing is fetched
    assert distill("test", "--ckpt_path", run / "checkpoints" / "last.ckpt") == 0
    assert isinstance(checkpoints.open_network(run / "checkpoints" / "last.ckpt"), nn.Module)
    assert distill("fit", "--config", "digits/baseline.yaml", *SHORT, *weights, "--ckpt_path", "last") in (0, 2)
    with pytest.raises(InputError, match="has no weights V7: give one of DEFAULT, IMAGENET1K_V1"):
        foreign_network("torchvision.models.mnasnet0_5", {"weights": "V7"})


def test_trained_weights_of_timm(hub, capsys):
    timm = pytest.importorskip("timm")
    import safetensors.torch

    with pytest.raises(InputError, match=r"put them as test_resnet\.r160_in1k\.safetensors into"):
        foreign_network("timm.create_model", {"model_name": "test_resnet", "pretrained": True})
    given = timm.create_model("test_resnet").state_dict()
    safetensors.torch.save_file(given, hub / "test_resnet.r160_in1k.safetensors")
    arguments = {"model_name": "test_resnet", "pretrained": True, "num_classes": 7, "in_channels": 1}
    network = foreign_network("timm.create_model", arguments)
    assert network.state_dict()["layer1.0.conv1.weight"].equal(given["layer1.0.conv1.weight"])
    assert network.get_classifier().out_features == 7
    assert "weights of timm:test_resnet from" in capsys.readouterr().err


def test_a_file_may_not_fetch_the_weights_of_a_teacher():
    from distill_lightning.cli import from_file
    from distill_lightning.specs import demands

    asks = {"class_path": "torchvision.models.resnet18", "init_args": {"weights": "DEFAULT"}}
    plain = {"class_path": "distill_lightning.checkpoints.PlainNetwork", "init_args": {"network": asks}}
    teacher = {"class_path": "distill_lightning.callbacks.soft_targets.SoftTargets", "init_args": {"teacher": plain}}
    assert demands({"network": asks}, {"network": nn.Module})[1] == []
    (fault,) = demands({"trainer.callbacks": [teacher]}, from_file.kinds())[1]
    assert "which would fetch weights" in fault
    odd = {"class_path": "torchvision.models.resnet18", "init_args": {"weights": "http://x"}}
    assert demands({"network": odd}, {"network": nn.Module})[1]


# Unusual networks


class Odd(nn.Sequential):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(nn.Flatten(), *layers, nn.Linear(16, 10))


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixing, self.head = nn.Parameter(torch.randn(64, 16, dtype=torch.complex64)), nn.Linear(16, 10)

    def forward(self, images):
        return self.head((images.flatten(1).to(torch.complex64) @ self.mixing).abs())


class Auxiliary(nn.Module):
    """As GoogLeNet: three outputs in training, one in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.other = Odd(nn.Linear(64, 16)), Odd(nn.Linear(64, 16))

    def forward(self, images):
        main = self.main(images)
        return models.GoogLeNetOutputs(main, self.other(images), self.other(images)) if self.training else main


GoogLeNet = type("GoogLeNet", (Auxiliary,), {})


def one_epoch(network: nn.Module, method: type[Method] = Baseline) -> Method:
    made = method(network, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01))
    trainer = bare_trainer(max_epochs=1, num_sanity_val_steps=0)
    trainer.fit(made, datamodule=Digits(batch_size=64, train_part=128))
    return made


def test_auxiliary_classifiers_are_trained_where_their_authors_do_so():
    seen: list[dict] = []

    class Seen(Baseline):
        def _with_auxiliary(self, output: StepOutput, batch):
            output = super()._with_auxiliary(output, batch)
            seen.append({name: float(term.detach()) for name, term in output.terms.items()})
            return output

    network = GoogLeNet()
    before = copy.deepcopy(network.other.state_dict())
    one_epoch(network, Seen)
    assert all(terms.keys() == {"ce", "auxiliary"} for terms in seen)
    assert seen[0]["auxiliary"] == pytest.approx(0.3 * 2 * 2.3, rel=0.3)
    assert not network.other[1].weight.equal(before["1.weight"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: CSKD(GoogLeNet(), optimizer=sgd),
        lambda: DLB(GoogLeNet(), separate_halves=True, optimizer=sgd),
        lambda: DML(GoogLeNet(), [GoogLeNet(), GoogLeNet()], optimizer=sgd),
        lambda: KDCL(GoogLeNet(), [GoogLeNet()], optimizer=sgd),
        lambda: DDGSD(GoogLeNet(), optimizer=sgd),
    ],
)
def test_auxiliary_classifiers_learn_also_where_a_batch_has_more_rows_or_networks(make):
    """From 0.3 x 2 x ln 10 at first, of each network."""
    method, seen = make(), []
    original = method._with_auxiliary
    method._with_auxiliary = lambda output, batch: (seen.append(original(output, batch)), seen[-1])[1]
    before = {name: p.clone() for name, p in method.named_parameters() if ".other." in name}
    bare_trainer(max_epochs=1, num_sanity_val_steps=0).fit(method, datamodule=Digits(batch_size=64, train_part=128))
    networks = 1 + len(getattr(method, "peers", []))
    assert len(seen) > 1
    for output in seen:
        assert output.terms["auxiliary"].item() == pytest.approx(networks * 0.3 * 2 * 2.3, rel=0.3)
    assert not any(p.equal(before[name]) for name, p in method.named_parameters() if name in before)


def test_auxiliary_logits_of_two_halves_are_those_of_the_whole_batch():
    method = Baseline(GoogLeNet())
    batch = batch_of(torch.zeros(6, 1, 8, 8), torch.arange(6) % 4)
    logits = torch.randn(6, 10)
    expected = 0.3 * losses.cross_entropy(logits, batch.labels)
    for rows in ([6], [2, 4], [3, 3], [1, 2, 3]):
        method.auxiliary = {method.model: [[piece] for piece in logits.split(rows)]}
        terms = method._with_auxiliary(StepOutput({}, logits), batch).terms
        assert terms["auxiliary"].item() == pytest.approx(expected.item())
    method.auxiliary = {method.model: [[logits], [logits]]}  # twice the whole batch
    assert method._with_auxiliary(StepOutput({}, logits), batch).terms["auxiliary"] == pytest.approx(2 * expected)
    method.auxiliary = {method.model: [[logits[:2]]]}
    first = 0.3 * losses.cross_entropy(logits[:2], batch.labels[:2])
    assert method._with_auxiliary(StepOutput({}, logits), batch).terms["auxiliary"] == pytest.approx(first)


@pytest.mark.parametrize("method", [KD, BornAgain, AT])
def test_auxiliary_classifiers_are_refused_where_labels_have_no_weight(method):
    made = method(GoogLeNet(), hard_weight=0.0, optimizer=sgd)
    teacher = SoftTargets(PlainNetwork(Auxiliary()))
    with pytest.raises(InputError, match="GoogLeNet has auxiliary classifiers, which need labels: leave them out"):
        bare_trainer(callbacks=[teacher]).fit(made, datamodule=Digits(batch_size=64, train_part=128))


@pytest.mark.parametrize("kind", ["snip", "synflow"])
def test_scores_of_weights_that_the_logits_do_not_depend_on(kind):
    lottery = Lottery(rounds=0, at_start=kind, density=0.5)
    with pytest.raises(InputError, match=rf"{kind}: the output does not depend on other.1.weight: name it in Lottery"):
        bare_trainer(callbacks=[lottery]).fit(Baseline(GoogLeNet(), optimizer=sgd), datamodule=Digits(train_part=128))


def test_otherwise_only_the_logits_are_used_and_that_is_said_once(capsys):
    one_epoch(Auxiliary())
    assert capsys.readouterr().err.count("returns a GoogLeNetOutputs: only its logits are used") == 1
    logits = torch.zeros(2, 3)
    assert main_output({"features": logits + 1, "logits": logits}) is logits
    assert main_output((logits, "x")) is logits and main_output("x") == "x"
    assert len(auxiliary_outputs([logits, logits + 1, torch.zeros(5)])) == 1


def test_lazy_layers_work_everywhere():
    network = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    one_epoch(network)
    again = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    checkpoints.load_weights(again, network.state_dict(), "a file")
    pictures = torch.randn(2, 1, 8, 8)
    assert again(pictures).equal(network.eval()(pictures))


def test_a_complex_first_parameter_trains():
    network = Complex()
    before = network.mixing.detach().clone()
    one_epoch(network)
    assert not network.mixing.equal(before)


def test_nothing_to_train_is_one_line():
    method = nn.Module()
    with pytest.raises(InputError, match="Flatten has no parameters: there is nothing to train"):
        refuse_untrainable(method, nn.Flatten())
    frozen = Odd(nn.Linear(64, 16)).requires_grad_(False)
    with pytest.raises(InputError, match=r"all parameters of Odd are frozen \(requires_grad is false\)"):
        refuse_untrainable(frozen, frozen)


def test_a_network_that_ends_in_softmax_is_named(capsys):
    data = Digits()
    data.setup("fit")
    warn_of_softmax(Odd(nn.Linear(64, 16)), data)
    warn_of_softmax(nn.Sequential(Odd(nn.Linear(64, 16)), nn.LogSoftmax(1)), data)  # the same loss as without
    assert capsys.readouterr().err == ""
    warn_of_softmax(nn.Sequential(Odd(nn.Linear(64, 16)), nn.Softmax(1)), data)
    assert "Sequential ends in softmax (its module 1)" in capsys.readouterr().err


def test_any_failure_for_the_pictures_is_one_line():
    class Asserts(nn.Module):
        def forward(self, images):
            raise AssertionError("Input height (8) doesn't match model (224).")

    data = Digits()
    data.setup("fit")
    with pytest.raises(InputError, match=r"Asserts cannot take pictures of 1x8x8 from digits.*doesn't match model"):
        refuse_misfit(Asserts(), data)


def test_tied_weights_are_pruned_once_and_parametrised_ones_are_refused():
    rule = PruningRule(1, 0.2, 0.2, 0.1, None, "layers", [], {})
    tied = Odd(nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 16))
    tied[3].weight = tied[2].weight
    assert rule.rates(tied, {}) == {"1.weight": 0.2, "2.weight": 0.2, "4.weight": 0.1}
    for normed in (weight_norm(nn.Linear(64, 16)), nn.utils.weight_norm(nn.Linear(64, 16))):
        with pytest.raises(InputError, match="the weight of 1 is computed from other parameters"):
            rule.rates(Odd(normed), {})
    left = PruningRule(1, 0.2, 0.2, 0.1, None, "layers", ["1"], {})
    assert left.rates(Odd(weight_norm(nn.Linear(64, 16))), {}) == {"2.weight": 0.1}
    partly = Odd(nn.Linear(64, 16))
    partly[1].requires_grad_(False)
    assert rule.rates(partly, {}) == {"2.weight": 0.1}


def test_a_function_without_a_return_type_is_one_line(capsys, monkeypatch):
    Path("my_networks_x.py").write_text("def make(num_classes=10):\n    pass\n")
    monkeypatch.syspath_prepend(".")
    line = said_line(capsys, "fit", "--config", "digits/baseline.yaml", "--model.network", "my_networks_x.make")
    assert "write in its code what it returns, as -> Module" in line and len(line) < 200
