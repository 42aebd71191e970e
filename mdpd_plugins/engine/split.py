"""Which layers are shallow and which deep: given, as a share of the depth, or measured from attention maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.inspection.capture import check_layers
from mdpd_plugins.adapters.inspection.layout import fit_mask
from mdpd_plugins.engine.batch_parts import Piece, whole_piece
from mdpd_plugins.engine.settings import Settings
from mdpd_plugins.registry.errors import ConfigError

UNDECIDED = -1


class LayerSplit(nn.Module):
    """Which layers are imitated and which generated. Buffers keep a measured split over a resume.

    Attributes:
        imitate, generate: layers that get an alignment for it. Automatically split ones get both, and one is used.
        tower_of: the tower of each layer.

    Raises:
        ConfigError: a layer that the backbone does not have, or "auto" for a backbone of two towers.
        CapabilityError: "auto" for a backbone without global attention.
    """

    split: torch.Tensor
    agreements: torch.Tensor
    measured: torch.Tensor

    def __init__(self, settings: Settings, adapter: Adapter):
        super().__init__()
        self.settings = settings
        towers, count = adapter.towers, len(adapter.blocks())
        # Layers below the split are shallow; measured once if the split is automatic.
        self.register_buffer("split", torch.full((), UNDECIDED, dtype=torch.int64))
        self.register_buffer("agreements", torch.zeros(count, dtype=torch.float64))
        # Of the current step alone, which may come in pieces.
        self.register_buffer("measured", torch.zeros(count, dtype=torch.float64), persistent=False)
        self.tower_of = [tower for tower, layers in enumerate(towers) for _ in layers]
        if settings.automatic:
            if len(towers) > 1:
                raise ConfigError(
                    f"{adapter.name} has {len(towers)} towers, and 'auto' finds one split: give distill.shallow and "
                    f"distill.deep as lists, counted in each tower, or as a share of the depth"
                )
            imitate, generate = list(range(count)), list(range(count)) if settings.hierarchy else []
            if settings.distils_features:
                adapter.attention_heads()  # a capability error now rather than after the warm-up
        else:
            imitate = resolve_layers(settings.shallow, towers, from_end=False)  # type: ignore[arg-type]
            generate = resolve_layers(settings.deep, towers, from_end=True)  # type: ignore[arg-type]
            if not settings.hierarchy:
                imitate, generate = sorted({*imitate, *generate}), []
        self.imitate, self.generate = imitate, generate

    @property
    def distilled(self) -> set[int]:
        """Layers with an alignment."""
        return {*self.imitate, *self.generate}

    @property
    def undecided(self) -> bool:
        """Whether a split is to be measured and has not been."""
        return self.settings.automatic and self.settings.distils_features and int(self.split) == UNDECIDED

    def chosen(self) -> tuple[list[int], list[int]]:
        """(layers imitated, layers generated) now. Before a split is measured, all are imitated."""
        if not self.settings.automatic:
            return self.imitate, self.generate
        split = int(self.split)
        if split == UNDECIDED or not self.settings.hierarchy:
            return self.imitate, []
        return [i for i in self.imitate if i < split], [i for i in self.generate if i >= split]

    def measure(self, maps: Sequence[tuple[torch.Tensor, torch.Tensor]], valid, piece: Piece) -> None:
        """Add what one piece of a step says.

        Args:
            maps: of each layer, the backbone's and the side network's, (B, H, T, T). valid: mask of each tower.
        """
        masks = (valid[tower] for tower in self.tower_of)
        found = [agreement(mine, its, mask, piece) for (mine, its), mask in zip(maps, masks, strict=True)]
        self.measured += torch.stack(found)

    def settle(self, *, last: bool) -> None:
        """End a step; after the last one the split is decided."""
        all_reduce(self.measured, op="mean")  # all processes must come to the same split
        self.agreements += self.measured
        self.measured.zero_()
        if last:
            self.split.fill_(change_point(self.agreements.tolist()))


def resolve_layers(given: Sequence[int] | float, towers: Sequence[range], *, from_end: bool) -> list[int]:
    """Layer indices from a list, or from a share of the depth counted from the start or the end.

    Args:
        towers: the layers of each tower; what is given is counted in each of them.

    Raises:
        ConfigError: an index that a tower does not have.
    """
    found: list[int] = []
    for layers in towers:
        if isinstance(given, float):
            size = round(given * len(layers))
            found += layers[len(layers) - size :] if from_end else layers[:size]
        else:
            found += [layers[i] for i in check_layers(given, len(layers))]
    return found


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


__all__ = ["LayerSplit", "agreement", "change_point", "resolve_layers"]
