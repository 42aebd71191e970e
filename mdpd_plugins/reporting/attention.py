"""Attention maps of both paths, layer by layer, and how alike they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.inspection.capture import capture
from mdpd_plugins.engine.split import agreement
from mdpd_plugins.registry.errors import CapabilityError
from mdpd_plugins.reporting.pictures import heat_map
from mdpd_plugins.training.experiment import Experiment

MEASURED_ON = 16  # examples; maps of all layers are held at once
DRAWN = 2  # examples whose maps are shown


@dataclass(frozen=True)
class Attention:
    """Attention maps of a few examples of the evaluation split.

    Attributes:
        agreements: one number a layer, as the automatic split measures it; empty without a side network.
        split_agreements: those that the split was settled with, empty where it was given or is not settled yet.
        imitated, generated: layers whose features the side network learns, and how.
        words: for each example drawn the tokens that rows and columns of its maps stand for; empty for pictures.
        maps: for each example drawn, for each layer, path -> data URI of the head-averaged map.
        examples: how many were measured.
    """

    agreements: list[float]
    split_agreements: list[float]
    imitated: list[int]
    generated: list[int]
    maps: list[list[dict[str, str]]]
    examples: int
    words: list[list[str]] = field(default_factory=list)

    def role(self, layer: int) -> str:
        """What feature distillation does at a layer."""
        return "imitated" if layer in self.imitated else "generated" if layer in self.generated else "not distilled"


def measure_attention(experiment: Experiment) -> Attention | str:
    """Attention of both paths at the loaded checkpoint, or why there is none to show."""
    distiller, adapter = experiment.distiller, experiment.adapter
    loader: Any = experiment.eval_loader
    count = min(MEASURED_ON, len(loader.dataset))
    step = max(1, len(loader.dataset) // count)
    batch = distiller.data_preprocessor(loader.collate_fn([loader.dataset[i * step] for i in range(count)]))
    side_blocks = distiller.side.blocks() if distiller.side is not None else []
    try:
        with adapter.capture(attention=True) as seen, capture(side_blocks, attention=True) as student:
            distiller(batch["inputs"])
    except CapabilityError:
        return (
            f"{adapter.name} computes no attention over all its tokens (it is convolutional, or "
            f"attends within windows), so there are no maps to compare."
        )
    masks = adapter.attention_masks(batch["inputs"])
    valids = [mask for layers, mask in zip(adapter.towers, masks, strict=True) for _ in layers]
    layers = [(seen.attention[i], student.attention.get(i), valid) for i, valid in enumerate(valids)]
    agreements: list[float] = []
    maps: list[list[dict[str, str]]] = [[{} for _ in layers] for _ in range(min(DRAWN, count))]
    for i, (backbone, side, valid) in enumerate(layers):
        if side is not None:
            agreements.append(float(agreement(backbone, side, valid)))
        for sample, row in enumerate(maps):
            for path, weights in (("backbone", backbone), ("side", side)):
                if weights is not None:
                    row[i][path] = heat_map(_real(weights, valid, sample))
    imitated, generated = distiller.layers.chosen() if distiller.settings.distils_features else ([], [])
    past = []
    if distiller.settings.automatic and distiller.settings.distils_features and not distiller.layers.undecided:
        totals = distiller.layers.get_buffer("agreements").tolist()
        past = [total / distiller.settings.auto_batches for total in totals]
    words = [_words(adapter, batch["inputs"], valids[0], sample) for sample in range(len(maps))]
    return Attention(agreements, past, list(imitated), list(generated), maps, count, words)


def _words(adapter: Adapter, inputs: dict[str, torch.Tensor], valid: torch.Tensor | None, sample: int) -> list[str]:
    ids = inputs.get("input_ids")
    if adapter.modality != "text" or ids is None:
        return []
    kept = ids[sample].cpu() if valid is None else ids[sample][valid[sample]].cpu()
    return adapter.words(kept.tolist())


def _real(weights: torch.Tensor, valid: torch.Tensor | None, sample: int) -> torch.Tensor:
    # The head average of one example's map, without its padding.
    mean = weights[sample].float().mean(0).cpu()
    if valid is None or valid.shape[1] != len(mean):
        return mean
    kept = valid[sample].cpu().nonzero().flatten()
    return mean[kept][:, kept]


__all__ = ["Attention", "measure_attention"]
