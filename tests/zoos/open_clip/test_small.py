"""Small forms of OpenCLIP's towers: the same classes, a small image, few and narrow blocks."""

import pytest

pytest.importorskip("open_clip")

from mdpd_plugins.adapters import build_backbone  # noqa: E402
from mdpd_plugins.zoos.open_clip.small import small  # noqa: E402


@pytest.mark.parametrize(
    ("config", "trunk", "blocks"),
    [
        ("ViT-B-16-SigLIP-512", "VisionTransformer", 3),  # made for one image size
        ("ViTamin-L-256", "VisionTransformer", 8),  # its convolutional stem is cut with it: 2 + 3 + 3
        ("convnext_large", "ConvNeXt", 12),  # reads any size: 3 in each of 4 stages
        ("MobileCLIP2-S3", "FastVit", None),
    ],
)
def test_a_timm_tower_keeps_its_class_and_is_cut_in_depth_width_and_image(config, trunk, blocks):
    forms = small(f"open_clip/{config}")
    adapter = build_backbone(f"open_clip/{config}", pretrained=None, num_classes=5, **forms["image"])
    assert type(adapter.model.visual.trunk).__name__ == trunk
    assert sum(p.numel() for p in adapter.model.parameters()) < 5_000_000
    assert adapter.image_size == (64, 64)
    assert blocks is None or len(adapter.blocks()) == blocks


def test_both_towers_get_a_form():
    forms = small("open_clip/ViT-B-32")
    assert {label: options["tower"] for label, options in forms.items()} == {"image": "image", "text": "text"}


def test_timm_makes_its_models_as_before():
    import timm

    small("open_clip/convnext_tiny")
    model = timm.create_model("test_convnext", pretrained=False)
    assert type(model).__name__ == "ConvNeXt"
