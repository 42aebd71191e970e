"""Small MMPretrain classifiers: fewer blocks and channels in the config's backbone, a smaller image."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import torch

from mdpd_plugins.reduction.search import cut, first_working

SIZES = (64, 224, None)
FORMS = ((2, 4), (2, 2), (2, 1), (None, 4), (None, 1))


def small(name: str) -> dict[str, dict[str, Any]]:
    """Options of `build` for `mmpretrain/<name>`."""
    from mmpretrain.apis.model import ModelHub

    model = ModelHub.get(name.partition("/")[2]).config.model
    return {"": first_working(name, _forms(model))}


def _forms(model) -> Iterator[dict[str, Any]]:
    from mmpretrain.registry import MODELS

    backbone = dict(model.get("backbone") or {})
    kind = MODELS.get(backbone.get("type", "")) if isinstance(backbone.get("type"), str) else None
    fields = {**_defaults(kind), **backbone}
    arch = _table(kind).get(fields.get("arch")) if not isinstance(fields.get("arch"), dict) else fields["arch"]
    for depth, factor in FORMS:
        changes = cut({k: v for k, v in fields.items() if k != "arch"}, depth, factor)
        if isinstance(arch, dict) and (smaller := cut(dict(arch), depth, factor)):
            changes["arch"] = {**arch, **smaller}  # not all classes take an architecture that is not a name
        for size in SIZES:
            options: dict[str, Any] = {"backbone": changes} if changes else {}
            if size is not None:
                options["image_size"] = size
            yield _fitted(model, kind, backbone, changes, options, size)


def _defaults(kind) -> dict[str, Any]:
    """Default arguments of a backbone class and its bases."""
    found: dict[str, Any] = {}
    for c in reversed(inspect.getmro(kind)) if kind else ():
        if "__init__" in vars(c) and c is not object:
            for key, p in inspect.signature(c.__init__).parameters.items():
                if isinstance(p.default, (int, list, tuple, str)) and not isinstance(p.default, bool):
                    found[key] = p.default
    return found


def _table(kind) -> dict[Any, Any]:
    """MMPretrain's classes keep their named architectures in one of these."""
    for attribute in ("arch_zoo", "arch_settings"):
        table = getattr(kind, attribute, None)
        if isinstance(table, dict):
            return {k: v for k, v in table.items() if isinstance(v, dict)}
    return {}


def _fitted(model, kind, backbone, changes, options: dict[str, Any], size: int | None) -> dict[str, Any]:
    """`options` with the head's and neck's input widths set to what the smaller backbone puts out."""
    config = {**copy.deepcopy(backbone), **copy.deepcopy(changes)}
    config.pop("init_cfg", None)
    head = model.get("head") or {}
    old = head.get("in_channels")
    if old is None or kind is None or isinstance(old, (list, tuple)):
        return options
    try:
        from mmpretrain.registry import MODELS

        if size is not None and "img_size" in inspect.signature(kind.__init__).parameters:
            config["img_size"] = size
        net = MODELS.build(config)
        for module in net.modules():
            module.training = False
        neck = model.get("neck") or []
        necks = [MODELS.build(copy.deepcopy(n)) for n in (neck if isinstance(neck, (list, tuple)) else [neck])]
        side = size or 224
        with torch.no_grad():
            out = net(torch.zeros(2, 3, side, side))
            for part in necks:
                out = part(out) if part.__class__.__name__ != "ClsBatchNormNeck" else out
        last = out[-1] if isinstance(out, (tuple, list)) else out
        last = last[-1] if isinstance(last, (tuple, list)) else last
        new = last.shape[1] if last.dim() != 3 else last.shape[-1]
    except Exception:  # first_working meets the same refusal and goes on
        return options
    if new == old:
        return options
    fitted = {**options, "head": {"in_channels": new}}
    if isinstance(model.get("neck"), dict):
        widths = {k: new for k, v in model.neck.items() if v == old and isinstance(v, int)}
        if widths:
            fitted["neck"] = widths
    return fitted


__all__ = ["small"]
