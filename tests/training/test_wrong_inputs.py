"""Wrong inputs: one line that names the fix, exit status 2, and nothing half-written."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from running import image_folder, main, text_table, trained, write_config


@pytest.fixture
def refused(tmp_path, capsys):
    """Run the command line, expect it to refuse, and return its one line."""

    def run(config, *arguments, work_dir=None):
        work_dir = work_dir or tmp_path / "run"
        before = sorted(tmp_path.rglob("*"))
        assert main([str(config), "--work-dir", str(work_dir), *map(str, arguments)]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("weights:", "RANDOM"))]
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1 and lines[-1] == errors[0], lines
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        return errors[0]

    return run


# --- names and keys


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"backbone": {"name": "huggingface/vit-base-patch16-22"}},
            "'huggingface/vit-base-patch16-22': did you mean 'huggingface/vit-base-patch16-224'",
        ),
        ({"backbone": {"nmae": "x"}}, "config key backbone.nmae is not known: did you mean 'name'?"),
        ({"optm": {}}, "config key optm is not known: did you mean 'optim'?"),
        ({"train": {"max_epoch": 2}}, "config key train.max_epoch is not known: did you mean 'max_epochs'"),
        ({"distill": {"reduktion": 4}}, "distill.reduktion is not a setting: did you mean 'reduction'?"),
        ({"distill": {"method": "mdpt"}}, "distill.method='mdpt' is not known: did you mean 'mdpd'"),
        ({"data": {"source": {"type": "packaged", "name": "digit"}}}, "did you mean 'digits'"),
        ({"data": {"source": {"type": "image_foldr", "root": "x"}}}, "did you mean 'image_folder'"),
        ({"data": {"source": {}}}, "names no data: set data.source, or data_root to an image folder"),
        ({"backbone": {"name": None}}, "names no backbone: set backbone = dict(name='<zoo>/<model>')"),
        ({"train": 5}, "config key train is a section, but 5 was given"),
        ({"train": {"max_steps": "ten"}}, "config key train.max_steps='ten': int is meant"),
        ({"train": {"amp": 1}}, "config key train.amp=1: bool or str is meant"),
        ({"data": {"eval_split": "tset"}}, "config key data.eval_split='tset' does not exist: did you mean 'test'?"),
        ({"data": {"eval_split": "train"}}, "config key data.eval_split='train' does not exist"),
        ({"data": {"batch_size": 0}}, "config key data.batch_size=0: it must be positive"),
        ({"train": {"val_every": -1}}, "config key train.val_every=-1: it must be positive"),
        ({"optim": {"accumulate": 0}}, "config key optim.accumulate=0: it must be positive"),
        ({"optim": {"low_rank_lr": -1.0}}, "config key optim.low_rank_lr=-1.0: it must not be negative"),
        ({"optim": {"head_weight_decay": -1}}, "config key optim.head_weight_decay=-1: it must not be negative"),
        ({"optim": {"clip_grad": -0.5}}, "config key optim.clip_grad=-0.5: it must not be negative"),
        ({"task": {"kind": "multy"}}, "task.kind='multy' is not known: did you mean 'multi'"),
        ({"task": {"kind": "float"}}, "task.kind='float', but the data has 'single' labels"),
        ({"distill": {"reduction": 7}}, "reduction=7 does not fit a backbone of width 32"),
        ({"distill": {"shallow": [0, 9]}}, "9"),
        ({"data": {"augment": "crop+flop"}}, "augment='crop+flop' does not exist: did you mean 'crop+flip'"),
        ({"backbone": {"options": {"hidden_sizes": 3}}}, "did you mean 'hidden_size'"),
    ],
)
def test_a_configuration_that_cannot_work(tmp_path, refused, sections, said):
    assert said in refused(write_config(tmp_path / "config", **sections))


def test_an_option_with_an_unknown_key(tmp_path, refused):
    said = refused(write_config(tmp_path / "config"), "--cfg-options", "train.max_stps=3")
    assert "config key train.max_stps is not known: did you mean 'max_steps'" in said


def test_a_rate_that_is_not_finite(tmp_path, refused):
    said = refused(write_config(tmp_path / "config"), "--cfg-options", "optim.side_lr=inf")
    assert "config key optim.side_lr=inf: it must be finite" in said


@pytest.mark.parametrize("pair", ["train.max_steps", "=3", "distill.shallow=[0,1"])
def test_options_that_are_no_pairs(tmp_path, refused, pair):
    said = refused(write_config(tmp_path), "--cfg-options", pair)
    assert "--cfg-options takes KEY=VALUE pairs" in said and repr(pair) in said


def test_a_config_file_that_is_missing(tmp_path, refused):
    path = write_config(tmp_path / "config")
    said = refused(path.with_name("confg.py"))
    assert "confg.py' does not exist" in said and f"did you mean {str(path)!r}" in said


@pytest.mark.parametrize("text", ["backbone = dict(", "width = 1 / 0", "_base_ = ['nowhere.py']"])
def test_a_config_file_that_cannot_be_read(tmp_path, refused, text):
    path = tmp_path / "broken.py"
    path.write_text(text)
    assert "broken.py' cannot be read" in refused(path)


def test_a_backbone_of_the_other_modality(tmp_path, refused):
    said = refused(write_config(tmp_path / "config", "hf-minilm"))
    assert "reads texts, but the data is image" in said and "mdpd list-backbones --modality image" in said


# --- data


def test_a_label_outside_the_classes(tmp_path, refused):
    table = text_table(tmp_path / "texts.csv")
    source = {
        "type": "table",
        "path": str(table),
        "text_column": "text",
        "label_column": "label",
        "classes": ["a", "c"],
    }
    said = refused(write_config(tmp_path / "config", "hf-minilm", data={"source": source}))
    assert "'b'" in said and "texts.csv" in said


def test_a_data_set_without_rows(tmp_path, refused):
    (tmp_path / "texts.csv").write_text("text,label\n")
    source = {"type": "table", "path": str(tmp_path / "texts.csv"), "text_column": "text", "label_column": "label"}
    said = refused(write_config(tmp_path / "config", "hf-minilm", data={"source": source}))
    assert "texts.csv" in said and ("no row" in said or "empty" in said)


def test_an_image_folder_that_is_missing_or_empty_or_has_an_empty_class(tmp_path, refused):
    config = write_config(tmp_path / "config", data_root=str(tmp_path / "pictures"))
    assert "does not exist" in refused(config)
    (tmp_path / "pictures").mkdir()
    assert "holds no class folders" in refused(config)
    image_folder(tmp_path / "pictures", 4)
    (tmp_path / "pictures" / "nothing").mkdir()
    said = refused(config)
    assert "nothing holds no image" in said and "add images or remove it" in said


def test_images_that_do_not_decode_are_all_named_before_the_start(tmp_path, refused):
    pictures = image_folder(tmp_path / "pictures", 4)
    config = write_config(tmp_path / "config", data_root=str(pictures), data={"batch_size": 4})
    (pictures / "dark" / "02.png").write_bytes(b"this is no picture")
    short = pictures / "bright" / "01.png"  # the header is right, the rest is missing
    short.write_bytes(short.read_bytes()[:-60])
    said = refused(config)
    assert "2 of 12 examples cannot be used" in said and said.count("does not decode") == 2
    assert str(pictures / "dark" / "02.png") in said and str(short) in said and "on_broken='skip'" in said


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_that_was_not_looked_for_is_still_one_line(tmp_path, capsys, workers):
    pictures = image_folder(tmp_path / "pictures", 10)
    options = ["--cfg-options", f"data.num_workers={workers}", "train.max_steps=6", "data.batch_size=4"]
    source = {"type": "image_folder", "root": str(pictures), "verify": False}
    config = write_config(tmp_path / "config", data={"source": source})
    assert main([str(config), "--work-dir", str(tmp_path / "a"), *options]) == 0
    capsys.readouterr()
    for picture in sorted(pictures.rglob("*.png"))[::3]:
        picture.write_bytes(picture.read_bytes()[:-60])
    assert main([str(config), "--work-dir", str(tmp_path / "b"), *options]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: image ") and ".png does not decode" in last and "remove it from the data" in last


# --- checkpoints


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Backbone key -> folder of an export of it."""
    base = tmp_path_factory.mktemp("exports")
    found = {}
    for key in ("hf-vit", "mm-vit", "oc-image"):
        config = write_config(base / key, key, train={"max_steps": 1})
        trained(config, base / key / "run")
        found[key] = base / key / "run" / "export"
    return found


