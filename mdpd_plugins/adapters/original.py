"""The checkpoint's own weights, read again: what training held in another type, or quantised, is as it was there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from mdpd_plugins.adapters.built import RANDOM, Built
from mdpd_plugins.adapters.quantized import linear_at
from mdpd_plugins.adapters.quantized_linear import QuantizedLinear
from mdpd_plugins.registry.errors import CheckpointError


@dataclass(frozen=True)
class Original:
    """A backbone's checkpoint, for whoever holds its weights in another type, or quantised.

    Attributes:
        dtype: the checkpoint's type.
        build: builds the backbone once more, in that type.
        drawn: the state of PyTorch's generator before it was first built, so that what no checkpoint holds (a part of
            the model that is new) is drawn alike.
    """

    dtype: torch.dtype
    build: Callable[[], Built]
    drawn: torch.Tensor

    def read(self, name: str) -> nn.Module:
        """The backbone as its checkpoint has it.

        Raises:
            CheckpointError: the checkpoint is gone, or another one.
        """
        with torch.random.fork_rng():
            torch.set_rng_state(self.drawn)
            built = self.build()
        if built.origin.startswith(RANDOM):
            raise CheckpointError(
                f"the weights that {name} was built from are not to be had any more ({built.origin}), and an export is "
                f"to hold what training did not change as it is there, in {self.dtype}: put them back"
            )
        return built.model


@dataclass(frozen=True)
class Replacements:
    """What makes a model of its checkpoint's types, with the checkpoint's values where training changed none.

    Attributes:
        tensors: pairs of a parameter or buffer of the model and what its `data` is to be.
        layers: quantised layer -> the checkpoint's plain one, for its place.
    """

    tensors: list[tuple[torch.Tensor, torch.Tensor]]
    layers: dict[QuantizedLinear, nn.Module]


def replacements(
    original: Original,
    name: str,
    ours: Mapping[str, torch.Tensor],
    layers: Mapping[str, QuantizedLinear],
    changed: Collection[torch.Tensor],
) -> Replacements:
    """What gives a model's unchanged weights and buffers the checkpoint's values and type, and the others its type.

    Args:
        name: of the backbone, for messages. ours: key -> parameter or stored buffer of the model. layers: name of a
            layer in the plain model -> the quantised one in its place. changed: those of `ours` that training may have
            changed.

    Raises:
        CheckpointError: the checkpoint is not the one that the model was built from.
    """
    source = original.read(name)
    theirs = stored_tensors(source)
    trained = {id(p) for p in changed}
    plain = dict[QuantizedLinear, nn.Module]()
    for key, layer in layers.items():
        if (linear := linear_at(source, key)) is None or not layer.is_of(linear):
            raise CheckpointError(_other(name, key))
        plain[layer] = linear
    packed = {id(t) for layer in layers.values() for t in layer.kept}
    pairs = []
    for key, tensor in ours.items():
        if id(tensor) in packed:
            continue
        if key not in theirs or theirs[key].shape != tensor.shape:
            raise CheckpointError(_other(name, key))
        if id(tensor) not in trained and not torch.equal(theirs[key].to(tensor.device, tensor.dtype), tensor):
            raise CheckpointError(_other(name, key))
        data = (tensor if id(tensor) in trained else theirs[key]).data.to(tensor.device, theirs[key].dtype)
        pairs.append((tensor, data))
    for layer, linear in plain.items():
        linear.to(layer.packed.device)
        linear.bias = layer.bias  # that of ours, which may train, and is among the pairs
    return Replacements(pairs, plain)


def stored_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What a model's checkpoint holds, each tensor once, by its first key: the very tensors of the model."""
    kept = {k for k, _ in model.named_parameters()} | model.state_dict().keys()
    return {k: v for k, v in [*model.named_parameters(), *model.named_buffers()] if k in kept}


def _other(name: str, key: str) -> str:
    return (
        f"the checkpoint of {name} has changed since training began: {key} is not what was trained beside. An export "
        f"is to hold what training did not change as the checkpoint has it, so put the right one back"
    )


__all__ = ["Original", "Replacements", "replacements", "stored_tensors"]
