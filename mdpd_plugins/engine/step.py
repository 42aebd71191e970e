"""Gradients of both paths for one batch: the losses of the method, in the order in which they are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mdpd_plugins.adapters import Capture
from mdpd_plugins.adapters.inspection.capture import capture
from mdpd_plugins.engine.batch_parts import Piece
from mdpd_plugins.engine.coaching import Taught, coached_terms
from mdpd_plugins.engine.gradients import Gradients, not_finite
from mdpd_plugins.engine.norm_gradients import forward_context, local_loss, run_last_blocks
from mdpd_plugins.engine.side import SideOutput
from mdpd_plugins.engine.task import CoachedTask
from mdpd_plugins.registry.errors import MDPDError

if TYPE_CHECKING:
    from mdpd_plugins.engine.distiller import Distiller

Tensors = dict[str, torch.Tensor]
Masks = list[torch.Tensor | None]


class NonFiniteLossError(MDPDError, FloatingPointError):
    """A loss term or a gradient became NaN or infinite. Nothing of that step was applied."""


class Step:
    """One batch: a side phase and, when it is its turn, a backbone phase, from one shared backbone forward.

    Args:
        parts: the networks, losses and phases. gradients: where gradients go.

    Attributes:
        number: steps that were taken before this one. learns: whether the backbone, or its tail, takes part.
        measuring: whether the automatic split looks at this batch. terms: detached loss terms of the batch so far.
    """

    def __init__(self, parts: Distiller, gradients: Gradients):
        self.parts, self.gradients = parts, gradients
        self.number = int(parts.step)  # once: on a GPU, reading it is a wait
        self.learns = bool(parts.phases.learning(self.number))
        self.measuring = parts.layers.undecided and not parts.phases.warming_up(self.number)
        self.terms: Tensors = {}

    @property
    def paths(self) -> list[str]:
        """Those that take part."""
        return [p for p, does in (("side", self.parts.side is not None), ("backbone", self.learns)) if does]

    def take(
        self,
        inputs: Tensors,
        labels: torch.Tensor,
        samples: torch.Tensor | None,
        piece: Piece,
        taught: Taught | None = None,
    ) -> None:
        """Add one piece's gradients to both paths' parameters.

        Args:
            inputs, labels, samples, taught: of the whole batch.
        """
        parts = self.parts
        valid = parts.adapter.attention_masks(inputs)
        inputs, labels = {k: v[piece.rows] for k, v in inputs.items()}, labels[piece.rows]
        local = parts.local and parts.phases.backbone(self.number)
        if parts.cache is not None and samples is not None and not self.measuring:
            logits, seen = self._cached_forward(inputs, samples[piece.rows])
        else:
            logits, seen = self._forward(inputs, gradients=self.learns and not local, keep_calls=local)
        teacher: SideOutput | None = None
        if parts.side is not None:
            side_terms, teacher = self._side_terms(inputs, labels, seen, valid, piece)
            self._differentiate("side", side_terms)
            del side_terms  # and with it the side network's graph
        if self.measuring:
            self._measure(seen, inputs, valid, piece)
        if self.learns:
            if local:
                logits = self._local_phase(inputs, seen, teacher, valid, piece)
            del seen  # so that a hidden state can go once its block has had its gradient
            if taught is not None:
                assert isinstance(parts.task, CoachedTask) and logits is not None
                terms = coached_terms(parts.task, parts.settings, logits.float(), labels, taught[piece.rows], piece)
            else:
                terms = self._backbone_terms(labels, logits, teacher, piece)
            self._differentiate("backbone", terms)

    # --- the shared forward ------------------------------------------------------------------------------

    def _forward(self, inputs: Tensors, *, gradients: bool, keep_calls: bool) -> tuple[torch.Tensor, Capture]:
        parts = self.parts
        context = forward_context(parts.adapter, parts.settings)
        with torch.set_grad_enabled(gradients), parts.autocast(), context:
            with parts.adapter.capture(attention=self.measuring, keep_calls=keep_calls) as seen:
                logits = parts.adapter.forward(inputs)
        return logits, seen

    def _cached_forward(self, inputs: Tensors, samples: torch.Tensor) -> tuple[torch.Tensor | None, Capture]:
        cache = self.parts.cache
        assert cache is not None
        with self.parts.autocast():
            seen = cache.capture(inputs, [("train", n) for n in samples.tolist()])
            return cache.logits(inputs, seen) if self.learns else None, seen

    # --- the side phase ----------------------------------------------------------------------------------

    def _side_terms(self, inputs, labels, seen: Capture, valid: Masks, piece: Piece) -> tuple[Tensors, SideOutput]:
        """Loss terms of the side network, and what it teaches."""
        parts = self.parts
        out = parts.run_side(seen, inputs)
        terms = {"side/task": piece.weight * parts.task.loss(out.logits.float(), labels)}
        if parts.settings.distils_features:
            with parts.autocast():
                terms.update(self._feature_terms(out, seen, valid, piece))
        states = [s.detach() for s in out.states] if parts.local else []
        return terms, SideOutput(states, out.logits.detach())

    def _feature_terms(self, out: SideOutput, seen: Capture, valid: Masks, piece: Piece) -> Tensors:
        parts, settings = self.parts, self.parts.settings
        assert parts.features is not None
        imitate, generate = parts.layers.chosen()
        # One stream of random numbers a layer: how long texts are padded must not shift the next layer's masks.
        seed = (parts.seed * 1_000_003 + self.number) * len(seen.hidden)
        terms = {}
        for i in imitate:
            mask = valid[parts.layers.tower_of[i]]
            loss = parts.features.imitation(i, out.states[i], seen.hidden[i], seen.layouts[i], mask, piece)
            terms[f"side/imitation_{i}"] = settings.imitation_weight * loss
        for i in generate:
            draws = torch.Generator().manual_seed(seed + i)
            state, hidden, layout = out.states[i], seen.hidden[i], seen.layouts[i]
            loss = parts.features.generation(i, state, hidden, layout, valid[parts.layers.tower_of[i]], draws, piece)
            terms[f"side/generation_{i}"] = settings.generation_weight * loss
        return terms

    # --- the backbone phase ------------------------------------------------------------------------------

    def _backbone_terms(self, labels, logits, teacher: SideOutput | None, piece: Piece) -> Tensors:
        parts, settings = self.parts, self.parts.settings
        terms = {"backbone/task": piece.weight * parts.task.loss(logits.float(), labels)}
        if teacher is not None and settings.distils_logits and not parts.phases.warming_up(self.number):
            kd = parts.task.distillation(logits.float(), teacher.logits.float(), labels, settings)
            terms["backbone/distillation"] = piece.weight * settings.logits_weight * kd
        return terms

    def _local_phase(self, inputs, seen: Capture, teacher, valid: Masks, piece: Piece) -> torch.Tensor:
        """Accumulate block-local gradients; logits whose graph holds the last block and the tail."""
        parts = self.parts
        if teacher is not None and parts.features is not None:
            with torch.no_grad(), parts.autocast():
                targets = {i: parts.features.align(i, teacher.states[i]) for i in parts.layers.distilled}
            terms = {}
            for layer, target in targets.items():
                with torch.enable_grad(), parts.autocast():
                    mask = valid[parts.layers.tower_of[layer]]
                    loss = local_loss(parts.adapter, seen, layer, target, mask, piece)
                terms[f"backbone/local_{layer}"] = loss.detach()
                self.gradients.backward("backbone", loss)
            self._check(terms)
            self._log(terms)
        with torch.enable_grad(), parts.autocast():
            return parts.adapter.forward_head(inputs, seen, *run_last_blocks(parts.adapter, seen))

    # --- the automatic split -----------------------------------------------------------------------------

    @torch.no_grad()
    def _measure(self, seen: Capture, inputs, valid: Masks, piece: Piece) -> None:
        parts = self.parts
        assert parts.side is not None
        with capture(parts.side.blocks(), attention=True) as student:
            parts.run_side(seen, inputs)
        parts.layers.measure([(seen.attention[i], student.attention[i]) for i in range(len(seen.hidden))], valid, piece)

    # --- gradients ---------------------------------------------------------------------------------------

    def _differentiate(self, path: str, terms: Tensors) -> None:
        """Add the gradient of the terms' sum to one path's parameters, if every term is finite."""
        self._check(terms)
        self._log(terms)
        self.gradients.backward(path, sum(terms.values()))  # type: ignore[arg-type]

    def check_gradients(self) -> None:
        """After the batch: raise NonFiniteLossError if a gradient is not finite although every loss term is."""
        trained = self.parts.trained_by_path()
        if (wrong := not_finite(p for path in self.paths for p in trained[path])) is not None:
            name = next(name for name, p in self.parts.named_parameters() if p is wrong)
            raise NonFiniteLossError(
                f"step {self.number + 1}: the gradient of {name} is not finite, although every loss term is. Training "
                f"stops here; the last checkpoint is untouched. Lower the learning rate of that path, set "
                f"optim.clip_grad, or look at the batch"
            )

    def _log(self, terms: Tensors) -> None:
        # Terms of the pieces of a batch are shares of its loss.
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0) + value.detach()  # type: ignore[operator]

    def _check(self, terms: Tensors) -> None:
        # One look for all of them: each is a wait for the device.
        if not terms or bool(torch.stack([v.detach() for v in terms.values()]).isfinite().all()):
            return
        for name, value in terms.items():
            if not torch.isfinite(value):
                raise NonFiniteLossError(
                    f"step {self.number + 1}: the loss term {name} is {float(value.detach())}. Training stops "
                    f"here; the last checkpoint is untouched. Lower the learning rate of that path, or look at the "
                    f"batch"
                )


__all__ = ["NonFiniteLossError", "Step"]
