"""Backbones of the three frameworks at small size, the same everywhere: real classes, random weights."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mdpd_plugins.adapters import Adapter, build_backbone
from mdpd_plugins.engine import Settings
from mdpd_plugins.tasks import AnyTask, Prediction
from mdpd_plugins.training.model import RunnerModel
from mdpd_plugins.training.optim import PathOptimisers, build_optim

CLASSES = ("a", "b", "c", "d", "e")

_HF = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
_MM = {
    "image_size": 32,
    "backbone": {
        "patch_size": 8,
        "arch": {"embed_dims": 32, "num_layers": 3, "num_heads": 4, "feedforward_channels": 64},
    },
}
_CLIP = {
    "image_size": 32,
    "vision_cfg": {"layers": 3, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": {"layers": 2, "width": 32, "heads": 4, "context_length": 24},
}
BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "hf-vit": ("huggingface/vit-base-patch16-224", {"image_size": 32, "patch_size": 8, **_HF}),
    "hf-deit": ("huggingface/deit-base-patch16-224", {"image_size": 32, "patch_size": 8, **_HF}),
    "hf-dinov2": (
        "huggingface/dinov2-small",
        {"image_size": 28, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4},
    ),
    "hf-minilm": ("huggingface/minilm-l6", _HF),
    "mm-vit": ("mmpretrain/vit-base-p16_32xb128-mae_in1k", _MM),
    "mm-deit": ("mmpretrain/deit-tiny-distilled_3rdparty_in1k", _MM),
    "mm-resnet": (
        "mmpretrain/resnet18_8xb32_in1k",
        {"image_size": 64, "backbone": {"stem_channels": 8, "base_channels": 8}, "head": {"in_channels": 64}},
    ),
    "mm-swin": (
        "mmpretrain/swin-tiny_16xb64_in1k",
        {
            "image_size": 64,
            "backbone": {
                "arch": {"embed_dims": 16, "depths": [2, 2], "num_heads": [2, 4]},
                "out_indices": (1,),
                "window_size": 4,
            },
            "head": {"in_channels": 32},
        },
    ),
    "hf-vilt": ("huggingface/vilt-b32", {"image_size": 32, "patch_size": 8, **_HF}),
    "oc-image": ("open_clip/ViT-B-16", _CLIP),
    "oc-text": ("open_clip/ViT-B-16", {**_CLIP, "tower": "text"}),
}
ALL = tuple(BACKBONES)
GLOBAL_ATTENTION = tuple(k for k in ALL if k not in ("mm-resnet", "mm-swin"))
# One of each framework, for what costs more or depends on the framework only.
ONE_OF_EACH = ("hf-vit", "mm-vit", "oc-image")
TEXT = ("hf-minilm", "oc-text")


def small(key: str, num_classes: int = len(CLASSES), seed: int = 0, **options: Any) -> Adapter:
    """A small backbone whose every weight is drawn: no zero head, no unit norm hides a missing factor."""
    name, own = BACKBONES[key]
    adapter = build_backbone(name, pretrained=None, num_classes=num_classes, **{**own, **options})
    randomise(adapter.model, seed)
    return adapter


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Draw every parameter and running statistic from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            drawn = torch.randn(p.shape, generator=generator)
            # A matrix keeps the scale of what it reads; a vector is a scale near one or a shift, both allowed.
            p.copy_(drawn / max(1, p[0].numel()) ** 0.5 if p.dim() > 1 else 0.5 + 0.2 * drawn)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))


def inputs_of(adapter: Adapter, batch: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """Canonical inputs of the model's own size; texts are padded to different lengths."""
    generator = torch.Generator().manual_seed(seed)
    example = adapter.example_inputs(1)
    image = {}
    if "image" in example:
        image = {"image": torch.randn(batch, *example["image"].shape[1:], generator=generator)}
    if adapter.modality == "image":
        return image
    length = example["input_ids"].shape[1]
    # CLIP's end-of-text is the largest id; where a text tower pools there, every text needs one.
    end = 49407 if adapter.name.rpartition(" + ")[2].startswith("open_clip") else 102
    lengths = torch.tensor([length - 3, 5, 9, 7])[torch.arange(batch) % 4]
    mask = torch.arange(length) < lengths[:, None]
    ids = torch.randint(200, 900, (batch, length), generator=generator)
    ids[torch.arange(batch), lengths - 1] = end
    return {**image, "input_ids": ids.masked_fill(~mask, 0), "attention_mask": mask.long()}


def labels_of(batch: int = 4) -> torch.Tensor:
    """Class indices (batch,)."""
    return torch.arange(batch) % len(CLASSES)


def batch_of(adapter: Adapter, batch: int = 4, seed: int = 1) -> dict[str, Any]:
    """A training batch."""
    return {"inputs": inputs_of(adapter, batch, seed), "labels": labels_of(batch)}


def small_distiller(
    key_or_adapter: str | Adapter,
    *,
    task: AnyTask | None = None,
    max_steps: int = 8,
    accumulate: int = 1,
    amp: torch.dtype | None = None,
    **settings: Any,
) -> tuple[RunnerModel, PathOptimisers]:
    """A distiller on a small backbone and its optimisers, from a fixed seed; the backbone trains at every step."""
    adapter = small(key_or_adapter) if isinstance(key_or_adapter, str) else key_or_adapter
    given = {"reduction": 4, "bottleneck": 8, "backbone_every": 1, "warmup": 0.0, **settings}
    torch.manual_seed(0)
    task = task or Prediction("single", CLASSES)
    settings_ = Settings.from_dict(given)
    distiller = RunnerModel(adapter, task, settings_, max_steps=max_steps, accumulate=accumulate, amp=amp)
    optim = {
        "type": "adamw",
        "scale": 1.0,
        "side_lr": 1e-2,
        "side_weight_decay": 0.05,
        "norm_lr": 1e-2,
        "head_lr": 1e-2,
        "low_rank_lr": 1e-2,
        "weight_lr": 1e-2,
        "head_weight_decay": 0.05,
        "clip_grad": None,
        "accumulate": accumulate,
    }
    return distiller, build_optim(distiller, Config({"optim": optim}))


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a state dict."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    """Keys whose tensors are not bit for bit what they were."""
    after = module.state_dict()
    assert before.keys() == after.keys()
    return {k for k, v in before.items() if not torch.equal(v, after[k])}
