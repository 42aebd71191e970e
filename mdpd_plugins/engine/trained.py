"""What of a backbone training may change, and the way back to how it came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import cast

import torch
from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.original import replacements
from mdpd_plugins.adapters.quantized import plain_keys, put_in, quantized_layers
from mdpd_plugins.engine.low_rank import inject, plain_names, plain_tensors, remove, updated_layers
from mdpd_plugins.engine.masters import Masters
from mdpd_plugins.engine.settings import Settings
from mdpd_plugins.registry.errors import ConfigError


class TrainedBackbone:
    """A backbone with what trains in it: its low-rank updates are put in, and only what trains asks for gradients.

    Args:
        adapter: the backbone. settings: what may be changed. distilled: layers with an alignment.
        restorable: keep a copy of what trains, so that `restore` can put it back.

    Attributes:
        parameters: native key -> parameter that training may change. low_rank: those of them that are low-rank updates.
        tail: those of them that learn at every step.
        original_keys: of the state dict, before.
    """

    def __init__(self, adapter: Adapter, settings: Settings, distilled: Iterable[int], *, restorable: bool = False):
        self.adapter, self._has_low_rank = adapter, settings.low_rank
        model = adapter.model
        self.original_keys = plain_keys(model)
        self._flags = {n: p.requires_grad for n, p in model.named_parameters()}
        self._originals = dict(model.named_parameters(remove_duplicate=False)) if restorable else {}
        self.low_rank: dict[str, nn.Parameter] = {}
        if settings.low_rank:
            self.low_rank = inject(adapter, everywhere=settings.backbone_update == "norm+low_rank", rank=settings.rank)
        self.parameters = trainable_parameters(adapter, settings, distilled, self.low_rank)
        self.tail = tail_parameters(adapter, settings, self.parameters)
        ids = {id(p) for p in self.parameters.values()}
        kept = {id(p): p for p in self._originals.values() if id(p) in ids}
        self._kept = [(p, p.detach().clone()) for p in kept.values()]
        for p in model.parameters():
            p.requires_grad_(id(p) in ids)

    @cached_property
    def head(self) -> dict[str, nn.Parameter]:
        """Native key -> parameter of the output layer, whether it trains or not. To be asked before weights are shared
        out: it takes a forward."""
        return self.adapter.head_parameters()

    @contextmanager
    def plain_flags(self) -> Iterator[None]:
        """Inside, parameters require gradients as they do in the plain model.

        PyTorch chooses kernels by that even under `no_grad` (it folds a batched product only for a matrix that
        requires one), and the last bits of an output depend on the kernel.
        """
        own = {p: p.requires_grad for p in self.adapter.model.parameters()}
        self._put_flags_back()
        try:
            yield
        finally:
            for parameter, flag in own.items():
                parameter.requires_grad_(flag)

    def merge(self, masters: Masters, *, quantized: bool = False) -> int:
        """Add the low-rank updates to the weights they belong to, and leave the plain model; how many were merged.

        Where weights were held in another type than their checkpoint's, or quantised, they go back to that one, and
        those that training did not change to its very values.

        Args:
            masters: of what was trained, which the model's own copies are rounded from.
            quantized: leave quantised layers so; where an update is added to one, the sum is quantised again.

        Raises:
            CheckpointError: it changed since it was read; nothing happens.
        """
        changed = list(self.parameters.values())
        found = [
            replacements(original, name, plain_tensors(part), plain_names(part), changed)
            for name, part, original in ([] if quantized else self.adapter.originals())
        ]
        pairs = [pair for one in found for pair in one.tensors]
        types = {id(tensor): data.dtype for tensor, data in pairs}
        low_rank = {id(p) for p in self.low_rank.values()}
        for tensor, data in pairs:
            tensor.data = data
        model = self.adapter.model
        put_in(model, {layer: plain for one in found for layer, plain in one.layers.items()})
        still, updated = plain_names(model), updated_layers(model)
        # Random weights are in no checkpoint: those that were worked with are the model's.
        plain = [layer for name, layer in still.items() if not quantized or name in updated]
        put_in(model, {layer: layer.plain() for layer in plain})
        for parameter, master in masters.pairs():
            own = torch.float32 if id(parameter) in low_rank else types.get(id(parameter), parameter.dtype)
            parameter.data = master.data.to(own)
        # Whoever held the weights quantised may have no room for all of them.
        in_files = any(one.layers for one in found)
        merged = remove(model, merge=True, in_files=in_files) if self._has_low_rank else 0
        if quantized:
            linear = {name: cast(nn.Linear, model.get_submodule(name)) for name in still.keys() & updated}
            put_in(model, {linear[name]: still[name].like(linear[name]) for name in linear})
        self.release()
        return merged

    def restore(self) -> None:
        """Leave the model exactly as it came: the very parameters with their very values, and no update.

        Raises:
            ConfigError: no copy was kept.
        """
        if not self._originals:
            raise ConfigError("the backbone's weights before training were not kept, so they cannot be restored")
        if self._has_low_rank:
            remove(self.adapter.model, merge=False)
        with torch.no_grad():
            for parameter, value in self._kept:
                parameter.copy_(value)
        for name, parameter in self._originals.items():
            owner, _, attribute = name.rpartition(".")
            self.adapter.model.get_submodule(owner)._parameters[attribute] = parameter
        self.release()

    def release(self) -> None:
        """Flags as they were, and no gradients left."""
        self._put_flags_back()
        for parameter in self.adapter.model.parameters():
            parameter.grad = None

    def _put_flags_back(self) -> None:
        for name, parameter in self.adapter.model.named_parameters():
            # One that was not there at first is left alone; fading reports it, as a key that differs.
            parameter.requires_grad_(self._flags.get(name, parameter.requires_grad))


def trainable_parameters(
    adapter: Adapter, settings: Settings, distilled: Iterable[int], low_rank: Mapping[str, nn.Parameter]
) -> dict[str, nn.Parameter]:
    """Native key -> backbone parameter that training may change, under `backbone_update` and `norm_gradient`.

    - exact: every norm parameter and the head.
    - last_k: norms of the last k blocks and after them, and the head.
    - local: norms of the distilled blocks, of the last block and after it, and the head.
    - head: the head alone; the backbone is frozen. Where the output layer is the input embedding, a language model has
      no head of its own: then the final norm.

    Args:
        distilled: layers with an alignment. low_rank: parameters of low-rank updates, if there are any.

    Raises:
        ConfigError: only what is behind the blocks is to be trained, and there is nothing.
    """
    if settings.backbone_update == "none":
        return {}
    head = adapter.head_parameters()
    if settings.backbone_update == "head" or settings.norm_gradient == "head":
        if not (behind := head or adapter.tail_parameters()):
            raise ConfigError(
                f"{adapter.name} has no parameters of its own behind its blocks: let more be trained than the output "
                f"layer, with distill.backbone_update='norm' and distill.norm_gradient='exact'"
            )
        return behind
    if settings.backbone_update == "all":
        if any(quantized_layers(adapter.model)):
            raise ConfigError(
                f"{adapter.name} is held quantised, and distill.method='full' trains every weight: set "
                f"backbone.quantization='none', or a method that leaves the linear layers frozen, such as "
                f"'mdpd_low_rank'"
            )
        return adapter.parameters()
    if settings.backbone_update == "lora":
        return {**low_rank, **head}
    norms = adapter.norm_parameters()
    if settings.norm_gradient == "last_k":
        norms = _norms_of(adapter, norms, [i for layers in adapter.towers for i in layers[-settings.last_k :]])
    elif settings.norm_gradient == "local":
        norms = _norms_of(adapter, norms, {*distilled, *adapter.last_layers})
    return {**norms, **low_rank, **head}


def tail_parameters(
    adapter: Adapter, settings: Settings, trainable: Mapping[str, nn.Parameter]
) -> dict[str, nn.Parameter]:
    """Those of `trainable` that learn at every step: behind the last block, and in the last `tail_blocks` blocks.

    None where all of them do.
    """
    if settings.tail_blocks is None or settings.backbone_every == 1 or not trainable:
        return {}
    tail = {id(p) for p in adapter.tail_parameters().values()}
    names = [name for name, _ in adapter.named_blocks]
    last = [i for layers in adapter.towers for i in layers[max(0, len(layers) - settings.tail_blocks) :]]
    ends = tuple(f"{names[i]}." for i in last)
    return {k: p for k, p in trainable.items() if id(p) in tail or k.startswith(ends)}


def _norms_of(adapter: Adapter, norms: dict[str, nn.Parameter], layers: Iterable[int]) -> dict[str, nn.Parameter]:
    names = [name for name, _ in adapter.named_blocks]
    chosen = tuple(f"{names[i]}." for i in layers)
    every = tuple(f"{name}." for name in names)
    tail = adapter.tail_parameters()
    return {k: p for k, p in norms.items() if k.startswith(chosen) or (k in tail and not k.startswith(every))}


__all__ = ["TrainedBackbone", "tail_parameters", "trainable_parameters"]
