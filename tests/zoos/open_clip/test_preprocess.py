"""Pictures as OpenCLIP prepares them for each of its pretrained tags, against OpenCLIP's own transforms."""

import json

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg
from pictures import odd_pictures
from small_zoo import BACKBONES, small

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.registry import CheckpointError
from mdpd_plugins.zoos.open_clip.adapter import OpenCLIPAdapter
from mdpd_plugins.zoos.open_clip.build import choose_tag, tag_preprocess
from mdpd_plugins.zoos.open_clip.model import create
from mdpd_plugins.zoos.open_clip.small import small as small_form

FIELDS = ("mean", "std", "interpolation", "resize_mode", "fill_color")
NAME, SMALL = BACKBONES["oc-image"]


def tags() -> dict[tuple, list[tuple[str, str]]]:
    """What tags say of pictures -> the (configuration, tag) that say it."""
    found: dict[tuple, list[tuple[str, str]]] = {}
    for name, tag in open_clip.list_pretrained():
        where = open_clip.get_pretrained_cfg(name, tag)
        said = tuple(tuple(v) if isinstance(v := where.get(f), (list, tuple)) else v for f in FIELDS)
        found.setdefault(said, []).append((name, tag))
    return found


def right(said: dict, size: int) -> torch.Tensor:
    """By OpenCLIP's function that makes transforms, called with what the tag says."""
    transform = open_clip.image_transform(size, is_train=False, **{k: v for k, v in said.items() if v is not None})
    return torch.stack([transform(picture) for picture in odd_pictures()])


@pytest.mark.parametrize("said", tags())
def test_pictures_are_prepared_as_the_tag_says(said):
    settings = small("oc-image").settings
    every = [tag_preprocess(open_clip.get_pretrained_cfg(name, tag)) for name, tag in tags()[said]]
    assert all(found == every[0] for found in every)
    adapter = OpenCLIPAdapter(create({**settings, "preprocess_cfg": every[0]}, 5))
    expected = right(dict(zip(FIELDS, said, strict=True)), 32)
    assert torch.equal(adapter.transform()(odd_pictures())["image"], expected)


def test_there_are_tags_of_other_numbers_than_openais():
    default = tuple(PreprocessCfg().mean)
    other = [pair for said, pairs in tags().items() if said[0] and said[0] != default for pair in pairs]
    assert len(other) >= 50 and len(tags()) >= 4


def test_auto_prepares_pictures_as_its_tag_says_with_or_without_its_weights():
    name = "open_clip/ViT-B-16-SigLIP"
    adapter = build_backbone(name, num_classes=5, **small_form(name)["image"])
    expected = right({"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash"}, adapter.image_size[0])
    assert torch.equal(adapter.transform()(odd_pictures())["image"], expected)


def test_the_activation_is_the_one_that_the_weights_were_trained_with():
    assert choose_tag("ViT-B-32", open_clip.get_model_config("ViT-B-32")) != "openai"  # others fit its GELU
    assert choose_tag("ViT-B-32", {"quick_gelu": True}) == "openai"
    assert choose_tag("ViT-L-14-336", open_clip.get_model_config("ViT-L-14-336")) == "openai"  # no other is there


@pytest.fixture
def folder(tmp_path):
    """An OpenCLIP folder with numbers and an activation of its own."""
    small("oc-image").export(tmp_path / "clip")
    file = tmp_path / "clip" / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["preprocess_cfg"] |= {"mean": [0.1, 0.2, 0.3], "resize_mode": "longest", "fill_color": 7}
    config["model_cfg"]["quick_gelu"] = True
    file.write_text(json.dumps(config))
    return tmp_path / "clip"


def test_a_folder_is_read_with_its_own_numbers_and_activation_and_exported_so(folder, tmp_path):
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    expected = torch.stack([transform(picture) for picture in odd_pictures()])
    adapter = build_backbone(NAME, pretrained=str(folder), num_classes=5, **SMALL)
    inputs = adapter.transform()(odd_pictures())
    assert torch.equal(inputs["image"], expected)
    before = build_backbone(NAME, pretrained=str(folder / "open_clip_model.safetensors"), num_classes=5, **SMALL)
    with torch.no_grad():
        assert torch.equal(adapter.forward_features(inputs), _features(theirs, expected))
        assert not torch.equal(adapter.forward_features(inputs), before.forward_features(inputs))
    adapter.export(tmp_path / "out")
    again = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")[2]
    assert torch.equal(torch.stack([again(picture) for picture in odd_pictures()]), expected)


def _features(model, images):
    return OpenCLIPAdapter(model.eval()).forward_features({"image": images})


def test_a_folder_whose_configuration_is_damaged_is_refused(folder):
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="open_clip_config.json' cannot be read"):
        build_backbone(NAME, pretrained=str(folder), num_classes=5, **SMALL)
