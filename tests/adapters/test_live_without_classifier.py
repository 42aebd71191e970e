"""Live models without a classifier: they get one when the number of outputs is given, and their zoo reads it."""

import open_clip
import pytest
import torch
import transformers
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, ResNetConfig, ResNetModel, ViTConfig, ViTModel

from mdpd_plugins.adapters import adapt
from mdpd_plugins.registry import CapabilityError, ConfigError

SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


def bert():
    return BertModel(BertConfig(**SIZES, vocab_size=120))


def vit():
    return ViTModel(ViTConfig(**SIZES, image_size=32, patch_size=8), add_pooling_layer=False)


def resnet():
    return ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))


@pytest.mark.parametrize(
    ("make", "blocks", "pooling"), [(bert, 2, "pooler_output"), (vit, 2, "mean"), (resnet, 2, "pooler_output")]
)
def test_a_bare_transformers_encoder_gets_an_output_layer(make, blocks, pooling, tmp_path):
    torch.manual_seed(0)
    encoder = make()
    adapter = adapt(encoder, num_classes=3)
    assert adapter.model.encoder is encoder and adapter.model.pooling == pooling
    assert adapter.num_outputs == 3 and len(adapter.blocks()) == blocks
    assert adapter.head_parameters().keys() >= {"head.weight", "head.bias"}
    loaded = adapter.load_exported(adapter.export(tmp_path / "export"))
    with torch.no_grad():
        inputs = adapter.example_inputs()
        assert torch.equal(adapter.around(loaded).forward(inputs), adapter.forward(inputs))
    plain = transformers.AutoModel.from_pretrained(tmp_path / "export")
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in encoder.state_dict().items())


def test_without_a_number_of_outputs_a_bare_encoder_says_how_to_get_them():
    with pytest.raises(ConfigError, match=r"no output layer for classes: .* adapt\(model, num_classes=\.\.\.\)"):
        _ = adapt(bert()).num_outputs


def test_two_towers_that_cannot_be_pooled_are_refused():
    part = dict(SIZES, projection_dim=8)
    config = CLIPConfig(text_config=dict(part, vocab_size=99), vision_config=dict(part, image_size=32, patch_size=8))
    with pytest.raises((CapabilityError, ConfigError)):
        adapt(CLIPModel(config), num_classes=3)


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return open_clip.create_model("ViT-S-32-alt", force_image_size=64)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_live_open_clip_model_gets_an_output_layer_and_is_exported(clip, modality, tmp_path):
    adapter = adapt(clip, num_classes=5, modality=modality)
    assert adapter.num_outputs == 5
    assert adapter.settings["config_name"] == "ViT-S-32-alt"
    inputs = adapter.example_inputs()
    with torch.no_grad():
        logits = adapter.forward(inputs)
        loaded = adapter.load_exported(adapter.export(tmp_path / "export"))
        assert torch.equal(adapter.around(loaded).forward(inputs), logits)


def test_a_live_open_clip_model_that_is_no_configuration_of_its_library_is_an_error():
    vision = dict(layers=1, width=64, patch_size=32, head_width=32)
    text = dict(width=64, layers=1, heads=2, vocab_size=64)
    model = open_clip.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text)
    open_clip.set_model_preprocess_cfg(model, {"size": 224, "mean": (0.5,) * 3, "std": (0.5,) * 3})
    with pytest.raises(ConfigError, match="like no configuration of OpenCLIP's.* build it by its registered name"):
        adapt(model, num_classes=3)
