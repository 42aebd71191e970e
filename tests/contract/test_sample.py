"""The kit on a fixed sample with every structural kind; `mdpd verify --all` is the whole."""

import pytest

from mdpd_plugins.testing.sweep import check_registered

SAMPLE = {
    "huggingface/vit": "transformer",
    "huggingface/swin": "windows in stages",
    "huggingface/resnet": "residual branches that look like stages",
    "huggingface/poolformer": "lists in lists",
    "huggingface/bert": "padded text",
    "huggingface/albert": "one block that runs several times",
    "huggingface/t5": "encoder and decoder, norms without a bias",
    "huggingface/llama": "decoder with a cache of keys",
    "huggingface/mixtral": "mixture of experts",
    "huggingface/jamba": "state-space blocks between attention",
    "mmpretrain/deit-tiny_4xb256_in1k": "transformer",
    "mmpretrain/resnet18_8xb32_in1k": "convolutions with batch norm",
    "mmpretrain/convnext-tiny_32xb128_in1k": "convolutions with layer norm",
    "open_clip/ViT-B-32": "two towers",
    "open_clip/RN50": "convolutional tower with attention pooling",
    "open_clip/ViT-B-16-SigLIP": "timm's tower, text without a causal mask",
}


@pytest.mark.parametrize("name", SAMPLE, ids=lambda name: name.replace("/", "-"))
def test_the_kit_passes(name):
    pytest.importorskip(name.partition("/")[0].replace("huggingface", "transformers"))
    found = check_registered(name)
    assert found["status"] == "pass", found["reason"]
