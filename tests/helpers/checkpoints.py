"""Checkpoints of drawn weights in each zoo's own format, and backbones that are built from them."""

import torch
from small_zoo import BACKBONES, batch_of, randomise, small_distiller

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.adapters.storage.checkpoint import read_state_dict
from mdpd_plugins.tasks import make_task

# A tied output layer, and buffers beside the weights.
GPT2 = ("huggingface/gpt2", {"head": "causal", "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 300})
LLAMA = (
    "huggingface/llama",
    {
        "head": "causal",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 300,
    },
)
ENCODER = (
    "huggingface/clip_vision_model",
    {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32},
)
ZOOS = {
    **{k: BACKBONES[k] for k in ("hf-vit", "hf-minilm", "mm-vit", "mm-resnet", "mm-swin", "oc-image", "oc-text")},
    "hf-gpt2": GPT2,
    "hf-llama": LLAMA,
    "hf-encoder": (ENCODER[0], {**ENCODER[1], "patch_size": 8}),
}


def checkpoint(folder, key, dtype):
    """A checkpoint of drawn weights, in a zoo's own format and of a type."""
    name, options = ZOOS[key]
    adapter = build_backbone(name, pretrained=None, num_classes=5, dtype=dtype, **options)
    randomise(adapter.model)
    if hasattr(adapter.model, "tie_weights"):
        adapter.model.tie_weights()
    if key[:2] == "oc":  # what the projection of the other tower is in every classifier
        projection = adapter.model.text_projection if key == "oc-image" else adapter.model.visual.proj
        torch.nn.init.zeros_(projection)
    adapter.export(folder)
    return folder


def built(folder, key, dtype="auto", **more):
    name, options = ZOOS[key]
    options = {k: v for k, v in options.items() if key[:2] != "hf" or k == "head"}
    return build_backbone(name, pretrained=str(folder), num_classes=5, dtype=dtype, **options, **more)


def trained(adapter, steps=2, **settings):
    """Train a few steps; the distiller, and its losses."""
    causal = adapter.name in ("huggingface/gpt2", "huggingface/llama")
    task = make_task("language", (), width=1) if causal else None
    distiller, optim = small_distiller(adapter, task=task, **settings)
    batch = batch_of(adapter)
    if causal:
        ids = torch.randint(5, 300, (4, 12), generator=torch.Generator().manual_seed(0))
        batch = {"inputs": {"input_ids": ids}, "labels": ids}
    return distiller, [distiller.train_step(batch, optim) for _ in range(steps)]


def files(folder):
    """Every tensor of an exported folder's weight files."""
    found = [p for p in sorted(folder.iterdir()) if p.suffix in (".safetensors", ".pth")]
    return {f"{p.name}:{k}": v for p in found for k, v in read_state_dict(p).items()}