FILES = {"hf-vit": "model.safetensors", "mm-vit": "model.pth", "oc-image": "open_clip_model.safetensors"}


def given(key, exports):
    return exports[key] if key == "hf-vit" else exports[key] / FILES[key]


@pytest.mark.parametrize("key", FILES)
def test_a_checkpoint_that_is_given_is_used(tmp_path, capsys, exports, key):
    config = write_config(tmp_path / "config", key, train={"max_steps": 1})
    arguments = ["--work-dir", str(tmp_path / "run"), "--cfg-options", f"backbone.pretrained={given(key, exports)}"]
    assert main([str(config), *arguments]) == 0
    assert "RANDOM" not in capsys.readouterr().err


@pytest.mark.parametrize("key", FILES)
def test_a_checkpoint_that_is_missing(tmp_path, refused, key):
    config = write_config(tmp_path / "config", key)
    said = refused(config, "--cfg-options", "backbone.pretrained=/no/such/checkpoint.pth")
    assert "'/no/such/checkpoint.pth' does not exist" in said


@pytest.mark.parametrize("key", FILES)
def test_a_checkpoint_of_another_architecture(tmp_path, refused, exports, key):
    # The same family with more blocks: the keys of those are missing, and named.
    deeper = {
        "hf-vit": "backbone.options.num_hidden_layers=4",
        "mm-vit": "backbone.options.backbone.arch.num_layers=4",
        "oc-image": "backbone.options.vision_cfg.layers=4",
    }[key]
    options = ["--cfg-options", f"backbone.pretrained={given(key, exports)}", deeper]
    said = refused(write_config(tmp_path / "config", key), *options)
    assert "is a checkpoint of another architecture" in said and "missing" in said
    assert {"hf-vit": "layers.3.", "mm-vit": "layers.3.", "oc-image": "resblocks.3."}[key] in said


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("key", FILES)
@pytest.mark.parametrize("raw", [False, True], ids=["zip file", "bare pickle"])
def test_a_checkpoint_with_pickled_code_is_refused_unread(tmp_path, refused, exports, key, raw):
    target = tmp_path / "checkpoint.pth"
    content = {"state_dict": {"weight": torch.zeros(2)}, "meta": Evil(tmp_path / "was_run")}
    if key == "hf-vit":
        folder = tmp_path / "checkpoint"
        shutil.copytree(exports[key], folder)
        (folder / "model.safetensors").unlink()
        target = folder / "pytorch_model.bin"
    target.write_bytes(pickle.dumps(content)) if raw else torch.save(content, target)
    pretrained = target.parent if key == "hf-vit" else target
    said = refused(write_config(tmp_path / "config", key), "--cfg-options", f"backbone.pretrained={pretrained}")
    assert "was refused: it holds pickled objects" in said
    assert not (tmp_path / "was_run").exists()


