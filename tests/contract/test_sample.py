"""The kit on a fixed sample with every structural kind; `mdpd verify --all` is the whole."""

import pytest

from mdpd_plugins.testing.many import check_registered

SAMPLE = {
    "huggingface/vit": "plain vision transformer",
    "huggingface/swin": "windows in stages",
    "huggingface/resnet": "residual branches that look like stages",
    "huggingface/poolformer": "lists in lists",
    "huggingface/bert": "encoder, padded text",
    "huggingface/albert": "one block that runs several times",
    "huggingface/t5": "encoder and decoder, norms without a bias",
    "huggingface/bart": "encoder and decoder, norms behind the residuals",
    "huggingface/llama": "decoder with a cache of keys",
    "huggingface/mixtral": "decoder, mixture of experts",
    "huggingface/mamba": "state-space blocks, a bare encoder",
    "huggingface/jamba": "state-space blocks between attention and experts",
    "huggingface/vilt-b32": "words and patches in one sequence",
    "mmpretrain/deit-tiny_4xb256_in1k": "plain vision transformer",
    "mmpretrain/mvitv2-tiny_3rdparty_in1k": "attention over pooled tokens in stages",
    "mmpretrain/resnet18_8xb32_in1k": "convolutions with batch norm",
    "mmpretrain/convnext-tiny_32xb128_in1k": "convolutions with layer norm",
    "mmpretrain/mlp-mixer-base-p16_3rdparty_64xb64_in1k": "tokens without attention",
    "open_clip/ViT-B-32": "two towers",
    "open_clip/RN50": "convolutional tower with attention pooling",
    "open_clip/ViT-B-16-SigLIP": "timm's tower, text without a causal mask",
    "open_clip/convnext_tiny": "timm's convolutional tower",
    "open_clip/coca_ViT-B-32": "an output layer with norms, a class token behind the padding",
    "open_clip/roberta-ViT-B-32": "a transformers model as text tower",
}


@pytest.mark.parametrize("name", SAMPLE, ids=lambda name: name.replace("/", "-"))
def test_the_kit_passes(name):
    pytest.importorskip(name.partition("/")[0].replace("huggingface", "transformers"))
    found = check_registered(name)
    assert found["status"] == "pass", found["reason"]
