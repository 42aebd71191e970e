"""One training step of Masked Dual Path Distillation, the same for every backbone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import nn

from mdpd_plugins.adapters import Adapter, Capture
from mdpd_plugins.adapters.inspection.capture import capture
from mdpd_plugins.engine.batch_parts import Piece, batch_part
from mdpd_plugins.engine.feature_cache import FeatureCache
from mdpd_plugins.engine.feature_distillation import FeatureDistillation
from mdpd_plugins.engine.low_rank import inject
from mdpd_plugins.engine.phases import Phases
from mdpd_plugins.engine.settings import Settings
from mdpd_plugins.engine.side import Ladder, SideNetwork, SideOutput, TowerStates
from mdpd_plugins.engine.split import LayerSplit
from mdpd_plugins.engine.task import Task
from mdpd_plugins.engine.trained import (
    forward_context,
    local_loss,
    run_last_blocks,
    tail_parameters,
    trainable_parameters,
)
from mdpd_plugins.registry.errors import ConfigError, MDPDError


class NonFiniteLossError(MDPDError, FloatingPointError):
    """A loss term became NaN or infinite. Nothing of that step was applied."""


class Distiller(BaseModel):
    """A frozen backbone, a side network beside it, and the losses between them.

    Args:
        adapter: the backbone with its output layer.
        task: loss and distillation of the task.
        settings: switches.
        max_steps: steps of the whole run; the warm-up is a share of them.
        accumulate: batches per optimiser step. All of them are in the same phase.
        seed: masks are drawn from (seed, step) alone, so a resumed run draws the same ones.
        amp: type that forwards are autocast to, if any; parameters and losses stay float32.

    The state dict holds the backbone under `backbone.`, and what is thrown away at fading besides.
    """

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
    ):
        super().__init__()
        self.adapter, self.task, self.settings = adapter, task, settings
        self.max_steps, self.seed, self.amp = max_steps, seed, amp
        self.backbone = adapter.model
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        if task.coupled and settings.sub_batch:
            raise ConfigError(
                f"distill.sub_batch={settings.sub_batch} takes a batch in pieces, but this task's loss compares all "
                f"samples of a batch with each other: set distill.sub_batch=None, and a smaller data.batch_size"
            )
        self.layers = LayerSplit(settings, adapter)
        self.side: SideNetwork | None = None
        self.features: FeatureDistillation | None = None
        if settings.side:
            ladders = [
                Ladder(
                    adapter.stem_dims[tower],
                    [adapter.dims[i] for i in layers],
                    reduction=settings.reduction,
                    head_dim=settings.side_head_dim,
                    convolutional=adapter.convolutional[tower],
                    causal=task.causal,
                    recompute=settings.recompute,
                )
                for tower, layers in enumerate(adapter.towers)
            ]
            self.side = SideNetwork(ladders, task.side_head([ladder.width for ladder in ladders], adapter))
            if settings.feature_distillation:
                self.features = FeatureDistillation(
                    [ladder.width for ladder in ladders for _ in ladder.blocks],
                    adapter.dims,
                    self.layers.imitate,
                    self.layers.generate,
                    bottleneck=settings.bottleneck,
                    mask_ratio=settings.mask_ratio,
                    grids=[adapter.grid(i) is not None for i in range(len(adapter.blocks()))],
                )
        size = settings.cache_features * 2**20
        self.cache = FeatureCache(adapter, size, ladder=settings.side) if size else None
        self.original_keys = set(self.backbone.state_dict())
        self.original_flags = {n: p.requires_grad for n, p in self.backbone.named_parameters()}
        self.local = settings.norm_gradient == "local" and settings.backbone_update == "norm"
        self.low_rank: dict[str, nn.Parameter] = {}
        if settings.low_rank:
            self.low_rank = inject(adapter, everywhere=settings.backbone_update == "norm+low_rank", rank=settings.rank)
        self.trainable = trainable_parameters(adapter, settings, self.layers.distilled, self.low_rank)
        tail = tail_parameters(adapter, settings, self.trainable)
        self.phases = Phases(settings, max_steps=max_steps, accumulate=accumulate, trainable=self.trainable, tail=tail)
        ids = {id(p) for p in self.trainable.values()}
        for p in self.backbone.parameters():
            p.requires_grad_(id(p) in ids)
        self.train()

    # --- what mmengine calls -----------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Distiller:
        """Training mode of the side network; the backbone stays in eval mode, module by module."""
        super().train(mode)
        self.backbone.eval()  # LeViT keeps what it needs then; MMPretrain's backbones skip some modules
        for module in self.backbone.modules():
            module.training = False
        return self

    def init_weights(self) -> None:
        """Nothing: mmengine would initialise a pretrained MMPretrain backbone anew here."""

    @contextmanager
    def plain_flags(self) -> Iterator[None]:
        """Inside, the backbone's parameters require gradients as they do in the plain model.

        PyTorch chooses kernels by that even under `no_grad` (it folds a batched product only for a matrix that
        requires one), and the last bits of an output depend on the kernel.
        """
        own = {p: p.requires_grad for p in self.backbone.parameters()}
        for name, parameter in self.backbone.named_parameters():
            # One that was not there at first is left alone; fading reports it, as a key that differs.
            parameter.requires_grad_(self.original_flags.get(name, parameter.requires_grad))
        try:
            yield
        finally:
            for parameter, flag in own.items():
                parameter.requires_grad_(flag)

    def forward(
        self,
        inputs: dict[str, torch.Tensor],
        labels: torch.Tensor,
        samples: torch.Tensor | None = None,
        mode: str = "predict",
    ) -> list[dict]:
        """Predictions of both paths for mmengine's evaluator: one dict a sample, of the label and what is scored.

        Args:
            samples: (B,) numbers of the samples in the evaluation data, where features are cached.
        """
        with torch.no_grad(), self._autocast(), self.plain_flags():
            if self.cache is not None and samples is not None:
                seen = self.cache.capture(inputs, [("val", n) for n in samples.tolist()])
                backbone = self.cache.logits(inputs, seen)
            else:
                with self.adapter.capture() as seen:
                    backbone = self.adapter.forward(inputs)
            found = {"backbone": backbone}
            if self.side is not None:
                found["side"] = self._side(seen, inputs).logits
            found = {path: self.task.scored(outputs.float(), labels) for path, outputs in found.items()}
        return [
            {"label": label, **{path: scores[i] for path, scores in found.items()}} for i, label in enumerate(labels)
        ]

    def train_step(self, data: dict[str, Any], optim_wrapper) -> dict[str, torch.Tensor]:
        """One side phase and, when it is its turn, one backbone phase, from one shared backbone forward.

        With `sub_batch`, both phases take their gradients piece by piece, and one update each follows at the end.

        Args:
            data: {"inputs": canonical inputs, "labels": tensor}, and where features are cached "samples": (B,) int64,
                which examples they are.
            optim_wrapper: mmengine's OptimWrapperDict with "side" and/or "backbone".

        Returns:
            Loss terms for the log.

        Raises:
            NonFiniteLossError: a term is not finite; no parameter has been changed by this step.
        """
        data = self.data_preprocessor(data, True)
        inputs, labels = data["inputs"], data["labels"]
        measuring, step = self._measuring(), int(self.step)
        learns = bool(self.phases.learning(step))
        taking_part = [p for p, does in (("side", self.side is not None), ("backbone", learns)) if does]
        terms: dict[str, torch.Tensor] = {}
        # Gradients of both paths first, then both updates: a step is applied whole or not at all.
        try:
            with self.phases.only_learning(step):
                for piece in batch_part(len(labels), labels.device).pieces(self.settings.sub_batch):
                    self._gradients(inputs, labels, data.get("samples"), piece, optim_wrapper, terms)
            for path in taking_part:
                optim_wrapper[path].end_batch()
        except NonFiniteLossError:
            optim_wrapper.zero_grad()
            self.layers.measured.zero_()
            raise
        if measuring:
            self.layers.settle(last=step + 1 >= self.phases.warmup_steps + self.settings.auto_batches)
        for path in taking_part:
            if optim_wrapper[path].should_update():
                optim_wrapper[path].step()
                optim_wrapper[path].zero_grad()
        self.step += 1
        return {**terms, "loss": sum(terms.values(), torch.zeros((), device=labels.device))}

    # --- phases ------------------------------------------------------------------------------------------

    def _gradients(self, inputs, labels, samples, piece: Piece, optim_wrapper, logs: dict[str, torch.Tensor]) -> None:
        """Add one piece's gradients to both paths' parameters, and its loss terms to the log."""
        valid = self.adapter.attention_masks(inputs)
        inputs, labels = {k: v[piece.rows] for k, v in inputs.items()}, labels[piece.rows]
        step = int(self.step)  # once: on a GPU, reading it is a wait
        with_backbone, local = bool(self.phases.learning(step)), self.local and self.phases.backbone(step)
        if self.cache is not None and samples is not None and not self._measuring():
            logits, seen = self._cached_forward(inputs, samples[piece.rows], gradients=with_backbone)
        else:
            logits, seen = self._backbone_forward(inputs, gradients=with_backbone and not local, keep_calls=local)
        teacher: SideOutput | None = None
        if self.side is not None:
            side_terms, teacher = self._side_terms(inputs, labels, seen, valid, piece)
            self._differentiate(side_terms, optim_wrapper["side"], logs)
            del side_terms  # and with it the side network's graph
        if self._measuring():
            self._measure(seen, inputs, valid, piece)
        if with_backbone:
            if local:
                logits = self._local_phase(inputs, seen, teacher, optim_wrapper["backbone"], valid, piece, logs)
            del seen  # so that a hidden state can go once its block has had its gradient
            self._differentiate(self._backbone_terms(labels, logits, teacher, piece), optim_wrapper["backbone"], logs)

    def _backbone_forward(self, inputs, *, gradients: bool, keep_calls: bool) -> tuple[torch.Tensor, Capture]:
        context = forward_context(self.adapter, self.settings)
        with torch.set_grad_enabled(gradients), self._autocast(), context:
            with self.adapter.capture(attention=self._measuring(), keep_calls=keep_calls) as seen:
                logits = self.adapter.forward(inputs)
        return logits, seen

    def _cached_forward(self, inputs, samples: torch.Tensor, *, gradients: bool) -> tuple[torch.Tensor | None, Capture]:
        assert self.cache is not None
        with self._autocast():
            seen = self.cache.capture(inputs, [("train", n) for n in samples.tolist()])
            return self.cache.logits(inputs, seen) if gradients else None, seen

    def _side_terms(
        self, inputs, labels, seen: Capture, valid, piece: Piece
    ) -> tuple[dict[str, torch.Tensor], SideOutput]:
        """Loss terms of the side network, and what it teaches."""
        out = self._side(seen, inputs)
        terms = {"side/task": piece.weight * self.task.loss(out.logits.float(), labels)}
        if self.settings.distils_features:
            with self._autocast():
                terms.update(self._feature_terms(out, seen, valid, piece))
        states = [s.detach() for s in out.states] if self.local else []
        return terms, SideOutput(states, out.logits.detach())

    def _differentiate(self, terms: dict[str, torch.Tensor], wrapper, logs: dict[str, torch.Tensor]) -> None:
        """Add the gradient of the terms' sum to one path's parameters, if every term is finite."""
        self._check(terms)
        _log(terms, logs)
        wrapper.accumulate(sum(terms.values()))

    def _backbone_terms(self, labels, logits, teacher: SideOutput | None, piece: Piece) -> dict[str, torch.Tensor]:
        terms = {"backbone/task": piece.weight * self.task.loss(logits.float(), labels)}
        if teacher is not None and self.settings.distils_logits and not self.phases.warming_up(int(self.step)):
            kd = self.task.distillation(logits.float(), teacher.logits.float(), labels, self.settings)
            terms["backbone/distillation"] = piece.weight * self.settings.logits_weight * kd
        return terms

    def _local_phase(self, inputs, seen, teacher, wrapper, valid, piece: Piece, logs) -> torch.Tensor:
        """Accumulate block-local gradients; logits whose graph holds the last block and the tail."""
        if teacher is not None and self.features is not None:
            with torch.no_grad(), self._autocast():
                targets = {i: self.features.align(i, teacher.states[i]) for i in self.layers.distilled}
            terms = {}
            for layer, target in targets.items():
                with torch.enable_grad(), self._autocast():
                    loss = local_loss(self.adapter, seen, layer, target, valid[self.layers.tower_of[layer]], piece)
                terms[f"backbone/local_{layer}"] = loss.detach()
                wrapper.accumulate(loss)
            self._check(terms)
            _log(terms, logs)
        with torch.enable_grad(), self._autocast():
            return self.adapter.forward_head(inputs, seen, *run_last_blocks(self.adapter, seen))

    def _side(self, seen: Capture, inputs) -> SideOutput:
        assert self.side is not None
        with self._autocast():
            return self.side(self._read(seen, inputs))

    def _read(self, seen: Capture, inputs) -> list[TowerStates]:
        masks = self.adapter.attention_masks(inputs)
        return [
            TowerStates(
                seen.stems[layers[0]].detach(),
                [seen.hidden[i].detach() for i in layers],
                [seen.stem_layouts[layers[0]], *(seen.layouts[i] for i in layers)],
                valid,
            )
            for layers, valid in zip(self.adapter.towers, masks, strict=True)
        ]

    def _feature_terms(self, out: SideOutput, seen: Capture, valid, piece: Piece) -> dict[str, torch.Tensor]:
        assert self.features is not None
        imitate, generate = self.layers.chosen()
        # One stream of random numbers a layer: how long texts are padded must not shift the next layer's masks.
        seed = (self.seed * 1_000_003 + int(self.step)) * len(seen.hidden)
        terms = {}
        for i in imitate:
            mask = valid[self.layers.tower_of[i]]
            loss = self.features.imitation(i, out.states[i], seen.hidden[i], seen.layouts[i], mask, piece)
            terms[f"side/imitation_{i}"] = self.settings.imitation_weight * loss
        for i in generate:
            draws = torch.Generator().manual_seed(seed + i)
            state, hidden, layout = out.states[i], seen.hidden[i], seen.layouts[i]
            loss = self.features.generation(i, state, hidden, layout, valid[self.layers.tower_of[i]], draws, piece)
            terms[f"side/generation_{i}"] = self.settings.generation_weight * loss
        return terms

    # --- the automatic split -----------------------------------------------------------------------------

    def _measuring(self) -> bool:
        return self.layers.undecided and not self.phases.warming_up(int(self.step))

    @torch.no_grad()
    def _measure(self, seen: Capture, inputs, valid, piece: Piece) -> None:
        assert self.side is not None
        with capture(self.side.blocks(), attention=True) as student:
            self._side(seen, inputs)
        self.layers.measure([(seen.attention[i], student.attention[i]) for i in range(len(seen.hidden))], valid, piece)

    # --- small things ------------------------------------------------------------------------------------

    def _autocast(self):
        device = next(self.backbone.parameters()).device.type
        return torch.autocast(device, dtype=self.amp, enabled=self.amp is not None)

    def _check(self, terms: dict[str, torch.Tensor]) -> None:
        # One look for all of them: each is a wait for the device.
        if not terms or bool(torch.stack([v.detach() for v in terms.values()]).isfinite().all()):
            return
        for name, value in terms.items():
            if not torch.isfinite(value):
                raise NonFiniteLossError(
                    f"step {int(self.step) + 1}: the loss term {name} is {float(value.detach())}. Training stops "
                    f"here; the last checkpoint is untouched. Lower the learning rate of that path, or look at the "
                    f"batch"
                )

    def side_parameters(self) -> list[nn.Parameter]:
        """Parameters of the side phase: side network, alignments and generators."""
        parts = [m for m in (self.side, self.features) if m is not None]
        return [p for m in parts for p in m.parameters()]


def _log(terms: dict[str, torch.Tensor], logs: dict[str, torch.Tensor]) -> None:
    # Terms of the pieces of a batch are shares of its loss.
    for name, value in terms.items():
        logs[name] = logs.get(name, 0) + value.detach()


__all__ = ["Distiller", "NonFiniteLossError"]
