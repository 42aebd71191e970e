"""Export in the zoo's format and back through the zoo's own loader."""

import numpy as np
import pytest
import small_zoo
import timm
import torch
import torchvision
import transformers
from PIL import Image
from safetensors import safe_open
from torch import nn

from mdpd_plugins.adapters import adapt
from mdpd_plugins.exports.load import load_folder
from mdpd_plugins.exports.record import ExportRecord


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_an_exported_model_gives_the_same_outputs_bit_for_bit(key, tmp_path):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    before = small_zoo.snapshot(adapter.model)
    with torch.no_grad():
        plain = adapter.forward(inputs)
    folder = adapter.export(tmp_path / "export")
    assert not small_zoo.changed(before, adapter.model)
    loaded = adapter.load_exported(folder)
    assert type(loaded) is type(adapter.model)
    assert loaded.state_dict().keys() == before.keys()
    assert not loaded.training
    again = type(adapter)(loaded, modality=adapter.modality)
    with torch.no_grad():
        assert torch.equal(again.forward(inputs), plain)


FILES = {
    "hf-vit": {"config.json", "model.safetensors", "preprocessor_config.json"},
    "mm-vit": {"config.py", "model.pth"},
    "oc-image": {"open_clip_config.json", "open_clip_model.safetensors"},
}


@pytest.mark.parametrize("key", FILES)
def test_an_export_holds_the_zoos_own_files(key, tmp_path):
    folder = small_zoo.small(key).export(tmp_path / "export")
    assert {p.name for p in folder.iterdir()} == FILES[key]
    assert [p.name for p in tmp_path.iterdir()] == ["export"]  # nothing temporary is left


def test_an_export_replaces_an_older_one_whole(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    small_zoo.small("hf-vit").export(folder)
    assert {p.name for p in folder.iterdir()} == FILES["hf-vit"]
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_an_export_that_fails_leaves_the_older_one(tmp_path):
    adapter = small_zoo.small("mm-vit")
    adapter.config = None  # as for a live model that was not built from a config
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    with pytest.raises(ValueError, match="no config to export"):
        adapter.export(folder)
    assert [p.name for p in folder.iterdir()] == ["old.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


SHAPES = ((97, 61), (40, 75), (32, 32))


def pictures() -> list[Image.Image]:
    """Pictures of several shapes, one of them grey."""
    rng = np.random.default_rng(0)
    drawn = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SHAPES]
    return [*drawn, drawn[0].convert("L")]


@pytest.mark.parametrize("resize", ["auto", "stretch"])
@pytest.mark.parametrize("key", ["hf-vit", "hf-dinov2", "mm-vit", "mm-resnet", "oc-image"])
def test_the_zoos_loader_prepares_pictures_as_training_did(key, resize, tmp_path):
    adapter = small_zoo.small(key, **({} if key == "hf-dinov2" else {"image_size": 48}))
    adapter.prepare(input_size=(48, 48), resize=resize)  # as data.input_size does both
    right = adapter.transform()(pictures())["image"]
    assert right.shape == (4, 3, 48, 48)
    adapter.export(tmp_path / "export")
    record = ExportRecord(adapter.name, {}, "image", "single", tuple("abcde"), size=(48, 48), resize=resize)
    loaded = load_folder(tmp_path / "export", record)
    found = loaded.prepare([picture.convert("RGB") for picture in pictures()])
    if key.startswith("mm"):
        found = {"image": loaded.model.data_preprocessor(found)["inputs"]}  # its model normalises
    torch.testing.assert_close(next(iter(found.values())), right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", ["hf-vit", "mm-resnet", "oc-image"])
def test_stretching_shows_the_whole_picture_and_the_zoos_own_way_may_not(key):
    adapter = small_zoo.small(key)
    bars = np.zeros((40, 160, 3), np.uint8)
    bars[:, :20] = bars[:, -20:] = 255  # what a crop to a square cuts off
    stretched = adapter.transform(stretch=True)([Image.fromarray(bars)])["image"]
    adapter.prepare(resize="stretch")
    assert torch.equal(adapter.transform()([Image.fromarray(bars)])["image"], stretched)
    assert stretched[0, 0, 0, 0] > stretched[0, 0, 0, stretched.shape[-1] // 2]
    own = small_zoo.small(key).transform()([Image.fromarray(bars)])["image"]
    assert torch.equal(own, stretched) == (key == "hf-vit")  # ViT's own way is to stretch


def adapters_of_every_writer():  # timm writes its own
    yield from (small_zoo.small(key) for key in ("hf-vit", "oc-image"))
    yield adapt(torchvision.models.resnet18(num_classes=3))
    yield adapt(nn.Sequential(*(nn.Linear(6, 6) for _ in range(3)), nn.Linear(6, 3)), example_inputs=torch.randn(2, 6))


@pytest.mark.parametrize("number", range(4))
def test_every_file_of_weights_that_is_written_here_says_its_format(number, tmp_path):
    adapter = list(adapters_of_every_writer())[number]
    files = list(adapter.export(tmp_path / "out").glob("*.safetensors"))
    assert files
    for file in files:
        with safe_open(file, "pt") as opened:
            assert opened.metadata()["format"] == "pt"


def test_an_export_of_timm_is_read_by_transformers_too(tmp_path):
    torch.manual_seed(0)
    adapter = adapt(timm.create_model("test_vit", num_classes=3, img_size=32, init_values=0.3))
    adapter.set_labels(("x", "y", "z"))
    folder = adapter.export(tmp_path / "out")
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images).logits, adapter.model(images))
        torch.testing.assert_close(adapter.load_exported(folder)(images), adapter.model(images))
    assert list(model.config.id2label.values()) == ["x", "y", "z"]
