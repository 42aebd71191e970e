"""Networks in one file: run by a runtime that knows nothing of this project, and read by `mdpd predict`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from kinds_of_labels import several
from running import image_folder, text_table, trained, write_config

from mdpd_plugins.cli.main import main as mdpd
from mdpd_plugins.data import load_source
from mdpd_plugins.exports import evaluate_export, load_export
from mdpd_plugins.exports.network import FORMATS
from mdpd_plugins.registry.errors import CheckpointError
from mdpd_plugins.training import build_experiment, load_config
from mdpd_plugins.training.best import load_best

LADDER = {"train": {"max_steps": 6, "keep": "best", "val_every": 3}, "distill": {"method": "ladder", "reduction": 4}}


def data_of(key, folder):
    if key in ("hf-minilm", "oc-text"):
        source = {"type": "table", "path": str(text_table(folder / "t.csv")), "text_column": "text"}
        return {"source": {**source, "label_column": "label", "val_size": 8, "test_size": 8}, "max_length": 16}
    root = image_folder(folder / "images", classes=("a", "b"))
    return {"source": {"type": "image_folder", "root": str(root), "val_size": 6, "test_size": 4}}


def run_file(path, inputs):
    """What a runtime without this project makes of inputs by name."""
    if path.suffix == ".pt2":
        return torch.export.load(str(path)).module()(inputs)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {one.name: inputs[one.name].numpy() for one in session.get_inputs()})[0])


EACH = [("hf-vit", "torch"), *((key, "onnx") for key in ("hf-minilm", "mm-vit", "mm-resnet", "oc-image", "oc-text"))]


@pytest.mark.parametrize(("key", "kind"), EACH)
def test_a_ladder_that_is_kept_puts_out_what_it_did_in_training(key, kind, tmp_path):
    config = write_config(tmp_path / "config", key, data=data_of(key, tmp_path), **LADDER)
    trained(config, tmp_path / "run")
    out = tmp_path / "kept"
    assert mdpd(["export", str(tmp_path / "run"), str(out), "--keep-side", "--format", kind]) == 0
    experiment = build_experiment(load_config(config))
    load_best(experiment, tmp_path / "run")
    source = load_source(experiment.config.data.source, "val")
    examples = [source[i][0] for i in range(len(source))]
    exported = load_export(out, "cpu")
    for some in (examples[:1], examples):  # any number of samples, and texts of any length
        ours = experiment.distiller(experiment.adapter.transform()(some))["side"]
        torch.testing.assert_close(run_file(out / FORMATS[kind], exported.prepare(some)), ours, rtol=1e-4, atol=1e-4)
        assert torch.equal(exported.logits(some), run_file(out / FORMATS[kind], exported.prepare(some)))
    assert evaluate_export(exported, load_config(config)).keys() >= {"accuracy"}


@pytest.mark.parametrize(("coach", "write"), [("ladder", None), ("reader", None), ("reader", several)])
def test_a_coach_is_kept_too(coach, write, tmp_path):
    (tmp_path / "data").mkdir()
    data = data_of("hf-vit", tmp_path) if write is None else {"source": write(tmp_path / "data"), "max_length": 16}
    key = "hf-vit" if write is None else "hf-minilm"
    distill = {"method": "mdpd_coach", "coach": coach, "reduction": 4}
    config = write_config(
        tmp_path / "c", key, data=data, distill=distill, coach={"max_epochs": 2}, train={"max_steps": 2}
    )
    trained(config, tmp_path / "run")
    assert mdpd(["export", str(tmp_path / "run"), str(tmp_path / "kept"), "--keep-side"]) == 0
    from safetensors.torch import load_file

    said = load_file(tmp_path / "run" / "coach" / "outputs.safetensors")["outputs"]
    source = load_source(load_config(config).data.source, "train")
    found = load_export(tmp_path / "kept", "cpu").logits([source[i][0] for i in range(len(source))])
    # What teaches is calibrated; what is kept is the network as it learned.
    temperature = json.loads((tmp_path / "run" / "summary.json").read_text())["coach"]["temperature"]
    torch.testing.assert_close(found, said * temperature, rtol=1e-3, atol=1e-3)
    assert "side network" in (tmp_path / "kept" / "README.md").read_text()


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_the_faded_backbone_is_a_network_too(kind, tmp_path):
    config = write_config(tmp_path / "c", data=data_of("hf-vit", tmp_path), train={"max_steps": 2})
    trained(config, tmp_path / "run")
    assert mdpd(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--format", kind]) == 0
    source = load_source(load_config(config).data.source, "val")
    examples = [source[i][0] for i in range(3)]
    plain, network = (load_export(p, "cpu").logits(examples) for p in (tmp_path / "run" / "export", tmp_path / "out"))
    np.testing.assert_allclose(network, plain, rtol=1e-4, atol=1e-4)
    # It is signed like every other file of an export.
    path = tmp_path / "out" / FORMATS[kind]
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=f"{FORMATS[kind]} not what mdpd.json says"):
        load_export(tmp_path / "out", "cpu")


def test_what_there_is_no_network_of_is_refused_and_leaves_nothing(tmp_path, capsys):
    config = write_config(tmp_path / "c", distill={"method": "norm"}, train={"max_steps": 2})
    trained(config, tmp_path / "run")
    assert mdpd(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--keep-side"]) == 2
    assert "trains no side network, so there is none to keep" in capsys.readouterr().err
    assert mdpd(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--keep-side", "--format", "zoo"]) == 2
    assert "no zoo has a format for a side network" in capsys.readouterr().err
    assert mdpd(["export", str(tmp_path / "nowhere"), str(tmp_path / "out"), "--keep-side"]) == 2
    assert "is not a work directory" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
