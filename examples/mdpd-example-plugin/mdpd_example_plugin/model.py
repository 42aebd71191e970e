"""A small vision transformer classifier, written with nothing but PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from mdpd_plugins.adapters import RANDOM, Built
from mdpd_plugins.registry import CheckpointError, ConfigError


class Block(nn.Module):
    """Pre-norm self-attention and MLP. Tokens (B, T, width) in and out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(attended.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))


class SmallViT(nn.Module):
    """Images (B, 3, image_size, image_size) to logits (B, num_classes)."""

    def __init__(self, num_classes: int, image_size: int, patch_size: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        if image_size % patch_size or width % heads:
            raise ConfigError(
                f"patch_size={patch_size} must divide image_size={image_size}, "
                f"and heads={heads} must divide width={width}"
            )
        sizes = {"image_size": image_size, "patch_size": patch_size, "width": width, "depth": depth, "heads": heads}
        self.sizes = sizes  # what `save` writes, so that `load` can build the same network
        self.patches = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        positions = (image_size // patch_size) ** 2 + 1
        self.positions = nn.Parameter(0.02 * torch.randn(1, positions, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(image), -1, -1), patches], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def build(
    pretrained: str | None = "auto",
    num_classes: int = 1000,
    image_size: int = 32,
    patch_size: int = 4,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
) -> Built:
    """The network; called by mdpd-plugins with `pretrained` and `num_classes`, and the options of a config.

    pretrained: a safetensors file of this network's state dict; "auto" and None give random weights, since
        none have been published. Raises CheckpointError when the file is missing or does not fit.
    """
    model = SmallViT(num_classes, image_size, patch_size, width, depth, heads)
    if pretrained in (None, "auto"):
        return Built(model, origin=f"{RANDOM} (no weights exist for this example)")
    try:
        model.load_state_dict(load_file(pretrained))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {pretrained!r} cannot be loaded into this network: {error}") from error
    return Built(model, origin=pretrained)


def small(name: str) -> dict[str, dict[str, int]]:
    """Options with which `mdpd verify` checks it in a second; one entry for each part that is a backbone."""
    return {"": {"image_size": 16, "width": 32, "depth": 3}}


def save(model: SmallViT, folder: str | Path) -> None:
    """The network's own format: its sizes, and its weights."""
    about = {"num_classes": model.head.out_features, **model.sizes}
    (Path(folder) / "small_vit.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    save_file(model.state_dict(), Path(folder) / "model.safetensors")


def load(folder: str | Path) -> SmallViT:
    """The network that `save` wrote, in eval mode."""
    model = SmallViT(**json.loads((Path(folder) / "small_vit.json").read_text(encoding="utf-8")))
    model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    return model.eval()
