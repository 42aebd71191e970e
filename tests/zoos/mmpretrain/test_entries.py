"""Every kind of entry of MMPretrain's model index becomes a plain image classifier of MMPretrain, or says why not."""

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.registry import CapabilityError, CheckpointError, MissingDependencyError
from mdpd_plugins.zoos.mmpretrain.entries import read_entry

VIT = {"image_size": 32, "backbone": {"patch_size": 8, "arch": {"embed_dims": 32, "num_layers": 2, "num_heads": 4}}}
VIT["backbone"]["arch"]["feedforward_channels"] = 64
CONV = {"image_size": 64, "backbone": {"stem_channels": 8, "base_channels": 8}}
SWIN = {"arch": {"embed_dims": 16, "depths": [2, 2], "num_heads": [2, 4]}, "out_indices": (1,), "window_size": 4}
SWIN = {"image_size": 64, "backbone": SWIN}
HEADLESS = {
    "mae_vit-base-p16_8xb512-amp-coslr-300e_in1k": ("VisionTransformer", VIT, 32),  # a pretraining algorithm
    "simmim_swin-base-w6_16xb128-amp-coslr-800e_in1k-192px": ("SwinTransformer", SWIN, 32),  # one with maps
    "spark_sparse-resnet50_800e_in1k": ("ResNet", CONV, 256),  # one whose class answers only inside it
    "mocov3_vit-small-p16_16xb256-amp-coslr-300e_in1k": ("MoCoV3ViT", VIT, 32),  # one whose class answers plainly
    "resnet50-arcface_inshop": ("ResNet", CONV, 256),  # a retriever
    "cn-clip_vit-base-p16_zeroshot-cls_cifar100": ("VisionTransformer", VIT, 32),  # images and text
    "vit-base-p14_dinov2-pre_3rdparty": ("VisionTransformer", VIT, 32),  # an ImageClassifier without a head
}


def build(name, options, **more):
    return build_backbone(f"mmpretrain/{name}", pretrained=more.pop("pretrained", None), num_classes=5, **options)


@pytest.mark.parametrize("name", HEADLESS)
def test_an_encoder_without_a_classifier_becomes_a_plain_one(name, tmp_path):
    from mmpretrain import get_model

    kind, options, width = HEADLESS[name]
    adapter = build(name, options)
    assert type(adapter.model).__name__ == "ImageClassifier"
    assert type(adapter.model.backbone).__name__ == kind
    assert adapter.head_parameters()["head.fc.weight"].shape == (5, width)
    assert len(adapter.blocks()) >= 2
    folder = adapter.export(tmp_path / "out")
    loaded = get_model(str(folder / "config.py"), pretrained=str(folder / "model.pth"))
    inputs = adapter.example_inputs()
    for module in loaded.modules():
        module.training = False
    with torch.no_grad():
        assert torch.equal(loaded(inputs["image"], mode="tensor"), adapter.forward(inputs))
    # MMPretrain's inferencer prepares images by these.
    (size,) = {tuple(inputs["image"].shape[-2:])}
    (crop,) = (s for s in loaded._config.test_dataloader.dataset.pipeline if s["type"] == "CenterCrop")
    assert crop["crop_size"] == size[0] == size[1]


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("mae_vit-base-p16_8xb512-amp-coslr-300e_in1k", "backbone."),
        ("cn-clip_vit-base-p16_zeroshot-cls_cifar100", "vision_backbone."),
        ("vit-base-p14_dinov2-pre_3rdparty", ""),
    ],
)
def test_the_encoders_weights_are_taken_out_of_the_checkpoint_of_the_whole(name, prefix, tmp_path):
    trained = build(name, VIT)
    for p in trained.model.parameters():
        nn.init.normal_(p)
    state = {k.replace("backbone.", prefix, 1): v for k, v in trained.model.state_dict().items() if "backbone." in k}
    extra = {f"{prefix}mask_token": torch.zeros(1, 1, 32), "neck.decoder.weight": torch.zeros(2, 2)}
    torch.save({"state_dict": {**state, **extra}}, tmp_path / "whole.pth")
    again = build(name, VIT, pretrained=str(tmp_path / "whole.pth"))
    ours, theirs = again.model.state_dict(), trained.model.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours if not k.startswith("head."))
    # And an export of the classifier made of it, with its head.
    export = trained.export(tmp_path / "export")
    whole = build(name, VIT, pretrained=str(export)).model.state_dict()
    assert all(torch.equal(whole[k], theirs[k]) for k in whole)


