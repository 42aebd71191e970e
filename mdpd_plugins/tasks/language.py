"""Causal language modelling: at every token, which one comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.causal import CausalLanguageModel
from mdpd_plugins.engine import Settings
from mdpd_plugins.engine.logits_distillation import chosen_teacher, token_kl
from mdpd_plugins.registry.errors import ConfigError, DataError

IGNORED = -100  # PyTorch's and transformers' label of what is not counted


class Language:
    """Loss, logits distillation and perplexity of next-token prediction.

    Outputs of either path are (B, T, V), those at token t about token t + 1. Labels are the tokens themselves,
    (B, T) int64, with -100 for those that are not counted; the first one is predicted from nothing and never is.
    """

    kind = "language"
    classes: tuple[str, ...] = ()
    main_metric = "perplexity"
    coupled = False
    causal = True
    num_outputs = 1  # a number that a backbone can be built with; it keeps its vocabulary

    def fusion(self, width: int) -> nn.Module:
        """Refused: language modelling has one tower."""
        raise ConfigError("task.kind='language' is for one decoder of texts: remove text_backbone")

    def side_head(self, widths: Sequence[int], adapter: Adapter) -> nn.Module:
        """See `VocabularyHead`."""
        return VocabularyHead(widths[0], adapter)

    def check_labels(self, labels: torch.Tensor, batch: int) -> None:
        """Raise DataError unless labels are (B, T) tokens."""
        if labels.dim() != 2 or len(labels) != batch:
            raise DataError(f"labels of shape {tuple(labels.shape)} were given; language modelling takes (B, T) tokens")

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over the counted tokens."""
        target = following(labels)
        return by_sample(_negative_log_likelihood, logits, target).sum() / (target != IGNORED).sum().clamp(min=1)

    def distillation(
        self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, settings: Settings
    ) -> torch.Tensor:
        """KL over the vocabulary, the mean over the counted tokens (`token_kl`)."""
        counted = following(labels) != IGNORED

        def term(ours: torch.Tensor, theirs: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
            return token_kl(ours, chosen_teacher(ours, theirs, settings.teacher), where, settings.kl_temperature)

        return by_sample(term, student, teacher, counted).sum() / counted.sum().clamp(min=1)

    def scored(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(B, 2) float32: summed negative log-likelihood of each sample's counted tokens, in nats, and their number."""
        target = following(labels)
        sums = by_sample(_negative_log_likelihood, logits, target)
        return torch.stack([sums, (target != IGNORED).sum(1).to(logits.dtype)], 1)

    def metrics(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """perplexity, exp of nll; nll, the mean negative log-likelihood of a token over the whole set, in nats.

        Args:
            logits: (N, 2), what `scored` returned.
        """
        total, tokens = logits.double().sum(0)
        nll = total / tokens
        return {"perplexity": nll.exp().item(), "nll": nll.item()}


class VocabularyHead(nn.Module):
    """Side states up to the backbone's width, and through the backbone's own output layer, which is held constant.

    As ladder side-tuning does it for T5 (LST, arXiv:2206.06522, and its code's `side_final_upsample`). A matrix from
    D_S to the vocabulary would be larger than the whole ladder. The output layer is read and not owned: it is no
    parameter of the side network, and no gradient of the side network reaches it.

    Args:
        width: D_S. adapter: of a `CausalLanguageModel`.

    Raises:
        ConfigError: of another backbone.
    """

    def __init__(self, width: int, adapter: Adapter):
        super().__init__()
        if not isinstance(adapter, CausalLanguageModel):
            raise ConfigError(f"{adapter.name} is no language model: set backbone.options.head='causal'")
        self.read = adapter.output_layer  # asked anew each time: sharing out and merging replace parameters
        self.up = nn.Linear(width, self.read().weight.shape[1])  # type: ignore[arg-type, index]

    def forward(self, tokens: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> torch.Tensor:
        """(B, T, V) of normalised tokens (B, T, D_S); masks are not needed, each token stands for itself."""
        layer: Any = self.read()
        bias = getattr(layer, "bias", None)
        wide = self.up(tokens[0]).to(layer.weight.dtype)  # the vocabulary is not to be held a second time, widened
        return F.linear(wide, layer.weight.detach(), None if bias is None else bias.detach())


def by_sample(term: Callable[..., torch.Tensor], *batch: torch.Tensor) -> torch.Tensor:
    """(B,): a scalar term of each sample, keeping for backward what enters it alone.

    A batch's logits over a vocabulary are the largest tensor of a step, and each operation of a loss would make
    another of their size. Same numbers, but for the order of sums.
    """
    rows = zip(*(tensor.unbind(0) for tensor in batch), strict=True)
    if not torch.is_grad_enabled():
        return torch.stack([term(*row) for row in rows])
    return torch.stack([checkpoint(term, *row, use_reentrant=False, preserve_rng_state=False) for row in rows])


def _negative_log_likelihood(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")


def following(labels: torch.Tensor) -> torch.Tensor:
    """What comes after each token: labels (B, T) moved by one, -100 at the end."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED)


__all__ = ["IGNORED", "Language", "VocabularyHead", "following"]
