"""Predictions of an exported model, batch by batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from mdpd_plugins.exports.exported import ExportedModel
from mdpd_plugins.exports.inputs import Input
from mdpd_plugins.registry.errors import CapabilityError, ConfigError

Row = dict[str, Any]
# Names that a prediction may have in one of the forms that `output` writes.
_OURS = re.compile(r"input|pair|top|value|labels|probabilities|(label|probability)(_\d+)?")


def predict(
    exported: ExportedModel, inputs: Sequence[Input], *, batch_size: int = 32, top_k: int | None = None
) -> Iterator[Row]:
    """One row an input, in order: plain data.

    Every row has "input", and "pair" where a second text was given. The other columns of a table follow last, under
    their own names; one that is called like something predicted gets "given_" in front: a table's own "label" is
    "given_label". To these come, by the kind of label:

    - single: "label", "probability" (softmax), and for `top_k` above 1 "top", the most probable labels with theirs.
    - multi: "labels", every label whose probability (sigmoid) is above 0.5, the most probable first.
    - float: "value".

    Args:
        batch_size: inputs that go through the model together.
        top_k: how many labels to name, at most all there are; for "single" only, where it is 1 by default.

    Raises:
        ConfigError: a size below 1, or `top_k` for another kind of label.
        CapabilityError: a kind of label that this function does not know.
        DataError: an image that does not decode.
    """
    kind = exported.record.task
    if kind == "language":
        raise CapabilityError(
            "this export is a language model, which has no label to predict: measure its perplexity with `mdpd eval`, "
            "or let it write with transformers' AutoModelForCausalLM.from_pretrained(EXPORT).generate"
        )
    if kind == "pair":
        raise CapabilityError(
            "this export is for retrieval, which has no label to predict: measure its recall with `mdpd eval`, or "
            "compare pictures and texts of your own with the lines of docs/deploy.md"
        )
    if kind not in _DECODERS:
        raise CapabilityError(f"an export for {kind!r} labels gives no predictions; known: {', '.join(_DECODERS)}")
    if batch_size < 1 or (top_k is not None and top_k < 1):
        raise ConfigError(f"batch size {batch_size} and top-k {1 if top_k is None else top_k} must be at least 1")
    if top_k is not None and kind != "single":
        raise ConfigError(f"top-k is for exports that give one label, and this one has {kind!r} labels")
    return _rows(exported, inputs, batch_size, top_k or 1)


def _rows(exported: ExportedModel, inputs: Sequence[Input], batch_size: int, top_k: int) -> Iterator[Row]:
    decode, classes = _DECODERS[exported.record.task], exported.record.classes
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size]
        logits = exported.logits([one.read() for one in batch])
        for one, row in zip(batch, logits, strict=True):
            pair = {} if one.pair is None else {"pair": one.pair}
            others = {_other(name, one.others): value for name, value in one.others.items()}
            yield {"input": one.name, **pair, **decode(row, classes, top_k), **others}


def _other(name: str, others: Mapping[str, Any]) -> str:
    while _OURS.fullmatch(name):
        name = f"given_{name}"
        while name in others:
            name = f"given_{name}"
    return name


def _single(logits: torch.Tensor, classes: Sequence[str], top_k: int) -> Row:
    values, places = logits.softmax(0).topk(min(top_k, len(classes)))
    top = _named(values.tolist(), places.tolist(), classes)
    return {**top[0], **({"top": top} if top_k > 1 else {})}


def _multi(logits: torch.Tensor, classes: Sequence[str], top_k: int) -> Row:
    values, places = logits.sigmoid().sort(descending=True, stable=True)
    chosen = int((values > 0.5).sum())
    return {"labels": _named(values[:chosen].tolist(), places[:chosen].tolist(), classes)}


def _float(logits: torch.Tensor, classes: Sequence[str], top_k: int) -> Row:
    return {"value": logits.item()}


def _named(values: Sequence[float], places: Sequence[int], classes: Sequence[str]) -> list[Row]:
    return [{"label": classes[place], "probability": value} for value, place in zip(values, places, strict=True)]


_DECODERS: dict[str, Callable[[torch.Tensor, Sequence[str], int], Row]] = {
    "single": _single,
    "multi": _multi,
    "float": _float,
}

__all__ = ["Row", "predict"]
