"""How far training moved the norm parameters, and low-rank updates the weights, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.engine.low_rank import remove

OUTSIDE, AFTER = "outside the blocks", "after the blocks"


@dataclass(frozen=True)
class LayerDrift:
    """Parameters of one kind of one block, or of what lies outside or after all of them.

    Attributes:
        name: "0", "1", ... or OUTSIDE or AFTER. place: state-dict path of the block, "" outside of them.
        parameters: numbers in it. relative: ||p - p_0|| / ||p_0|| over all of them together (our choice: one ratio
            a layer is defined also where shifts start at zero). largest: key whose own change is the largest.
        change: ||p - p_0|| of that key.
    """

    name: str
    place: str
    parameters: int
    relative: float
    largest: str
    change: float


def norm_values(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Native key -> a copy of each norm parameter."""
    return {k: p.detach().cpu().double().clone() for k, p in adapter.norm_parameters().items()}


def updated_weights(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Native key -> weight of each layer that has a low-rank update: without it, and with it merged."""
    state = adapter.model.state_dict()
    start = {k.replace(".base_layer", ""): v.cpu() for k, v in state.items() if _updated(k)}
    if not start:
        return {}, {}
    plain = copy.deepcopy(adapter.model)
    remove(plain, merge=True)
    now = plain.state_dict()
    return start, {k: now[k].cpu() for k in start}


def _updated(key: str) -> bool:
    # peft keeps the plain layer, weight and bias, under this name; the bias gets no update.
    return ".base_layer" in key and key.endswith("weight")


def drift(adapter: Adapter, start: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]) -> list[LayerDrift]:
    """Drift of every layer that has such parameters, in execution order.

    Args:
        start, now: native key -> value, such as `norm_values` returns before and after training.
    """
    blocks = [name for name, _ in adapter.named_blocks]
    within = {key: [str(i) for i, block in enumerate(blocks) if key.startswith(f"{block}.")] for key in start}
    # Found by running the model, so only for what lies outside the blocks; low-rank updates never do.
    tail = set() if all(within.values()) else set(adapter.tail_parameters())
    order = [OUTSIDE, *map(str, range(len(blocks))), AFTER]
    keys: dict[str, list[str]] = {name: [] for name in order}
    for key, inside in within.items():
        keys[inside[0] if inside else AFTER if key in tail else OUTSIDE].append(key)
    places = dict(zip(order[1:-1], blocks, strict=True))
    return [_layer(name, places.get(name, ""), keys[name], start, now) for name in order if keys[name]]


def _layer(name: str, place: str, keys: list[str], start, now) -> LayerDrift:
    changes = {k: float((now[k] - start[k]).norm()) for k in keys}
    largest = max(changes, key=lambda k: changes[k])
    before = torch.cat([start[k].flatten() for k in keys])
    after = torch.cat([now[k].flatten() for k in keys])
    return LayerDrift(
        name=name,
        place=place,
        parameters=len(before),
        relative=float((after - before).norm() / before.norm().clamp(min=1e-12)),
        largest=largest,
        change=changes[largest],
    )


__all__ = ["AFTER", "OUTSIDE", "LayerDrift", "drift", "norm_values", "updated_weights"]
