"""Texts for language modelling: one stream of tokens, cut into blocks of one length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch.utils.data import Dataset

from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import ConfigError, DataError

Block = tuple[torch.Tensor, torch.Tensor]
TOGETHER = 1000  # texts that are tokenised at a time


def pack(texts: Sequence[Any], tokenize: Callable[[Sequence[Any]], list[list[int]]], length: int) -> torch.Tensor:
    """(N, length) int32: the tokens of all texts in a row, cut into blocks; what is left at the end is dropped.

    As transformers' example `run_clm.py` groups them. Every block is full, so each sample of a batch has as many
    tokens as the others, and means over samples are means over tokens.

    Args:
        tokenize: texts -> tokens of each, with an end-of-text token behind.

    Raises:
        ConfigError: a block of less than two tokens. DataError: the texts do not fill a block.
    """
    if length < 2:
        raise ConfigError(f"data.max_length={length}: language modelling needs blocks of at least two tokens")
    parts = [
        torch.tensor(list(chain.from_iterable(tokenize(list(some)))), dtype=torch.int32)
        for some in (texts[start : start + TOGETHER] for start in range(0, len(texts), TOGETHER))
    ]
    stream = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int32)
    if len(stream) < length:
        raise DataError(
            f"{len(texts)} texts have {len(stream)} tokens, which is not one block of {length}: give more text, or "
            f"lower data.max_length"
        )
    return stream[: len(stream) // length * length].view(-1, length)


class PackedDataset(Dataset[Block]):
    """Blocks of tokens, each with itself as label; labels of the source are ignored.

    Indices are virtual as those of `LabelledDataset`. `dataset[v]` is (tokens, labels), both int64 (length,).

    Args:
        source: texts or pairs of texts. tokenize, length: see `pack`.
    """

    def __init__(self, source: Source, tokenize: Callable[[Sequence[Any]], list[list[int]]], length: int):
        self.blocks = pack([text for text, _ in source], tokenize, length)
        self.metainfo = {"classes": (), "label_kind": "language", "modality": "text", "description": source.description}

    @property
    def epoch_stride(self) -> int:
        """How far the virtual indices of one block lie apart from epoch to epoch."""
        return len(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Block:
        tokens = self.blocks[int(index) % len(self.blocks)].long()
        return tokens, tokens


def stack_blocks(samples: Sequence[Block]) -> dict[str, Any]:
    """Collate function: {"inputs": {"input_ids": (B, T) int64}, "labels": (B, T) int64}."""
    tokens, labels = (torch.stack(column) for column in zip(*samples, strict=True))
    return {"inputs": {"input_ids": tokens}, "labels": labels}


__all__ = ["PackedDataset", "pack", "stack_blocks"]
