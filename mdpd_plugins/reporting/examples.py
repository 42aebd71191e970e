"""Examples of the evaluation split with what both paths predict, the wrong ones first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from mdpd_plugins.engine.settings import evaluation_size
from mdpd_plugins.reporting.pictures import thumbnail
from mdpd_plugins.training.experiment import Experiment

# Our choice: enough to meet typical errors, few enough for a large backbone on a CPU.
LOOKED_AT = 256
SHOWN, SHOWN_RIGHT = 24, 8
TEXT = 400  # characters of an input shown
NAMES = 4  # classes of a multi-label prediction shown


@dataclass(frozen=True)
class Verdict:
    """What one path says of an example.

    Attributes:
        said: the prediction in words. probability: of it, where it is one class. right: whether it is the label;
            None for a number. badness: larger for what should be shown first.
    """

    said: str
    probability: float | None
    right: bool | None
    badness: float


@dataclass(frozen=True)
class Example:
    """One example: `pictures` (data URIs) and `texts` of its input, its label, and path -> verdict."""

    pictures: list[str]
    texts: list[str]
    label: str
    verdicts: dict[str, Verdict]


@dataclass(frozen=True)
class Examples:
    """What was looked at, and a part of it to show.

    Attributes:
        shown: the backbone's errors first, the most confident leading; then what it got right, the least confident
            leading. Numbers: by the size of the error.
        looked_at, available: how many examples were predicted, and how many the split has.
        wrong: path -> how many of them it gets wrong; empty for numbers.
    """

    shown: list[Example]
    looked_at: int
    available: int
    wrong: dict[str, int]


def find_examples(experiment: Experiment) -> Examples | None:
    """Predict evenly spaced examples of the evaluation split; None for a task without a prediction of each example."""
    if experiment.task.kind not in JUDGES:
        return None
    dataset: Any = experiment.eval_loader.dataset
    available = len(dataset)
    count = min(LOOKED_AT, available)
    chosen = [i * available // count for i in range(count)]
    judged: list[tuple[int, dict[str, Verdict]]] = []
    for numbers, rows in _predictions(experiment, dataset, chosen):
        for number, row in zip(numbers, rows, strict=True):
            label = row.pop("label").cpu()
            judge = JUDGES[experiment.task.kind]
            classes = experiment.task.classes
            judged.append((number, {path: judge(logits.cpu(), label, classes) for path, logits in row.items()}))
    judged.sort(key=lambda item: -item[1]["backbone"].badness)
    right = [item for item in judged if item[1]["backbone"].right]
    first = [item for item in judged if not item[1]["backbone"].right]
    first = first[: SHOWN - min(SHOWN_RIGHT, len(right))]
    shown = [*first, *right[: SHOWN - len(first)]]
    paths = list(judged[0][1])
    wrong = {path: sum(verdicts[path].right is False for _, verdicts in judged) for path in paths}
    numeric = judged[0][1]["backbone"].right is None
    return Examples([_example(experiment, *item) for item in shown], count, available, {} if numeric else wrong)


def _predictions(experiment: Experiment, dataset, chosen: list[int]) -> Iterator[tuple[list[int], list[dict]]]:
    size = evaluation_size(experiment.config)
    distiller, collate = experiment.distiller, experiment.eval_loader.collate_fn
    for start in range(0, len(chosen), size):
        numbers = chosen[start : start + size]
        batch = collate([dataset[i] for i in numbers])
        yield numbers, distiller.val_step({k: batch[k] for k in ("inputs", "labels")})


def _example(experiment: Experiment, number: int, verdicts: dict[str, Verdict]) -> Example:
    dataset: Any = experiment.eval_loader.dataset
    item, label = getattr(dataset, "dataset", dataset)[number]  # without the number that cached features need
    pictures, texts = [], []
    for part in item if isinstance(item, (tuple, list)) else (item,):
        if isinstance(part, Image.Image):
            pictures.append(thumbnail(part))
        else:
            texts.append(part if len(str(part)) <= TEXT else f"{str(part)[:TEXT]} ...")
    return Example(pictures, texts, _label(experiment.task.kind, label, experiment.task.classes), verdicts)


def _label(kind: str, label: torch.Tensor, classes: Sequence[str]) -> str:
    if kind == "single":
        return classes[int(label)]
    if kind == "float":
        return f"{float(label):.4g}"
    return _listed([classes[i] for i in label.nonzero().flatten().tolist()])


def _single(logits: torch.Tensor, label: torch.Tensor, classes: Sequence[str]) -> Verdict:
    shares = logits.softmax(0)
    best = int(shares.argmax())
    probability, right = float(shares[best]), best == int(label)
    return Verdict(classes[best], probability, right, -probability if right else probability)


def _multi(logits: torch.Tensor, label: torch.Tensor, classes: Sequence[str]) -> Verdict:
    shares = logits.sigmoid()
    said = (shares > 0.5).nonzero().flatten().tolist()
    differ = int(((shares > 0.5) != (label > 0.5)).sum())
    return Verdict(_listed([f"{classes[i]} {float(shares[i]):.2f}" for i in said]), None, not differ, differ)


def _float(logits: torch.Tensor, label: torch.Tensor, classes: Sequence[str]) -> Verdict:
    value = float(logits.flatten()[0])
    error = value - float(label)
    return Verdict(f"{value:.4g} (error {error:+.3g})", None, None, abs(error))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    return ", ".join(names[:NAMES]) + more or "none"


# How a prediction of each kind of label is judged: (logits (C,), label, classes) -> verdict.
JUDGES = {"single": _single, "multi": _multi, "float": _float}

__all__ = ["Example", "Examples", "Verdict", "find_examples"]
