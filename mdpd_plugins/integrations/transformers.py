"""HuggingFace's Trainer: a run that ends with the plain model."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from mdpd_plugins.adapters import Adapter, adapt
from mdpd_plugins.api import distill
from mdpd_plugins.engine import Distiller, FadingReport, fade
from mdpd_plugins.files import fresh_file
from mdpd_plugins.registry.errors import CheckpointError, ConfigError, MDPDError

STUDENT_FILE = "mdpd_student.pt"


class _AfterStep(TrainerCallback):
    """The Trainer zeroes the gradients of its model, of which the side network is no part, and evaluates that model,
    which a step reaches by way of its masters where it is narrow."""

    def __init__(self, trainer: DistillTrainer):
        self.trainer = trainer

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        optimizer.zero_grad()
        if self.trainer.student is not None:
            self.trainer.student.masters.publish()


class DistillTrainer(Trainer):
    """transformers' Trainer over a distillation: arguments, callbacks, data, evaluation and resume are a Trainer's own.

    Evaluation and saving after training see the plain model, `trainer.model`, the very module that came in. Checkpoints
    hold the student, side network included, in one file besides the Trainer's own.

    Args:
        model: a transformers model with an output layer for the task, or an adapter of one.
        args, and all keyword arguments besides: the Trainer's.
        method: a row of `mdpd_plugins.METHODS`. task: kind of label: "single", "multi" or "float".
        class_weights: see `distill`; its `label_smoothing` is the arguments' `label_smoothing_factor`.
        settings: fields of `mdpd_plugins.Settings`. rates: fields of `mdpd_plugins.Rates`, such as {"scale": 0.5}: each
            kind of parameter has a rate of its own, so `args.learning_rate` and `args.weight_decay` are not used. The
            Trainer's schedule multiplies them.

    Attributes:
        student: while training goes on. fading: the report, once it has ended.

    Raises:
        ConfigError: more than one process or GPU, or whatever `distill` refuses.
    """

    def __init__(
        self,
        model: nn.Module | Adapter,
        args: TrainingArguments | None = None,
        *,
        method: str = "mdpd_low_rank",
        task: str = "single",
        class_weights: Sequence[float] | None = None,
        settings: Mapping[str, Any] | None = None,
        rates: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        self.adapter = model if isinstance(model, Adapter) else adapt(model)
        self.student: Distiller | None = None
        self.fading: FadingReport | None = None
        self._recipe = {"task": task, "method": method, "class_weights": class_weights, **(settings or {})}
        self._rates = dict(rates or {})
        super().__init__(self.adapter.model, args, **kwargs)
        self.add_callback(_AfterStep(self))
        if self.args.world_size > 1 or self.args.n_gpu > 1:
            raise ConfigError(
                "DistillTrainer trains in one process on one device: set CUDA_VISIBLE_DEVICES to one GPU, or train "
                "from a configuration with torchrun and tools/train.py --launcher pytorch"
            )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; afterwards the side network is gone and `self.model` is the plain model."""
        set_seed(self.args.seed)  # the side network's first weights
        amp: bool | str = "float16" if self.args.fp16 else self.args.bf16
        self.student = distill(
            self.adapter,
            steps=self._batches(),
            accumulate=self.args.gradient_accumulation_steps,
            seed=self.args.seed,
            amp=amp,
            label_smoothing=self.args.label_smoothing_factor,
            **self._recipe,
        )
        self.optimizer = None  # of an earlier call, whose parameters are gone
        output = super().train(*args, **kwargs)
        # Accelerate's wrapper of a forward in half precision goes with the side network.
        self.model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.model, self.fading = fade(self.student)
        self.model_wrapped, self.student = self.model, None
        return output

    def _batches(self) -> int:
        """The most batches that a training takes."""
        each = self.args.gradient_accumulation_steps
        if self.args.max_steps > 0:
            return self.args.max_steps * each
        try:
            return math.ceil(self.args.num_train_epochs) * len(self.get_train_dataloader())
        except TypeError as error:
            raise ConfigError("the training data has no length: say how long to train with max_steps") from error

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimiser that the arguments name, over what trains of both paths."""
        if self.student is None:
            return super().create_optimizer()
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, cast(Any, self.model))
            options = {k: v for k, v in options.items() if k not in ("lr", "params", "model", "optimizer_dict")}
            self.optimizer = kind(self.student.parameter_groups(**self._rates), **options)
        return self.optimizer

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of both paths; the sum of the loss terms, for the log."""
        assert self.student is not None
        self.student.train()
        inputs = dict(self._prepare_inputs(inputs))
        labels = inputs.pop(self.label_names[0] if self.label_names else "labels", None)
        if labels is None:
            raise ConfigError(f"a batch has no labels: it holds {', '.join(inputs)}")
        batches = self.current_gradient_accumulation_steps

        def backward(loss: torch.Tensor) -> None:
            self.accelerator.backward(loss / batches)

        terms = self.student.backward(inputs, labels, backward=backward)
        return torch.stack(list(terms.values())).sum() / batches

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.student is None:
            super()._save(output_dir, state_dict)
            return
        folder = output_dir or self.args.output_dir or "."
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, STUDENT_FILE)
        with fresh_file(path) as temporary:
            torch.save(self.student.state_dict(), temporary)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_student(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._load_student(str(self.state.best_model_checkpoint))

    def _load_student(self, folder: str) -> None:
        assert self.student is not None
        path = os.path.join(folder, STUDENT_FILE)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.student.load_state_dict(state)
        except MDPDError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"{path!r} is no checkpoint of this training ({str(error).splitlines()[0]}): resume with the settings "
                f"that it was begun with, or start anew"
            ) from error


__all__ = ["DistillTrainer"]
