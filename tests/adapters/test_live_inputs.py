"""Inputs of live models of libraries that have no zoo here: timm's say how, torchvision's are told."""

import pytest
import timm
import torch
import torchvision
from pictures import odd_pictures

from mdpd_plugins.adapters import adapt
from mdpd_plugins.registry import ConfigError


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


def test_a_transform_whose_pictures_differ_in_size_is_refused_at_once():
    with pytest.raises(ConfigError, match="different sizes"):
        adapt(torchvision.models.resnet18(num_classes=5), transform=torchvision.transforms.ToTensor())
