"""Which layers are shallow and which deep: given, as a share of the depth, or measured from attention maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mdpd_plugins.adapters.capture import check_layers
from mdpd_plugins.adapters.layout import fit_mask
from mdpd_plugins.engine.parts import Piece, whole_piece


def resolve_layers(given: Sequence[int] | float, count: int, *, from_end: bool) -> list[int]:
    """Layer indices from a list, or from a share of the depth counted from the start or the end.

    Raises:
        ConfigError: an index the backbone does not have.
    """
    if isinstance(given, float):
        size = round(given * count)
        return list(range(count - size, count)) if from_end else list(range(size))
    return check_layers(given, count)


def agreement(
    teacher: torch.Tensor,
    student: torch.Tensor,
    valid: torch.Tensor | None = None,
    piece: Piece | None = None,
) -> torch.Tensor:
    """How alike two attention maps are: mean cosine between rows of their head averages, a scalar in 0..1.

    Args:
        teacher: (B, H, T, T). student: (B, H', T, T). valid: (B', T) bool; padded query rows do not count.
        piece: which samples of this process these are, if not all; `valid` is of all B' of them, and so is the mean.
    """
    piece = piece or whole_piece(len(teacher))
    rows = F.cosine_similarity(teacher.float().mean(1), student.float().mean(1), dim=-1)
    fitted = fit_mask(valid, rows.shape[1])
    counted = rows.new_ones((piece.part.size, rows.shape[1]), dtype=torch.bool) if fitted is None else fitted
    return rows.masked_fill(~counted[piece.rows], 0.0).sum() / piece.count(f"rows_{rows.shape[1]}", counted)


def change_point(values: Sequence[float]) -> int:
    """Index k in 1..len-1 at which `values` falls apart: the split with the least squared error of two means.

    Layers below k are shallow. Our choice: a single change point (Otsu's criterion on the sequence) needs no
    threshold, and layers are ordered by depth already.
    """
    x = torch.tensor(list(values), dtype=torch.float64)
    if len(x) < 2:
        return len(x)
    errors = [
        float(((x[:k] - x[:k].mean()) ** 2).sum() + ((x[k:] - x[k:].mean()) ** 2).sum()) for k in range(1, len(x))
    ]
    return 1 + min(range(len(errors)), key=errors.__getitem__)


__all__ = ["agreement", "change_point", "resolve_layers"]
