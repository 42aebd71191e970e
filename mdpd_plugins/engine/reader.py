"""A linear reader of the frozen backbone's pooled states: the simplest coach, and the bar for any other.

Our choice of what it reads: of every layer, LayerNorm without affine, the mean over the tokens that count, and each
prefix token (CLS, registers). Its strength of regularisation is chosen on validation (`training/coach.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mdpd_plugins.engine.side import SideOutput, TowerStates, masked_mean, token_mask

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""scikit-learn's C, for features whose squares add up to one on average (standardised, over the root of their number;
our choice)."""


class PooledReader(nn.Module):
    """Linear outputs of standardised pooled states. It stands where a side network does.

    Args:
        features: F, how many numbers `pooled_states` makes. outputs: C.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, features: int, outputs: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.linear = nn.Linear(features, outputs)

    def forward(self, towers: Sequence[TowerStates]) -> SideOutput:
        """Outputs (B, C); it has no states of its own."""
        return SideOutput([], self.linear((pooled_states(towers) - self.mean) * self.scale))

    def blocks(self) -> list[nn.Module]:
        """None: nothing of it stands beside a block."""
        return []


def pooled_states(towers: Sequence[TowerStates]) -> torch.Tensor:
    """(B, F) float32: of each layer of each tower its mean token and its prefix tokens, normalised."""
    found = []
    for tower in towers:
        for hidden, layout in zip(tower.hidden, tower.layouts[1:], strict=True):
            states = F.layer_norm(hidden.float(), hidden.shape[-1:])
            found.append(masked_mean(states, token_mask(states, layout, tower.valid)))
            found.append(states[:, : layout.prefix].flatten(1))
    return torch.cat(found, 1)


def fitted(kind: str, features: torch.Tensor, labels: torch.Tensor, outputs: int, strength: float) -> PooledReader:
    """A reader of pooled states (N, F), as scikit-learn fits it; the same for the same numbers.

    Args:
        kind: "single" (multinomial logistic regression), "multi" (a logistic regression for each label) or "float"
            (ridge regression). labels: (N,), or (N, C) for "multi". outputs: C. strength: scikit-learn's C, or
            1 / alpha for "float": less is more regularised.
    """
    reader = PooledReader(features.shape[1], outputs)
    mean, deviation = features.mean(0), features.std(0, unbiased=False)
    # A number that never changes says nothing: it is left out, not divided by zero.
    scale = torch.where(deviation > 1e-6, deviation.clamp(min=1e-6).reciprocal(), 0.0) / features.shape[1] ** 0.5
    x = ((features - mean) * scale).double().numpy()
    turned = None
    if x.shape[1] > len(x):
        # With squared regularisation the weights lie in the span of the examples: a smaller problem, the same answer.
        left, size, right = np.linalg.svd(x, full_matrices=False)
        x, turned = left * size, right
    weight, bias = _solve(kind, x, labels.numpy(), outputs, strength)
    weight = weight if turned is None else weight @ turned
    with torch.no_grad():
        reader.mean.copy_(mean)
        reader.scale.copy_(scale)
        reader.linear.weight.copy_(torch.from_numpy(weight))
        reader.linear.bias.copy_(torch.from_numpy(bias))
    return reader


def _solve(kind: str, x: np.ndarray, y: np.ndarray, outputs: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (C, F) and biases (C,)."""
    from sklearn.linear_model import Ridge

    if kind == "float":
        ridge = Ridge(alpha=1 / strength).fit(x, y)
        return ridge.coef_.reshape(outputs, -1), np.reshape(ridge.intercept_, -1)
    if kind == "multi":
        columns = [_logistic(x, column, strength) for column in y.astype(np.int64).T]
        return np.stack([w[0] for w, _ in columns]), np.stack([b[0] for _, b in columns])
    present = np.unique(y)
    if len(present) == 1:
        return np.zeros((outputs, x.shape[1])), np.where(np.arange(outputs) == present[0], 0.0, -10.0)
    weight, bias = _logistic(x, y, strength)
    if len(weight) == 1:  # scikit-learn has one row for two classes: the log odds of the second
        weight, bias = np.stack([-weight[0] / 2, weight[0] / 2]), np.stack([-bias[0] / 2, bias[0] / 2])
    whole = np.zeros((outputs, x.shape[1])), np.full(outputs, bias.min() - 10.0)  # a class that was never seen
    whole[0][present], whole[1][present] = weight, bias
    return whole


def _logistic(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(y)) == 1:  # nothing to separate: a label that is always there, or never
        return np.zeros((1, x.shape[1])), np.full(1, 10.0 if y[0] else -10.0)
    model = LogisticRegression(C=strength, max_iter=2000, tol=1e-6).fit(x, y)
    return model.coef_, model.intercept_


__all__ = ["STRENGTHS", "PooledReader", "fitted", "pooled_states"]
