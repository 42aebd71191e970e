"""A fresh output layer in a model, of the kind that it has."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from mdpd_plugins.registry.errors import CapabilityError


def replace_output_layer(model: nn.Module, head: Iterable[str], num_outputs: int, name: str) -> None:
    """Give a model an output layer of `num_outputs`.

    Args:
        head: keys of the parameters behind its blocks. name: of the model, for errors.

    Raises:
        CapabilityError: no linear layer or convolution is known to be this model's output layer.
    """
    owners = {key.rpartition(".")[0] for key in head}
    layers = {n: m for n, m in model.named_modules() if n in owners and isinstance(m, (nn.Linear, nn.Conv2d))}
    if not layers:
        raise CapabilityError(
            f"{name} has no linear layer or convolution behind its blocks that could be its output layer; "
            f"build it with num_classes={num_outputs}"
        )
    last = list(layers)[-1]
    parent = last.rpartition(".")[0]
    for key, old in layers.items():
        # A distilled DeiT averages two output layers that stand side by side.
        beside = key.rpartition(".")[0] == parent and old.weight.shape == layers[last].weight.shape
        if key == last or beside:
            new = _with_outputs(old, num_outputs).train(old.training)
            setattr(model.get_submodule(parent), key.rpartition(".")[2], new.to(old.weight.device, old.weight.dtype))


def _with_outputs(old: nn.Linear | nn.Conv2d, num_outputs: int) -> nn.Module:
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, num_outputs, bias=old.bias is not None)
    # SqueezeNet's and ResNet-like networks' output layer where a convolution reads every position.
    size, stride, padding = old.kernel_size, old.stride, old.padding
    return nn.Conv2d(old.in_channels, num_outputs, size, stride, padding, bias=old.bias is not None)  # type: ignore[arg-type]


__all__ = ["replace_output_layer"]
