"""Export in the zoo's format and back through the zoo's own loader."""

import json

import pytest
import small_zoo
import torch


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


def test_the_exported_image_processor_prepares_images_as_training_did(tmp_path):
    adapter = small_zoo.small("hf-vit")
    folder = adapter.export(tmp_path / "export")
    settings, used = json.loads((folder / "preprocessor_config.json").read_text()), adapter.preprocessing()
    assert (settings["size"]["height"], settings["size"]["width"]) == used["size"] == (32, 32)
    assert tuple(settings["image_mean"]) == used["mean"]


@pytest.mark.parametrize(("key", "side"), [("mm-vit", 32), ("mm-resnet", 64)])
def test_the_exported_pipeline_sizes_images_as_training_did(key, side, tmp_path):
    from mmengine.config import Config

    adapter = small_zoo.small(key)
    config = Config.fromfile(adapter.export(tmp_path / "export") / "config.py")
    for steps in (config.test_pipeline, config.test_dataloader.dataset.pipeline):
        assert [s.type for s in steps] == ["LoadImageFromFile", "Resize", "PackInputs"]
        assert steps[1].scale == adapter.preprocessing()["size"] == (side, side)


def test_the_exported_clip_transform_stretches_images_as_training_does(tmp_path):
    folder = small_zoo.small("oc-image").export(tmp_path / "export")
    assert json.loads((folder / "open_clip_config.json").read_text())["preprocess_cfg"]["resize_mode"] == "squash"
