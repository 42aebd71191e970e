"""From a registered name, or a live model, to an adapter."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from mdpd_plugins.adapters.base import Adapter
from mdpd_plugins.adapters.origin import RANDOM, origin_of, record_origin
from mdpd_plugins.registry import Registered, load_catalogue
from mdpd_plugins.registry.errors import ConfigError, PluginError


def build_backbone(name: str, *, pretrained: str | None = "auto", num_classes: int, **options: Any) -> Adapter:
    """Build a registered backbone with an output layer of `num_classes`.

    Args:
        name: `<zoo>/<model>`; `mdpd list-backbones` prints them.
        pretrained: "auto", a checkpoint, or None for random initialisation; see the zoo's `build`.
        num_classes: size of the output layer.
        options: passed to the zoo's `build`.

    Raises:
        UnknownBackboneError: no plugin registered the name.
        ConfigError: `num_classes` below 1, or an option the backbone does not take.
        CheckpointError: an explicit checkpoint cannot be used.
    """
    if num_classes < 1:
        raise ConfigError(f"num_classes={num_classes}: a backbone needs at least one output")
    registered = load_catalogue().get(name)
    build = registered.load_build()
    parameters = inspect.signature(build).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [k for k in options if k not in parameters and not takes_any]
    if unknown:
        raise ConfigError(f"{name} takes no option {unknown[0]!r}; it takes {sorted(parameters)}")
    named = {"name": name} if "name" in parameters else {}
    model = build(pretrained=pretrained, num_classes=num_classes, **named, **options)
    if not isinstance(model, nn.Module):
        raise PluginError(
            f"{registered.spec.build} of {name} (from {registered.origin}) returned {type(model).__name__}; an "
            f"nn.Module was expected"
        )
    if origin_of(model) == "unknown":
        record_origin(
            model, f"{RANDOM} (asked for)" if pretrained is None else f"its plugin, pretrained={pretrained!r}"
        )
    return _adapter(model, registered)


def _adapter(model: nn.Module, registered: Registered) -> Adapter:
    # A two-tower backbone's modality is that of the tower it was built for; its adapter knows.
    modality = registered.spec.modality if registered.spec.modality in ("image", "text") else ""
    make = registered.load_adapter()
    if make is None:
        return Adapter(model, name=registered.name, modality=modality or "image")
    adapter = make(model, name=registered.name, modality=modality)
    if not isinstance(adapter, Adapter):
        raise PluginError(
            f"{registered.spec.adapter} of {registered.name} (from {registered.origin}) gave "
            f"{type(adapter).__name__}; a subclass of mdpd_plugins.adapters.Adapter was expected"
        )
    return adapter


def adapt(model: nn.Module) -> Adapter:
    """An adapter for a live model: a plugin's if one knows it, the general structural one otherwise."""
    return load_catalogue().adapt(model, Adapter) or Adapter(model)


def describe(name: str, **options: Any) -> dict[str, Any]:
    """Facts about a registered backbone, read off a built one with random weights."""
    return build_backbone(name, pretrained=None, num_classes=10, **options).describe()


__all__ = ["adapt", "build_backbone", "describe"]
