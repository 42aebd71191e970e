"""A checkpoint for pictures of one size, built for another: as transformers would do it, exported whole, or refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from small_zoo import randomise

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.exports import check_reloads, record_of
from mdpd_plugins.registry.errors import ConfigError

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_PLAIN = {**_SIZES, "image_size": 32, "patch_size": 8}
_TOWERS = {"vision_config": _PLAIN, "text_config": {**_SIZES, "vocab_size": 99}}
_BIASES = {"use_relative_position_bias": True, "use_absolute_position_embeddings": True}
_STAGES = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_encoder_blocks": 2, "num_attention_heads": [1, 2]}
KINDS = {
    "vit": ("vit", _PLAIN),
    "deit": ("deit", _PLAIN),
    "dinov2": ("dinov2", {k: v for k, v in _PLAIN.items() if k != "intermediate_size"}),
    "beit, relative": ("beit", {**_PLAIN, **_BIASES}),
    "beit, one table": ("beit", {**_PLAIN, "use_shared_relative_position_bias": True}),
    "data2vec": ("data2vec-vision", {**_PLAIN, **_BIASES}),
    "siglip": ("siglip", _TOWERS),
    "siglip, bare": ("siglip_vision_model", _PLAIN),
    "clip": ("clip", {**_TOWERS, "projection_dim": 32}),
    "clip, bare": ("clip_vision_model", _PLAIN),
    "chinese_clip, bare": ("chinese_clip_vision_model", _PLAIN),
    "aimv2": ("aimv2_vision_model", _PLAIN),
    "hiera": (
        "hiera",
        {
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "image_size": [32, 32],
            "patch_stride": [4, 4],
            "masked_unit_size": [4, 4],
            "query_stride": [2, 2],
            "num_query_pool": 1,
        },
    ),
    "pvt": (
        "pvt",
        {
            **_STAGES,
            "image_size": 64,
            "patch_sizes": [4, 2],
            "strides": [4, 2],
            "mlp_ratios": [2, 2],
            "sequence_reduction_ratios": [2, 1],
        },
    ),
    "swin": ("swin", {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]}),
}
# Those whose own way to another size is a flag of the forward. (Hiera has one too, whose answer it then cannot fold.)
FLAG = ("vit", "deit", "siglip", "siglip, bare", "clip, bare", "clip", "chinese_clip, bare")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("checkpoints")

    def saved(key):
        if not (base / key).exists():
            name, fields = KINDS[key]
            adapter = build_backbone(f"huggingface/{name}", pretrained=None, num_classes=3, **fields)
            randomise(adapter.model)
            getattr(adapter.model, "encoder", adapter.model).save_pretrained(base / key)
        return name_of(key), str(base / key)

    return saved


def name_of(key):
    return f"huggingface/{KINDS[key][0]}"


def pictures(count=3):
    drawn = np.random.default_rng(0)
    return [Image.fromarray(drawn.integers(0, 255, (70, 90, 3)).astype(np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("key", KINDS)
def test_another_size_is_trained_and_exported_at_that_size(folder, tmp_path, key):
    name, source = folder(key)
    size = 96 if key == "pvt" else 64
    adapter = build_backbone(name, pretrained=source, num_classes=3, image_size=size)
    assert adapter.image_size == (size, size)
    examples = pictures()
    inputs = adapter.transform()(examples)
    assert inputs["image"].shape == (3, 3, size, size)
    with torch.no_grad():
        assert adapter.forward(inputs).shape == (3, 3)
    adapter.write(tmp_path)
    record_of(adapter).write(tmp_path)
    check_reloads(tmp_path, tmp_path, adapter, inputs, examples)


@pytest.mark.parametrize("key", FLAG)
def test_positions_are_resized_as_transformers_does_it_on_request(folder, key):
    name, source = folder(key)
    own = build_backbone(name, pretrained=source, num_classes=3)
    other = build_backbone(name, pretrained=source, num_classes=3, image_size=48)
    ours, theirs = (getattr(a.model, "encoder", a.model) for a in (other, own))
    image = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = ours(pixel_values=image, output_hidden_states=True).hidden_states[-1]
        wanted = theirs(pixel_values=image, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_size_that_a_model_cannot_take_is_refused_before_training_by_name(tmp_path):
    config = transformers.LevitConfig(
        image_size=32, hidden_sizes=[16, 24, 32], num_attention_heads=[2, 2, 2], depths=[1, 1, 1], key_dim=[8, 8, 8]
    )
    transformers.LevitForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="huggingface/levit was pretrained on pictures of 32 x 32 and takes none of"):
        build_backbone("huggingface/levit", pretrained=str(tmp_path), num_classes=3, image_size=48)


@pytest.mark.parametrize("key", ["vit", "siglip", "hiera", "clip, bare"])
def test_random_weights_are_made_for_the_size_that_is_asked_for(key):
    name, fields = KINDS[key]
    adapter = build_backbone(f"huggingface/{name}", pretrained=None, num_classes=3, **{**fields, "image_size": 64})
    with torch.no_grad():
        assert adapter.model(pixel_values=torch.zeros(1, 3, 64, 64)).logits.shape == (1, 3)
