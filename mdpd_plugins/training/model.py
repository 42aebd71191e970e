"""The distiller as mmengine's Runner drives it."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModel
from torch import nn

from mdpd_plugins.data import Mixing
from mdpd_plugins.engine import Distiller, Taught
from mdpd_plugins.engine.draws import drawing
from mdpd_plugins.training.optim import PathOptimisers


class RunnerModel(Distiller, BaseModel):
    """A `Distiller` with the methods that mmengine's loops call. Same state dict, same gradients."""

    data_preprocessor: nn.Module
    mixing: Mixing | None = None
    """What mixes the pictures of a training batch."""

    def init_weights(self) -> None:
        """Nothing: mmengine would initialise a pretrained MMPretrain backbone anew here."""

    def train_step(self, data: dict[str, Any], optim_wrapper: PathOptimisers) -> dict[str, torch.Tensor]:
        """One batch's gradients, and the optimiser steps that are due.

        Args:
            data: {"inputs": canonical inputs, "labels": tensor}; where features are cached "samples": (B,) int64, which
                examples they are; where a coach teaches "teacher" and "labelled", as `Taught` has them.

        Returns:
            Loss terms for the log, and "loss", their sum.

        Raises:
            NonFiniteLossError: a term is not finite; no parameter has been changed by this step.
        """
        data = self.data_preprocessor(data, True)
        if self.mixing is not None:
            with drawing(self.seed, int(self.step), torch.device("cpu")):
                image, labels = self.mixing(data["inputs"]["image"], data["labels"])
            data = {**data, "inputs": {**data["inputs"], "image": image}, "labels": labels}
        taught = Taught(data["teacher"], data["labelled"]) if "teacher" in data else None
        samples = data.get("samples")
        terms = self.accumulate(data["inputs"], data["labels"], optim_wrapper, samples=samples, taught=taught)
        optim_wrapper.step_where_due()
        return {**terms, "loss": sum(terms.values(), torch.zeros((), device=data["labels"].device))}

    def val_step(self, data: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
        """Predictions of both paths for the evaluator: one dict a sample, of its label and what is scored of each path.

        Args:
            data: as in `train_step`; "samples" number the evaluation data.
        """
        found, labels = self.answers(data)
        scored = {path: self.task.scored(outputs, labels) for path, outputs in found.items()}
        return [
            {"label": label, **{path: scores[i] for path, scores in scored.items()}} for i, label in enumerate(labels)
        ]

    def answers(self, data: dict[str, Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """(path -> its outputs as float32, labels) of a batch of evaluation data, from features that are kept."""
        data = self.data_preprocessor(data, False)
        samples = data.get("samples")
        names = None if samples is None else [("val", n) for n in samples.tolist()]
        return {path: outputs.float() for path, outputs in self(data["inputs"], names).items()}, data["labels"]


__all__ = ["RunnerModel"]
