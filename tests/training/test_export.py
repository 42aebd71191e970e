"""What a run hands over: a plain model of its zoo, which the zoo's own loader reads without this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import image_folder, text_table, trained, weights, write_config

from mdpd_plugins.training import build_experiment, export_work_dir, load_config
from mdpd_plugins.training.experiment import first_batch

LOADER = Path(__file__).parents[1] / "helpers" / "foreign_loader.py"
KINDS = {
    "hf-vit": "images",
    "hf-dinov2": "images",
    "hf-minilm": "texts",
    "mm-vit": "mmpretrain",
    "mm-resnet": "mmpretrain",
    "oc-image": "clip_image",
    "oc-text": "clip_text",
}
TEXTS = ("hf-minilm", "oc-text")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Backbone key -> work directory of a short run with its export."""
    base = tmp_path_factory.mktemp("runs")
    pictures, table = image_folder(base / "pictures"), text_table(base / "texts.csv")
    source = {"type": "table", "path": str(table), "text_column": "text", "label_column": "label"}
    found = {}
    for key in KINDS:
        given = {"data": {"source": source}} if key in TEXTS else {"data_root": str(pictures)}
        # Large steps, so that a path that had not been trained would be told from one that had.
        given["optim"] = {"norm_lr": 0.02, "head_lr": 0.02}
        given["distill"] = {"reduction": 4, "bottleneck": 8, "backbone_every": 2, "warmup": 0.0}
        config = write_config(base / key, key, **given, train={"max_steps": 4})
        found[key] = base / key / "run"
        trained(config, found[key])
    return found


@pytest.fixture(scope="module")
def paths(runs, tmp_path_factory):
    """Backbone key -> (logits of the trained backbone path, logits of the export in a process without us)."""
    folder, jobs, ours = tmp_path_factory.mktemp("logits"), [], {}
    for key, work_dir in runs.items():
        experiment = build_experiment(load_config(work_dir / "config.py"))
        fresh = experiment.distiller.backbone.state_dict()
        state = weights(work_dir, 4)
        assert any(not torch.equal(v, state[f"backbone.{k}"]) for k, v in fresh.items())
        experiment.distiller.load_state_dict(state)
        batch = first_batch(experiment.val_loader)
        ours[key] = experiment.distiller(batch["inputs"])["backbone"]
        torch.save(batch["inputs"], folder / f"{key}.in")
        names = {"inputs": str(folder / f"{key}.in"), "logits": str(folder / f"{key}.out")}
        jobs.append({"kind": KINDS[key], "folder": str(work_dir / "export"), **names})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-I", str(LOADER), str(folder / "jobs.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return {key: (ours[key], torch.load(folder / f"{key}.out")) for key in runs}


@pytest.fixture(autouse=True)
def one_thread():
    """Bit for bit needs the same number of threads on both sides."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("key", KINDS)
def test_the_zoo_loads_the_export_without_us_and_predicts_the_same_bit_for_bit(paths, key):
    ours, theirs = paths[key]
    assert ours.shape[0] >= 3 and ours.std() > 0
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("key", KINDS)
def test_a_re_export_holds_the_same_model_and_leaves_the_work_directory_alone(runs, tmp_path, capsys, key):
    work_dir, out = runs[key], tmp_path / "out"
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in work_dir.rglob("*")}
    assert export_work_dir(work_dir, out) == out
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in work_dir.rglob("*")} == before
    assert {p.name for p in out.iterdir()} == {p.name for p in (work_dir / "export").iterdir()}
    for file in out.iterdir():
        if file.suffix == ".pth":
            theirs = torch.load(work_dir / "export" / file.name)["state_dict"]
            assert all(torch.equal(v, theirs[k]) for k, v in torch.load(file)["state_dict"].items())
        else:
            assert file.read_bytes() == (work_dir / "export" / file.name).read_bytes(), file.name
    summary = json.loads((work_dir / "summary.json").read_text())
    assert f"{summary['metrics']['backbone/accuracy']:.4f}" in capsys.readouterr().out


def test_exports_are_plain_files_with_class_names(runs):
    config = json.loads((runs["hf-vit"] / "export" / "config.json").read_text())
    assert set(config["label2id"]) == {"bright", "dark", "striped"}
    checkpoint = torch.load(runs["mm-vit"] / "export" / "model.pth", weights_only=True)
    assert checkpoint["meta"]["dataset_meta"]["classes"] == ["bright", "dark", "striped"]
    assert (runs["hf-minilm"] / "export" / "tokenizer.json").is_file()
    for key, work_dir in runs.items():
        files = {p.name for p in (work_dir / "export").iterdir()}
        assert files & {"model.safetensors", "open_clip_model.safetensors", "model.pth"}, key
        assert not any(name.startswith(".") for name in files)


def test_an_export_in_which_nothing_was_trained_says_so(tmp_path, capsys):
    trained(write_config(tmp_path, distill={"method": "ladder"}, train={"max_steps": 2}), tmp_path / "ladder")
    said = " ".join(capsys.readouterr().out.split())
    card = (tmp_path / "ladder" / "export" / "README.md").read_text()
    for text in (said, card):
        assert "UNTRAINED EXPORT: this method trains the side network alone" in text
    trained(write_config(tmp_path, distill={"method": "linear"}, train={"max_steps": 2}), tmp_path / "linear")
    assert "UNTRAINED EXPORT" not in capsys.readouterr().out
