"""What a run says of itself before it begins: where its weights are from, and what its data holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from mdpd_plugins.console import console
from mdpd_plugins.data import describe, description_lines
from mdpd_plugins.training.card import random_notice
from mdpd_plugins.training.experiment import Parts


def described(config: Config, parts: Parts) -> dict[str, Any]:
    """What the data holds, as the backbone is given it (`mdpd_plugins.data.describe`)."""
    adapter = parts.adapter
    more = {} if parts.unlabelled is None else {"unlabelled": parts.unlabelled}
    text = None if adapter.modality == "image" else adapter.text_transform()
    return describe(
        {"train": parts.train, **more, config.data.eval_split: parts.evaluated},
        transform=adapter.transform(),
        tokenizer=text.tokenizer if text else None,
        max_length=text.max_length if text else None,
        augment=config.data.augment,
        kind=parts.task.kind,
    )


def announce(parts: Parts, data: dict[str, Any]) -> None:
    out = console(stderr=True)
    weights, *notice = origin_lines(parts).splitlines()
    out.print(weights)
    for line in notice:
        out.print(line, style="bold red")
    for line in description_lines(data):
        out.print(line, style="bold yellow" if line.startswith("warning") else None, markup=False, highlight=False)


def say(lines: Sequence[str]) -> None:
    out = console(stderr=True)
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def origin_lines(parts: Parts) -> str:
    # Two lines: those of more than one line go to the log's file, and the screen has seen them.
    origin = parts.adapter.origin
    return f"weights: {origin}\n{random_notice(origin)}"


__all__ = ["announce", "described", "origin_lines", "say"]
