"""`distill export`: each format gives what the run gives, with its metadata; what cannot be exported is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import distill
from torch import nn

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import onnx
from safetensors import safe_open

from distill_lightning import checkpoints
from distill_lightning.data.digits import Digits
from distill_lightning.data.rendering import Normaliser
from distill_lightning.errors import InputError
from distill_lightning.exported import ExportedClassifier
from distill_lightning.exporting import FORMATS, export, onnx_files, opening, parity
from distill_lightning.exporting.opening import open_source
from distill_lightning.methods.ensemble import Members
from distill_lightning.models.convnet import ConvNet
from distill_lightning.teachers import FrozenNetwork
from distill_lightning.tensor_files import write_tensors

FEW = {"pictures": 70, "calibration": 40}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(parity, "TIMED_S", 0.0)


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = Digits()
    data.setup("test")
    return data


def some_pixels() -> np.ndarray:
    data = Digits()
    data.read_test_part()
    return data.test.source.images[:70].numpy()


def by_the_network(path: Path, pixels: np.ndarray) -> np.ndarray:
    """The logits as an evaluation computes them: the data's normaliser, then the checkpoint's network."""
    checkpoint = checkpoints.read(path / "checkpoints" / "last.ckpt")
    info = checkpoints.trained_on(checkpoint, "").info
    network = checkpoints.open_network(path / "checkpoints" / "last.ckpt", checkpoint)
    with torch.no_grad():
        return network(Normaliser(torch.tensor(info.mean), torch.tensor(info.std))(torch.from_numpy(pixels))).numpy()


@pytest.mark.parametrize("format", ["onnx", "torch-export", "safetensors"])
def test_a_file_gives_what_the_run_gives(format, run, digits, tmp_path):
    name = f"file{Path(FORMATS[format]).suffix}"
    report = export(run, format, tmp_path / "out" / name, data=digits, **FEW)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {name, f"{name}.json"}
    found = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert list(found["parity"]["batches"]) == ["1", "17", "64"]
    assert max(d["probs"] for d in found["parity"]["batches"].values()) < 1e-5
    assert found["accuracy_lost"] == 0
    assert found["parity"]["pictures"] == 60  # every sixth of 360
    assert found["size_bytes"]["file"] == report.file.stat().st_size
    assert set(found["latency_ms"]) == {"torch", "file"}
    assert found["threads"] == 1
    pixels = some_pixels()
    expected = by_the_network(run, pixels)
    if format == "onnx":
        logits = ExportedClassifier(report.file).run(pixels)[0]
    elif format == "torch-export":
        logits = torch.export.load(report.file).module()(torch.from_numpy(pixels))[0].numpy()
    else:
        with safe_open(report.file, "pt") as file:
            network = ConvNet()
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no dict
            assert json.loads(file.metadata()["class_names"]) == [str(k) for k in range(10)]
        run_weights = checkpoints.open_network(run / "checkpoints" / "last.ckpt").state_dict()
        assert all(torch.equal(value, run_weights[name]) for name, value in network.state_dict().items())
        return
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_the_accuracy_is_that_of_distill_test(run, digits, tmp_path):
    report = export(run, "onnx", tmp_path / "m.onnx", data=digits, pictures=10**6)
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    assert report.parity.pictures == 360
    assert report.parity.accuracy["file"] == pytest.approx(metrics["test/accuracy"])


def test_integers_are_smaller_and_lose_little(run, digits, tmp_path):
    small, again = (export(run, "onnx-int8", tmp_path / f"{name}.onnx", data=digits, **FEW) for name in "ij")
    assert small.size_bytes["file"] < 0.6 * small.size_bytes["weights"]
    assert small.parity.same_class[64] > 0.9
    assert 0 < small.parity.batches[64]["probs"] < 0.5
    assert json.loads((tmp_path / "i.onnx.json").read_text())["calibration"] == {"count": 40, "seed": 0}
    kinds = [node.op_type for node in onnx.load(tmp_path / "i.onnx").graph.node]
    assert kinds.count("QuantizeLinear") > 2
    weights = [[t.raw_data for t in onnx.load(r.file).graph.initializer] for r in (small, again)]
    assert weights[0] == weights[1]
    drawn = [parity.training_pictures(digits, 40, seed).pixels for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_a_loss_of_accuracy_is_refused(run, digits, tmp_path):
    with pytest.raises(InputError, match="points of accuracy, more than --accuracy_loss -1"):
        export(run, "onnx-int8", tmp_path / "lossy.onnx", data=digits, accuracy_loss=-1, **FEW)
    assert not list(tmp_path.glob("lossy*"))


def test_the_file_says_where_it_comes_from(run, digits, tmp_path):
    export(run, "onnx", tmp_path / "m.onnx", data=digits, **FEW)
    model = onnx.load(tmp_path / "m.onnx")
    texts = {entry.key: entry.value for entry in model.metadata_props}
    info = open_source(run).info
    about, lineage = json.loads(texts["preprocessing"]), json.loads(texts["lineage"])
    assert (about["channels"], about["size"], about["mean"]) == (1, 8, list(info.mean))
    assert (lineage["run"], lineage["checkpoint"], lineage["network"]) == ("a", "last.ckpt", "ConvNet")
    assert lineage["run_id"] == json.loads((run / "identity.json").read_text())["id"]
    assert texts["weights_digest"] == open_source(run).weights_digest
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["images", "logits", "probs"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    content = (tmp_path / "m.onnx").read_bytes()
    assert str(Path(__file__).parent.parent.parent).encode() not in content  # no path of a source file
    assert b"stack_trace" not in content


def test_an_ensemble_is_one_graph_with_the_mean_of_logits(run, digits, tmp_path, trained):
    other = torch.load(trained / "logs/digits/baseline/b/checkpoints/last.ckpt", weights_only=True)
    other["data"]["info"] |= {"mean": (0.1,), "std": (0.9,)}  # a member with another normalisation
    write_tensors(tmp_path / "second.ckpt", other)
    members = ["logs/digits/baseline/a/checkpoints/last.ckpt", "second.ckpt"]
    model = {"class_path": "Ensemble", "init_args": {"members": members}}
    Path("e.yaml").write_text(json.dumps({"model": model, "data": {"class_path": "Digits"}, "log_dir": "mine"}))
    assert distill("fit", "--config", "e.yaml", "--name", "e") == 0
    folder = Path("mine/digits/ensemble/e")
    report = export(folder, "onnx", tmp_path / "e.onnx", data=digits, pictures=10**6)
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert report.parity.accuracy["file"] == pytest.approx(metrics["test/accuracy"])
    given = opening.normaliser_of(digits.info)
    nets = [
        FrozenNetwork(checkpoints.open_network(m), given, opening.normaliser_of(opening.open_source(m).info))
        for m in members
    ]
    pixels = some_pixels()
    with torch.no_grad():
        expected = Members(nets, "logits")(given(torch.from_numpy(pixels))).numpy()
    found = ExportedClassifier(tmp_path / "e.onnx")
    np.testing.assert_allclose(found.run(pixels)[0], expected, atol=1e-4)
    assert [m["checkpoint"] for m in found.info.lineage["members"]] == ["last.ckpt", "second.ckpt"]


def test_the_zeros_of_a_pruned_run_are_kept(run, digits, tmp_path):
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in checkpoint["state_dict"].items():
        if value.ndim == 4:
            value[value.abs() < value.abs().median()] = 0
            zeros = {name: int((value == 0).sum())}
    write_tensors(tmp_path / "pruned.ckpt", checkpoint)
    export("pruned.ckpt", "onnx", tmp_path / "p.onnx", data=digits, **FEW)
    counts = [
        int((onnx.numpy_helper.to_array(t) == 0).sum())
        for t in onnx.load("p.onnx").graph.initializer
        if len(t.dims) == 4
    ]
    assert next(iter(zeros.values())) in counts


def test_a_bias_of_classes_is_in_the_graph(run, digits, tmp_path):
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["config"] = checkpoint["config"].replace("class_bias: null", "class_bias: {'3': 50.0}")
    assert "'3': 50.0" in checkpoint["config"]
    write_tensors(tmp_path / "biased.ckpt", checkpoint)
    export("biased.ckpt", "onnx", tmp_path / "b.onnx", data=digits, **FEW)
    assert set(ExportedClassifier("b.onnx").predict(some_pixels()).classes) == {"3"}


def test_weights_that_are_too_large_for_one_file_lie_beside_it(run, digits, tmp_path, monkeypatch):
    whole = export(run, "onnx", tmp_path / "w.onnx", data=digits, **FEW)
    monkeypatch.setattr(onnx_files, "LARGEST_ALONE", 1000)
    parts = export(run, "onnx", tmp_path / "out" / "m.onnx", data=digits, **FEW)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"m.onnx", "m.onnx.data", "m.onnx.json"}
    assert (tmp_path / "out" / "m.onnx.data").stat().st_size > 50_000
    outputs = [ExportedClassifier(report.file).run(some_pixels())[0] for report in (whole, parts)]
    assert np.array_equal(*outputs)
    content = bytearray((tmp_path / "out" / "m.onnx.data").read_bytes())
    content[30_000] ^= 1
    (tmp_path / "out" / "m.onnx.data").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.onnx\.data is damaged"):
        ExportedClassifier(parts.file)


def test_the_command_shows_one_table_and_reads_the_data_of_the_run(run, capfd, tmp_path):
    assert distill("export", run, "--out", "m.onnx", "--pictures", 70) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert re.search(r"accuracy, 60 of test *│ 0\.\d+ *│ 0\.\d+ *│", out)
    assert out.endswith("exported: m.onnx\nreport: m.onnx.json\n")
    lines = [line for line in out.splitlines() if line and line[0] not in "┏┃┡│└"]
    assert len(lines) == 2  # nothing of the exporter


# Refused


class Singular(ConvNet):
    def forward(self, images):
        return super().forward(images) + torch.linalg.svdvals(images)[:, 0, :1]


class Deciding(ConvNet):
    def forward(self, images):
        return super().forward(images if images.sum() > 0 else -images)


@pytest.mark.parametrize(("network", "words"), [(Singular, "aten._linalg_svd"), (Deciding, "another way")])
def test_an_operator_without_a_form_is_named(network, words, run, digits, tmp_path):
    with pytest.raises(InputError, match=f"{network.__name__} cannot be exported: .*{words}"):
        export(run, "onnx", tmp_path / "m.onnx", network=network(), data=digits, **FEW)
    assert not list(tmp_path.glob("m.onnx*"))


def test_a_file_that_differs_from_the_run_is_not_left(run, digits, tmp_path, monkeypatch):
    class Off(nn.Module):
        def forward(self, images):
            logits = torch.zeros(len(images), 10)
            return logits, logits.softmax(1)

    Path("m.onnx").write_bytes(b"what was there before")
    monkeypatch.setattr(parity, "run_of", lambda module: lambda pixels: tuple(x.numpy() for x in Off()(pixels)))
    with pytest.raises(InputError, match="differs from the run by .* at batch size 1, more than --tolerance 0.0001"):
        export(run, "onnx", "m.onnx", data=digits, **FEW)
    assert Path("m.onnx").read_bytes() == b"what was there before"
    assert not Path("m.onnx.json").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nothing"], "there is no checkpoint nothing"),
        (["logs"], "logs is no run: it has no config.yaml"),
        (["{run}", "--format", "gguf"], "invalid choice: 'gguf'"),
        (["{run}", "--out", "logs"], "logs is a folder"),
        (["{run}/config.yaml"], "is torn, or no checkpoint"),
        (["{run}", "--pictures", "-1"], "pictures 0 or more"),
        ([], "required: RUN|CHECKPOINT"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line(args, words, run, capsys):
    assert distill("export", *(a.format(run=run) for a in args)) == 2
    assert re.fullmatch(f"distill: .*{re.escape(words)}.*\n", capsys.readouterr().err)
    assert not [path for path in run.iterdir() if path.name.startswith("model")]


def test_a_run_without_weights_is_refused(tmp_path, run, capsys):
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "config.yaml").write_text((run / "config.yaml").read_text())
    assert distill("export", "fresh") == 2
    assert capsys.readouterr().err == "distill: fresh has no weights: there is no checkpoints/last.ckpt\n"


def test_data_of_other_classes_are_refused(run, digits, tmp_path):
    with pytest.raises(InputError, match="has other classes or pictures than"):
        export(run, "onnx", tmp_path / "m.onnx", data=Digits(image_size=9))


def test_a_missing_package_is_named(run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(
        InputError, match=re.escape("onnxscript is not installed: pip install 'distill_lightning[export]'")
    ):
        export(run, "onnx")
