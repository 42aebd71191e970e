"""From a registered name, or a live model, to an adapter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import nn

from mdpd_plugins.adapters.adapter import Adapter
from mdpd_plugins.adapters.built import RANDOM, Built, as_built
from mdpd_plugins.adapters.live import check_plain, unwrapped
from mdpd_plugins.adapters.original import Original
from mdpd_plugins.adapters.quantized import NONE, check_quantization, quantize_blocks
from mdpd_plugins.adapters.storage.precision import AUTO, cast, chosen_type, weight_type
from mdpd_plugins.adapters.storage.trust import unattended
from mdpd_plugins.registry import MODALITIES, Registered, load_catalogue
from mdpd_plugins.registry.errors import ConfigError, MDPDError, PluginError, closest
from mdpd_plugins.shortages import out_of_memory


def build_backbone(
    name: str,
    *,
    pretrained: str | None = "auto",
    num_classes: int,
    dtype: str = AUTO,
    quantization: str = NONE,
    **options: Any,
) -> Adapter:
    """Build a registered backbone with an output layer of `num_classes`.

    Args:
        name: `<zoo>/<model>`; `mdpd list-backbones` prints them.
        pretrained: "auto", a checkpoint, or None for random initialisation; see the zoo's `build`.
        num_classes: size of the output layer.
        dtype: of the weights while they are trained: "auto" (the checkpoint's; float32 for random ones), "float32",
            "bfloat16" or "float16". `fade` gives an export the checkpoint's type in any case.
        quantization: of the linear layers in the blocks while it is trained: "none", "int8" or "nf4" (4 bits). `fade`
            gives an export the checkpoint's own weights in any case.
        options: passed to the zoo's `build`.

    Raises:
        UnknownBackboneError: no plugin registered the name.
        ConfigError: `num_classes` below 1, an option the backbone does not take, or another dtype or quantization.
        CheckpointError: an explicit checkpoint cannot be used.
        MissingDependencyError: quantised weights without bitsandbytes.
        CapabilityError: there is nothing to quantise.
    """
    if num_classes < 1:
        raise ConfigError(f"num_classes={num_classes}: a backbone needs at least one output")
    check_quantization(quantization)
    wanted, registered = chosen_type(dtype), load_catalogue().get(name)
    build = registered.load_build()
    parameters = inspect.signature(build).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [k for k in options if k not in parameters and not takes_any]
    if unknown:
        raise ConfigError(f"{name} takes no option {unknown[0]!r}; it takes {sorted(parameters)}")
    given = {"pretrained": pretrained, "num_classes": num_classes, **options}
    if "name" in parameters:
        given["name"] = name

    def built_as(held: torch.dtype | None) -> Built:
        with explained(f"{name} cannot be built", {"backbone.options": options} if options else {}), unattended():
            built = as_built(build(**given, **({"dtype": held} if "dtype" in parameters else {})))
        if "dtype" in parameters or not isinstance(built.model, nn.Module):
            return built
        stored = built.stored or weight_type(built.model)
        cast(built.model, held or (stored if stored != weight_type(built.model) else None))
        return replace(built, stored=stored)

    smaller = quantization != NONE
    drawn = torch.get_rng_state() if wanted is not None or smaller else None
    built = built_as(wanted)
    if not isinstance(built.model, nn.Module):
        raise PluginError(
            f"{registered.spec.build} of {name} (from {registered.origin}) returned {type(built.model).__name__}; an "
            f"nn.Module was expected, or a Built around one"
        )
    if not built.origin:
        origin = f"{RANDOM} (asked for)" if pretrained is None else f"its plugin, pretrained={pretrained!r}"
        built = replace(built, origin=origin)
    adapter = _adapter(built, registered)
    adapter.options = options
    if built.finish is not None:
        built.finish(adapter)
    if smaller:
        quantize_blocks(adapter.model, dict(adapter.named_blocks), quantization, name=name)
    other_type = built.stored not in (None, adapter.dtype)
    if drawn is not None and not adapter.random and (other_type or smaller):

        def again() -> Built:
            other = built_as(None)
            if other.finish is not None:
                other.finish(_adapter(other, registered))
            return other

        adapter.original = Original(built.stored or adapter.dtype, again, drawn)
    return adapter


@contextmanager
def explained(failed: str, asked: Mapping[str, Any]) -> Iterator[None]:
    """Inside, an error of a library becomes a ConfigError that says what was asked of it.

    Libraries check what they are given in their own ways, and some not at all until it does not work.

    Args:
        failed: what did not work. asked: configuration key -> value; nothing if all is the library's own default,
            whose errors are no fault of a configuration.
    """
    try:
        yield
    except (MDPDError, OSError):
        raise
    except Exception as error:
        if not asked or out_of_memory(error):
            raise
        said = ", ".join(f"{key}={_in_short(value)}" for key, value in asked.items())
        raise ConfigError(
            f"{failed} with {said}: {type(error).__name__}: {_in_short(error)}. Correct or leave out what was asked for"
        ) from error


def _in_short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def _adapter(built: Built, registered: Registered) -> Adapter:
    # A two-tower backbone's modality is that of the tower it was built for; its adapter knows.
    modality = registered.spec.modality if registered.spec.modality in ("image", "text") else ""
    make = registered.load_adapter()
    if make is None:
        adapter = Adapter(built, name=registered.name, modality=modality or "image")
    else:
        adapter = make(built, name=registered.name, modality=modality)
    if not isinstance(adapter, Adapter):
        raise PluginError(
            f"{registered.spec.adapter} of {registered.name} (from {registered.origin}) gave "
            f"{type(adapter).__name__}; a subclass of mdpd_plugins.adapters.Adapter was expected"
        )
    if registered.spec.load_with:
        adapter.load_with = registered.spec.load_with
    adapter.settle_types()
    return adapter


def adapt(
    model: nn.Module,
    *,
    num_classes: int | None = None,
    modality: str = "",
    example_inputs: Any = None,
    transform: Callable[[Image.Image], torch.Tensor] | None = None,
) -> Adapter:
    """An adapter for a live model: a plugin's if one knows it, the general structural one otherwise.

    Args:
        num_classes: outputs of a fresh output layer, also for a model that has none yet; None keeps the model's own.
        modality: "image" or "text", where the model does not say: which tower of two is meant.
        example_inputs: inputs that the model takes, as `Adapter.as_inputs` has them, where its own size is not to be
            seen in it: a tensor (B, C, H, W), or a mapping of tensors.
        transform: what prepares one picture for it (`PIL.Image` in RGB -> (C, H, W)), where the model does not carry
            that: torchvision's do not, and `weights.transforms()` is it.

    Raises:
        ConfigError: `model` is no module, or an example that is no inputs.
        CapabilityError: it has no repeated blocks, no output layer that could be replaced, or weights that cannot be
            trained (see `live.check_plain`).
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"adapt() takes a live torch.nn.Module, and {type(model).__name__} was given")
    model = unwrapped(model)
    check_plain(model)
    adapter = load_catalogue().adapt(model, Adapter) or Adapter(model)
    if modality and modality != adapter.modality:
        if modality not in MODALITIES:
            raise ConfigError(f"there is no modality {modality!r}; {closest(modality, MODALITIES)}")
        adapter = type(adapter)(model, name=adapter.name, modality=modality)
    if example_inputs is not None:
        adapter.given_example = adapter.as_inputs(example_inputs, example=True)
    if transform is not None:
        adapter.given_transform = transform
        _ = adapter.image_transform()  # refused here if it makes pictures of different sizes
    if num_classes is not None:
        given = adapter.given_example
        adapter = adapter.with_outputs(num_classes)
        adapter.given_example = given
    adapter.settle_types()
    return adapter


def describe(name: str, **options: Any) -> dict[str, Any]:
    """Facts about a registered backbone, read off a built one with random weights."""
    return build_backbone(name, pretrained=None, num_classes=10, **options).describe()


__all__ = ["adapt", "build_backbone", "describe", "explained"]
