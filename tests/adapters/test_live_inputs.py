"""Inputs of live models of libraries that have no zoo here: timm's say how, torchvision's are told."""

import json

import open_clip
import pytest
import timm
import torch
import torchvision
import transformers
from pictures import odd_pictures
from torchvision.transforms._presets import ImageClassification

import mdpd_plugins
from mdpd_plugins.adapters import adapt
from mdpd_plugins.exports import load_export
from mdpd_plugins.registry import CapabilityError, ConfigError


def right(transform) -> torch.Tensor:
    return torch.stack([transform(picture.convert("RGB")) for picture in odd_pictures()])


@pytest.mark.parametrize("name", ["test_vit.r160_in1k", "test_efficientnet.r160_in1k", "test_vit4.r160_in1k"])
def test_a_timm_model_is_given_what_timm_gives_it(name):
    model = timm.create_model(name, num_classes=5)
    data = timm.data.resolve_model_data_config(model)
    adapter = adapt(model)
    expected = right(timm.data.create_transform(**data, is_training=False))
    assert adapter.image_size == (160, 160)
    assert torch.equal(adapter.transform()(odd_pictures())["image"], expected)
    adapter.prepare(input_size=(96, 96))
    smaller = timm.data.create_transform(**{**data, "input_size": (3, 96, 96)}, is_training=False)
    assert torch.equal(adapter.transform()(odd_pictures())["image"], right(smaller))
    adapter.prepare(resize="stretch")
    whole = timm.data.create_transform(**{**data, "crop_pct": 1.0, "crop_mode": "squash"}, is_training=False)
    assert torch.equal(adapter.transform()(odd_pictures())["image"], right(whole))


def test_a_timm_model_made_for_another_size_is_given_that():
    assert adapt(timm.create_model("test_vit", num_classes=5, img_size=96)).image_size == (96, 96)


def test_a_torchvision_model_is_given_what_its_weights_transforms_make():
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    adapter = adapt(torchvision.models.resnet18(num_classes=5), transform=transform)
    assert adapter.image_size == (224, 224)
    assert torch.equal(adapter.transform()(odd_pictures())["image"], right(transform))
    adapter.prepare(input_size=(224, 224), max_length=5)  # what it does already
    for changes in ({"input_size": (96, 96)}, {"resize": "stretch"}):
        with pytest.raises(ConfigError, match="prepared by the transform that was given"):
            adapter.prepare(**changes)
    with pytest.raises(ConfigError, match="resize='squash' does not exist"):
        adapter.prepare(resize="squash")


def test_a_torchvision_model_alone_is_given_what_the_librarys_preset_makes():
    adapter = adapt(torchvision.models.resnet18(num_classes=5))
    assert torch.equal(adapter.transform()(odd_pictures())["image"], right(ImageClassification(crop_size=224)))
    adapter.prepare(input_size=(112, 112))
    smaller = ImageClassification(crop_size=112, resize_size=128)
    assert torch.equal(adapter.transform()(odd_pictures())["image"], right(smaller))


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (lambda: timm.create_model("test_vit", num_classes=5), {}),
        (lambda: timm.create_model("test_vit", num_classes=5), {"resize": "stretch"}),
        (lambda: timm.create_model("test_efficientnet", num_classes=5), {"input_size": (96, 96)}),
        (lambda: torchvision.models.resnet18(num_classes=5), {"input_size": (96, 96)}),
        (lambda: torchvision.models.resnet18(num_classes=5), {"resize": "stretch"}),
    ],
)
def test_an_export_prepares_pictures_as_they_were_prepared(make, changes, tmp_path):
    adapter = adapt(make())
    adapter.prepare(**changes)
    with torch.no_grad():
        expected = adapter.forward(adapter.transform()(odd_pictures()))
    mdpd_plugins.export(adapter, tmp_path / "out")
    torch.testing.assert_close(load_export(tmp_path / "out", "cpu").logits(odd_pictures()), expected)


def test_an_export_says_that_a_transform_of_ones_own_is_not_in_it(tmp_path):
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    adapter = adapt(torchvision.models.resnet18(num_classes=5), transform=transform)
    mdpd_plugins.export(adapter, tmp_path / "out")
    exported = load_export(tmp_path / "out", "cpu")
    with torch.no_grad():
        inputs = adapter.transform()(odd_pictures())["image"]
        assert torch.equal(exported.model(inputs), adapter.forward({"image": inputs}))
    with pytest.raises(ConfigError, match="transform that was given to adapt"):
        exported.logits(odd_pictures())


def test_a_given_transform_wins_over_a_zoos(tmp_path):
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16
    )
    transform = ImageClassification(crop_size=64)
    adapter = adapt(transformers.ViTForImageClassification(config), transform=transform)
    assert torch.equal(adapter.transform()(odd_pictures())["image"], right(transform))


def test_a_transform_whose_pictures_differ_in_size_is_refused_at_once():
    with pytest.raises(ConfigError, match="different sizes"):
        adapt(torchvision.models.resnet18(num_classes=5), transform=torchvision.transforms.ToTensor())


@pytest.mark.parametrize("aux", [True, False])
def test_torchvisions_networks_with_auxiliary_classifiers_are_exported_as_they_were_built(aux, tmp_path):
    build = torchvision.models.googlenet
    model = build(num_classes=7, init_weights=False, aux_logits=aux, transform_input=True).train()
    x = torch.randn(2, 3, 64, 64)
    adapter = adapt(model, num_classes=5, example_inputs=x)
    mdpd_plugins.export(adapter, tmp_path / "out")
    again = mdpd_plugins.load(tmp_path / "out", device="cpu")
    assert again.aux_logits == aux and again.transform_input
    assert again.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(again(x), adapter.model(x)) and again(x).shape == (2, 5)
    if aux:  # in training mode as well
        assert {tuple(out.shape) for out in again.train()(x)} == {(2, 5)}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_open_clips_models_of_mixed_precision_get_an_output_layer_once_they_are_floats(precision, tmp_path):
    sizes = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 8, "image_size": 32}
    text = {"layers": 2, "width": 32, "heads": 4, "context_length": 24}
    config = {"embed_dim": 16, "vision_cfg": sizes, "text_cfg": text}
    (tmp_path / "small-for-precision.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    model = open_clip.create_model("small-for-precision", precision=precision)
    with pytest.raises(CapabilityError, match=r"several types.*Give model\.float\(\)"):
        adapt(model, num_classes=3, modality="image")
    adapter = adapt(model.float(), num_classes=3, modality="image")
    mdpd_plugins.export(adapter, tmp_path / "out")
    loaded = mdpd_plugins.load(tmp_path / "out", device="cpu")
    inputs = adapter.example_inputs()
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_image(inputs["image"]), adapter.forward(inputs))
