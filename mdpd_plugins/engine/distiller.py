"""A frozen backbone, a side network beside it, and the losses between them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters import Adapter, Capture
from mdpd_plugins.adapters.storage.fingerprint import fingerprint
from mdpd_plugins.engine.batch_parts import batch_part
from mdpd_plugins.engine.coaching import Taught, check_coachable, check_taught
from mdpd_plugins.engine.draws import drawing
from mdpd_plugins.engine.feature_cache import FeatureCache
from mdpd_plugins.engine.feature_distillation import FeatureDistillation
from mdpd_plugins.engine.feature_store import RowsInFile, RowsInMemory
from mdpd_plugins.engine.gradients import Backward, Gradients, PlainGradients
from mdpd_plugins.engine.labels import as_labels
from mdpd_plugins.engine.masters import Masters
from mdpd_plugins.engine.optimised import Rates, parameter_groups
from mdpd_plugins.engine.phases import Phases
from mdpd_plugins.engine.reader import PooledReader
from mdpd_plugins.engine.settings import Settings
from mdpd_plugins.engine.side import Ladder, SideNetwork, SideOutput, TowerStates, towers_of
from mdpd_plugins.engine.split import LayerSplit
from mdpd_plugins.engine.step import NonFiniteLossError, Step
from mdpd_plugins.engine.task import Task
from mdpd_plugins.engine.trained import TrainedBackbone
from mdpd_plugins.registry.errors import ConfigError, DataError, UsageError


class Distiller(nn.Module):
    """The student of a distillation: what trains, and how a batch's gradients are taken.

    Args:
        adapter: the backbone with its output layer.
        task: loss and distillation of the task.
        settings: switches.
        max_steps: batches of the whole run; the warm-up is a share of them.
        accumulate: batches per optimiser step. All of them are in the same phase.
        seed: masks are drawn from (seed, step) alone, so a resumed run draws the same ones.
        amp: type that forwards are autocast to, if any; parameters and losses stay float32.
        restorable: keep a copy of what trains in the backbone, so that `close` can put it back.

    Attributes:
        trainable: native key -> backbone parameter that training may change. low_rank: those that are low-rank updates.

    The state dict holds the backbone under `backbone.`, and what is thrown away at fading besides.
    """

    step: torch.Tensor

    def __init__(
        self,
        adapter: Adapter,
        task: Task,
        settings: Settings,
        *,
        max_steps: int,
        accumulate: int = 1,
        seed: int = 0,
        amp: torch.dtype | None = None,
        restorable: bool = False,
    ):
        super().__init__()
        adapter.stand_still()  # closing an earlier distillation has left it in its own mode
        self.adapter, self.task, self.settings = adapter, task, settings
        self.max_steps, self.seed, self.amp = max_steps, seed, amp
        self.backbone = adapter.model
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        if task.coupled and settings.sub_batch:
            raise ConfigError(
                f"distill.sub_batch={settings.sub_batch} takes a batch in pieces, but this task's loss compares all "
                f"samples of a batch with each other: set distill.sub_batch=None, and a smaller data.batch_size"
            )
        if settings.coach is not None:
            check_coachable(task)
        self.layers = LayerSplit(settings, adapter)
        self.side: SideNetwork | PooledReader | None = _side_network(adapter, task, settings) if settings.side else None
        self.features: FeatureDistillation | None = None
        if settings.side and settings.feature_distillation:
            self.features = _feature_distillation(adapter, settings, self.side, self.layers)
        self.cache = _feature_cache(adapter, settings, amp)
        self.local = settings.norm_gradient == "local" and settings.backbone_update == "norm"
        self.trained = TrainedBackbone(adapter, settings, self.layers.distilled, restorable=restorable)
        self.trainable, self.low_rank = self.trained.parameters, self.trained.low_rank
        self.masters = Masters(self.trainable.values())
        self.phases = Phases(
            settings, max_steps=max_steps, accumulate=accumulate, trainable=self.trainable, tail=self.trained.tail
        )
        self._ended = ""
        if adapter.device.type != "cpu":
            self.to(adapter.device)
        self.train()

    # --- training ----------------------------------------------------------------------------------------

    def backward(
        self,
        inputs: Any,
        labels: Any,
        *,
        backward: Backward | None = None,
        samples: torch.Tensor | None = None,
        taught: Taught | None = None,
    ) -> dict[str, torch.Tensor]:
        """Add both paths' gradients of one batch to the parameters: what `loss.backward()` is in a plain loop.

        A side phase and, when it is its turn, a backbone phase, from one shared backbone forward; one graph is alive
        at a time. With `sub_batch`, both take their gradients piece by piece. Several processes average theirs.

        Args:
            inputs: a batch of size B: a tensor, a mapping of tensors, or what a HuggingFace tokenizer or image
                processor returns; see `Adapter.as_inputs`.
            labels: (B,) int64 for one label, (B, C) for several, (B,) float for a number, (B, T) for language models; a
                tensor, an array or a list, and integers of any type.
            backward: what to call instead of `loss.backward()`: `accelerator.backward`, `fabric.backward`, or
                `lambda loss: scaler.scale(loss).backward()`.
            samples: (B,) int64, which examples they are, where features are cached.
            taught: a coach's outputs for these inputs, some of which may have no label (any value stands for it then);
                for students without a side network.

        Returns:
            Detached loss terms, "side/task", "backbone/distillation", ..., each its mean over the batch.

        Raises:
            NonFiniteLossError: a term, or without `backward` a gradient, is not finite; all gradients have been
                dropped, and no parameter changed.
            DataError: labels that do not fit the task, or a batch of no samples.
            ConfigError: inputs of another kind.
            UsageError: after fading or closing, or beyond the number of steps that was given.
        """
        self.check_open("backward")
        if int(self.step) >= self.max_steps:
            raise UsageError(
                f"backward was called {self.max_steps + 1} times, but steps={self.max_steps} was given, by which the "
                f"warm-up and the phases go: give distill() the number of batches of the whole training"
            )
        inputs, labels = self.adapter.as_inputs(inputs), as_labels(labels, self.adapter.device)
        samples_given = len(next(iter(inputs.values())))
        if samples_given == 0:
            raise DataError("a batch of no samples was given: leave it out, it has no loss")
        self.task.check_labels(labels, samples_given)
        if taught is not None:
            check_taught(taught, len(labels), self)
            taught = taught.to(labels.device)
        return self.accumulate(
            inputs, labels, PlainGradients(self.trained_by_path(), backward), samples=samples, taught=taught
        )

    def accumulate(
        self,
        inputs: dict[str, torch.Tensor],
        labels: torch.Tensor,
        gradients: Gradients,
        *,
        samples: torch.Tensor | None = None,
        taught: Taught | None = None,
    ) -> dict[str, torch.Tensor]:
        """`backward` for trainers with optimisers of their own: canonical inputs, no checks, and gradients to them.

        Raises:
            NonFiniteLossError: as `backward`.
        """
        step = Step(self, gradients)
        # Gradients of both paths before anybody steps an optimiser: a step is applied whole or not at all.
        try:
            with self.masters.at_work(), self.phases.only_learning(step.number), self._draws(step.number):
                for piece in batch_part(len(labels), labels.device).pieces(self.settings.sub_batch):
                    step.take(inputs, labels, samples, piece, taught)
            gradients.end_batch(step.paths)
            if not gradients.scaled:
                step.check_gradients()
        except NonFiniteLossError:
            gradients.discard()
            self.layers.measured.zero_()
            raise
        if step.measuring:
            self.layers.settle(last=step.number + 1 >= self.phases.warmup_steps + self.settings.auto_batches)
        self.step += 1
        return step.terms

    def _draws(self, step: int) -> AbstractContextManager[None]:
        """Inside, what dropout draws depends on (seed, step) alone: a resumed run draws the same."""
        return drawing(self.seed, step, self.adapter.device) if self.settings.side_dropout else nullcontext()

    def parameter_groups(self, **rates: float) -> list[dict[str, Any]]:
        """Groups for one torch optimiser: what trains, with the learning rate and weight decay of its kind.

        Args:
            rates: fields of `Rates` that differ from its defaults, such as `norm_lr=1e-3`; `scale` multiplies all
                learning rates.

        Returns:
            A list of {"name", "params", "lr", "weight_decay"}: "side", "norm", "low_rank", "head" and "other", those
            that have parameters.

        Raises:
            ConfigError: a rate that does not exist, or is negative.
        """
        self.check_open("parameter_groups")
        return parameter_groups(self, Rates.of(**rates))

    def side_parameters(self) -> list[nn.Parameter]:
        """Parameters of the side phase: side network, alignments and generators."""
        parts = [m for m in (self.side, self.features) if m is not None]
        return [p for m in parts for p in m.parameters()]

    def trained_by_path(self) -> dict[str, list[nn.Parameter]]:
        """Path -> what an optimiser steps for it."""
        return {"side": self.side_parameters(), "backbone": [self.masters.of(p) for p in self.trainable.values()]}

    def train(self, mode: bool = True) -> Distiller:
        """Training mode of the side network; the backbone stays in eval mode, module by module."""
        super().train(mode)
        self.adapter.stand_still()
        return self

    # --- using both paths --------------------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, inputs: Any, samples: Sequence[Any] | None = None) -> dict[str, torch.Tensor]:
        """Outputs of both paths, {"backbone": (B, C), "side": (B, C)}, without gradients, float32 but under autocast.

        Args:
            inputs: as in `backward`. samples: names of the samples, where features are cached.
        """
        inputs = self.adapter.as_inputs(inputs)
        self.masters.publish()
        with self.autocast(), self.plain_flags():
            if self.cache is not None and samples is not None:
                seen = self.cache.capture(inputs, samples)
                found = {"backbone": self.cache.logits(inputs, seen)}
            else:
                with self.adapter.capture() as seen:
                    found = {"backbone": self.adapter.forward(inputs)}
            if self.side is not None:
                found["side"] = self.run_side(seen, inputs).logits
        # Of a narrow model: what is compared and counted is to have more than its 8 bits.
        return found if self.amp is not None else {path: logits.float() for path, logits in found.items()}

    def run_side(self, seen: Capture, inputs: dict[str, torch.Tensor]) -> SideOutput:
        """The side network on what a forward of the backbone left behind, detached."""
        assert self.side is not None
        with self.autocast():
            return self.side(towers_of(self.adapter, seen, inputs))

    @torch.no_grad()
    def kept_towers(self, inputs: Any, samples: Sequence[Any]) -> list[TowerStates]:
        """What a side network reads of inputs, one a tower, from the features that are kept if any are.

        Args:
            samples: names of the samples.
        """
        inputs = self.adapter.as_inputs(inputs)
        with self.autocast(), self.plain_flags():
            if self.cache is not None:
                return towers_of(self.adapter, self.cache.capture(inputs, samples), inputs)
            with self.adapter.capture() as seen:
                self.adapter.forward(inputs)
            return towers_of(self.adapter, seen, inputs)

    def autocast(self) -> AbstractContextManager[None]:
        """Inside, forwards run in the type that `amp` names."""
        device = next(self.backbone.parameters()).device.type
        return torch.autocast(device, dtype=self.amp, enabled=self.amp is not None)

    def plain_flags(self) -> AbstractContextManager[None]:
        """See `TrainedBackbone.plain_flags`."""
        return self.trained.plain_flags()

    # --- the end -----------------------------------------------------------------------------------------

    def drop_side(self) -> None:
        """Throw the side network away. `fade` calls this."""
        self.side = self.features = None
        if self.cache is not None:
            self.cache.rows.close()
            self.cache = None
        self.masters = Masters()
        self._ended = "fading"
        if self.adapter.student is self:
            self.adapter.student = None

    def close(self) -> None:
        """Leave the model exactly as it came, and the side network gone. After fading or closing: nothing.

        Raises:
            ConfigError: the distiller was made without `restorable`.
        """
        if self._ended:
            return
        self.trained.restore()
        self.drop_side()
        self._ended = "closing"
        self.adapter.restore_modes()

    def __enter__(self) -> Distiller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_open(self, call: str) -> None:
        """Raise UsageError if the side network is gone."""
        if self._ended:
            raise UsageError(
                f"{call} was called after {self._ended}: the side network is gone. Begin another training with "
                f"distill(adapter, ...)"
            )


def _feature_cache(adapter: Adapter, settings: Settings, amp: torch.dtype | None) -> FeatureCache | None:
    if not settings.keeps_features:
        return None
    if settings.cache_folder is None:
        return FeatureCache(adapter, RowsInMemory(settings.cache_features * 2**20), ladder=settings.side)
    # The output layer has no part in what is kept.
    head = set(adapter.head_parameters())
    weights = fingerprint({k: v for k, v in adapter.model.state_dict().items() if k not in head})
    name = f"{weights[:32]}_{amp or adapter.dtype}_{'all' if settings.side else 'last'}".replace("torch.", "")
    rows = RowsInFile(settings.cache_folder, name, settings.cache_dtype)
    return FeatureCache(adapter, rows, ladder=settings.side, by_content=True)


def _side_network(adapter: Adapter, task: Task, settings: Settings) -> SideNetwork:
    """A ladder beside each tower, and the task's head on top."""
    ladders = [
        Ladder(
            adapter.stem_dims[tower],
            [adapter.dims[i] for i in layers],
            reduction=settings.reduction,
            head_dim=settings.side_head_dim,
            convolutional=adapter.convolutional[tower],
            causal=task.causal,
            dropout=settings.side_dropout,
            recompute=settings.recompute,
        )
        for tower, layers in enumerate(adapter.towers)
    ]
    return SideNetwork(ladders, task.side_head([ladder.width for ladder in ladders], adapter))


def _feature_distillation(
    adapter: Adapter, settings: Settings, side: SideNetwork | None, layers: LayerSplit
) -> FeatureDistillation:
    """Alignments and generators between the side network's states and the backbone's."""
    assert side is not None
    return FeatureDistillation(
        [ladder.width for ladder in side.ladders for _ in ladder.blocks],  # type: ignore[union-attr, misc]
        adapter.dims,
        layers.imitate,
        layers.generate,
        bottleneck=settings.bottleneck,
        mask_ratio=settings.mask_ratio,
        grids=[adapter.grid(i) is not None for i in range(len(adapter.blocks()))],
    )


__all__ = ["Distiller", "NonFiniteLossError"]