def test_a_checkpoint_without_the_encoder_is_refused(tmp_path):
    torch.save({"language_model.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no part with the keys of a VisionTransformer"):
        build("vit-base-p14_dinov2-pre_3rdparty", VIT, pretrained=str(tmp_path / "other.pth"))


def test_an_entry_without_an_image_backbone_says_so():
    with pytest.raises(CapabilityError, match="OFA without an image backbone of its own"):
        build("ofa-base_3rdparty-finetuned_caption", {})


def test_an_encoder_that_only_multimodal_installations_have_says_so():
    from mmpretrain.utils.dependency import WITH_MULTIMODAL

    if WITH_MULTIMODAL:
        pytest.skip("it is available here")
    with pytest.raises(MissingDependencyError, match="ModifiedResNet"):
        build("cn-clip_resnet50_zeroshot-cls_cifar100", {})


@pytest.mark.parametrize(
    ("name", "kind", "classes"),
    [
        ("replknet-31b_3rdparty_in1k", "RepLKNet", 1000),  # mmengine takes it for a lazy config
        ("swinv2-base-w12_3rdparty_in21k-192px", "SwinTransformerV2", 21841),  # it changes a pipeline it has not
    ],
)
def test_a_config_that_mmengine_refuses_is_read(name, kind, classes):
    model = read_entry(name).config.model
    assert (model.backbone.type, model.head.num_classes) == (kind, classes)


def test_neck_and_head_follow_a_changed_backbone():
    options = {"image_size": 64, "backbone": {"arch": "w18"}}
    adapter = build("hrnet-w48_3rdparty_8xb32_in1k", options)
    assert adapter.config.model.neck[0].in_channels == (18, 36, 72, 144)
    assert adapter.forward(adapter.example_inputs()).shape == (2, 5)
    two = build("conformer-base-p16_3rdparty_in1k", {"image_size": 64, "backbone": {"arch": "tiny"}})
    assert list(two.config.model.head.in_channels) == [256, 384]


def test_a_head_of_two_outputs_with_norms_is_replaced_whole_and_keeps_its_norms():
    adapter = build("levit-128_3rdparty_in1k", {"image_size": 64, "backbone": {"arch": "128s"}})
    head = adapter.model.head
    with torch.no_grad():
        head.head.bn.weight.fill_(2.0)
    old = head.head.linear.weight
    adapter.replace_head(5)
    assert torch.equal(adapter.model.head.head.bn.weight, torch.full((384,), 2.0))
    assert not torch.equal(adapter.model.head.head.linear.weight, old)
    adapter.replace_head(7)
    assert adapter.forward(adapter.example_inputs()).shape == (2, 7)
    assert adapter.config.model.head.num_classes == 7


def test_images_that_the_zoo_takes_as_they_are_get_the_size_asked_for(tmp_path):
    adapter = build("resnet18_8xb16_cifar10", {"image_size": 48, "backbone": {"base_channels": 8, "stem_channels": 8}})
    assert adapter.image_size == (48, 48)
    config = Config.fromfile(adapter.export(tmp_path / "out") / "config.py")
    scales = [s.scale for s in config.test_dataloader.dataset.pipeline if s.type == "Resize"]
    assert scales == [(48, 48)]


@pytest.mark.parametrize(
    ("name", "options", "red"),
    [
        # Blue first, with means in that order: 103.53 is blue's.
        ("regnetx-400mf_8xb128_in1k", {}, 2),
        # Means are red's first, and its data set hands out images that way.
        ("resnet18_8xb16_cifar10", {"backbone": {"base_channels": 8, "stem_channels": 8}}, 0),
    ],
)
def test_images_reach_a_backbone_in_the_order_of_colours_that_it_was_made_for(name, options, red):
    adapter = build(name, {"image_size": 32, **options})
    inputs = adapter.transform()([Image.new("RGB", (40, 50), (255, 0, 0))])
    assert inputs["image"].shape == (1, 3, 32, 32)
    assert inputs["image"][0, :, 0, 0].argmax() == red
    with torch.no_grad():
        assert torch.equal(adapter.forward(inputs), adapter.model(inputs["image"], mode="tensor"))
