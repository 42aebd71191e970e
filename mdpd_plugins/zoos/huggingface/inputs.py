"""What transformers models read: example texts as their tokenizers pad them, and images in other forms than pixels."""

from __future__ import annotations

import math
from typing import Any

import torch

from mdpd_plugins.registry.errors import ConfigError

LENGTH, SHORT = 16, 9  # tokens of an example text, and of the one that is padded beside it


def reads(model: Any) -> str:
    """ "text", "image" or "image-text": what a transformers classifier is given, by the zoo's own tables of them."""
    from transformers.models.auto import modeling_auto

    name = type(model).__name__
    if name in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values():
        return "text"
    if name in modeling_auto.MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES.values():
        return "image-text"
    listed = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()
    if any(name == entry or (isinstance(entry, tuple) and name in entry) for entry in listed):
        return "image"
    return "text" if getattr(model, "main_input_name", "pixel_values") == "input_ids" else "image"


def example_text(config: Any, batch: int) -> dict[str, torch.Tensor]:
    """`batch` texts of 16 tokens drawn from a fixed seed, the last of 9, padded where its tokenizer pads.

    Returns:
        input_ids and attention_mask, (batch, 16) int64.
    """
    generator = torch.Generator().manual_seed(0)
    text = config.get_text_config()
    special = {v for k, v in text.to_dict().items() if k.endswith("_token_id") and isinstance(v, int)}
    # Characters count as tokens for models without a vocabulary.
    usual = [i for i in range(5, min(getattr(text, "vocab_size", 128), 1000)) if i not in special]
    ids = torch.tensor(usual)[torch.randint(len(usual), (batch, LENGTH), generator=generator)]
    if config.is_encoder_decoder and isinstance(text.eos_token_id, int):
        ids[:, LENGTH - 1] = ids[-1, SHORT - 1] = text.eos_token_id  # BART classifies by the end of a text
    mask = torch.ones_like(ids)
    mask[-1, SHORT:] = 0
    if padding_side(config.model_type) == "left":
        ids[-1], mask[-1] = ids[-1].roll(LENGTH - SHORT), mask[-1].roll(LENGTH - SHORT)
    return {"input_ids": ids.masked_fill(mask == 0, getattr(text, "pad_token_id", None) or 0), "attention_mask": mask}


def padding_side(model_type: str) -> str:
    """ "left" or "right": where the tokenizer of a model type pads. XLNet classifies by the last position."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    try:
        name = TOKENIZER_MAPPING_NAMES.get(model_type)
        return getattr(tokenizer_class_from_name(name), "padding_side", "right") if name else "right"
    except ImportError:  # a tokenizer whose library is not installed
        return "right"


def patches(image: torch.Tensor, size: int) -> dict[str, torch.Tensor]:
    """Images of any aspect as NaFlex models (SigLIP 2) take them: cut into patches, with the grid they came from.

    Args:
        image: (B, C, H, W). size: side of a patch in pixels.

    Returns:
        pixel_values (B, N, size * size * C), as transformers' `convert_image_to_patches` cuts them; spatial_shapes
        (B, 2) int64, rows and columns; pixel_attention_mask (B, N) of ones.

    Raises:
        ConfigError: the image is not whole patches.
    """
    b, c, height, width = image.shape
    rows, columns = height // size, width // size
    if (rows * size, columns * size) != (height, width):
        raise ConfigError(f"an image of {height} x {width} pixels is not whole patches of {size} x {size}")
    cut = image.reshape(b, c, rows, size, columns, size).permute(0, 2, 4, 3, 5, 1).reshape(b, rows * columns, -1)
    return {
        "pixel_values": cut,
        "spatial_shapes": torch.tensor([[rows, columns]] * b, device=image.device),
        "pixel_attention_mask": torch.ones(cut.shape[:2], dtype=torch.int64, device=image.device),
    }


def colours(processor: Any, count: int) -> torch.Tensor:
    """(count, 3): the colours in -1..1 that stand for the tokens of a model of pixels (ImageGPT).

    Those of its image processor; where that has none an even grid of colours, which serves as well for random weights.
    """
    if (found := getattr(processor, "clusters", None)) is not None:
        return torch.as_tensor(found, dtype=torch.float32)
    side = max(1, math.ceil(round(count ** (1 / 3), 6)))
    levels = torch.linspace(-1, 1, side)
    return torch.cartesian_prod(levels, levels, levels)[:count]


def colour_tokens(image: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """(B, H * W) int64: the nearest colour of each pixel, row by row.

    Args:
        image: (B, 3, H, W) in -1..1. palette: (K, 3) in -1..1.
    """
    return torch.cdist(image.flatten(2).transpose(1, 2).float(), palette.to(image.device)).argmin(-1)


class KeepsNothing:
    """In place of a cache of keys and values, for models that make one unasked (XLM).

    A cache would grow with every block that runs a second time.
    """

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What it was given."""
        return keys, values

    def get_seq_length(self) -> int:
        """Always 0: nothing was kept."""
        return 0


__all__ = ["KeepsNothing", "colour_tokens", "colours", "example_text", "padding_side", "patches", "reads"]