# --- work directories and resuming


def test_a_work_directory_that_cannot_be_written(tmp_path, refused):
    (tmp_path / "file").write_text("")
    config = write_config(tmp_path / "config")
    for work_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        said = refused(config, work_dir=work_dir)
        assert f"work directory {str(work_dir)!r} cannot be written" in said and "--work-dir" in said


def test_an_export_directory_with_something_else_in_it(tmp_path, refused):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.md").write_text("precious")
    config = write_config(tmp_path / "config", export_dir=str(tmp_path / "thesis"))
    assert "holds something that is no earlier export" in refused(config)


def test_resuming_where_there_is_nothing(tmp_path, refused):
    config = write_config(tmp_path / "config")
    said = refused(config, "--resume")
    assert "nothing to resume" in said and "without --resume" in said
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".iter_3.pth.part").write_text("")
    assert "nothing to resume" in refused(config, "--resume")


def test_resuming_with_another_configuration(tmp_path, refused, capsys):
    config = write_config(tmp_path / "config", train={"max_steps": 2})
    assert main([str(config), "--work-dir", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    said = refused(config, "--resume", "--cfg-options", "backbone.options.num_hidden_layers=4")
    assert "iter_2.pth" in said and "another architecture" in said
    said = refused(config, "--resume", "--cfg-options", "distill.norm_gradient=head")
    assert "trained other parameters" in said and "config.py" in said


def test_resuming_from_a_file_with_pickled_code(tmp_path, refused):
    config = write_config(tmp_path / "config", train={"max_steps": 2})
    (tmp_path / "run").mkdir()
    torch.save({"state_dict": {}, "meta": Evil(tmp_path / "was_run")}, tmp_path / "run" / "iter_1.pth")
    assert "was refused: it holds pickled objects" in refused(config, "--resume")
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, tmp_path / "run" / "iter_1.pth")
    assert "another architecture" in refused(config, "--resume")
    assert not (tmp_path / "was_run").exists()


# --- zoos

ZOOS = {"transformers": "hf-vit", "mmpretrain": "mm-vit", "open_clip": "oc-image"}
WITHOUT = """
import contextlib, importlib.machinery, io, json, sys

class Without(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {"transformers", "mmpretrain", "open_clip"}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[:] = [Without if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
from mdpd_plugins.cli.main import main
said = []
for config in sys.argv[1:]:
    with contextlib.redirect_stderr(io.StringIO()) as err:
        said.append((main(['train', config]), err.getvalue()))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def without_zoos(tmp_path_factory):
    """Package -> (exit status, stderr) where none of them is installed."""
    folder = tmp_path_factory.mktemp("without")
    configs = [write_config(folder / "configs" / package, key) for package, key in ZOOS.items()]
    (folder / "cwd").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *configs],
        capture_output=True,
        text=True,
        cwd=folder / "cwd",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list((folder / "cwd").iterdir()), "something was written"
    return dict(zip(ZOOS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("transformers", "mdpd-plugins[huggingface]"),
        ("mmpretrain", "mdpd-plugins[mmpretrain]"),
        ("open_clip", "mdpd-plugins[open_clip]"),
    ],
)
def test_a_zoo_that_is_not_installed(without_zoos, package, extra):
    status, stderr = without_zoos[package]
    assert status == 2
    building, error = stderr.splitlines()
    assert building.startswith("building ") and error.startswith("error: ") and extra in error
