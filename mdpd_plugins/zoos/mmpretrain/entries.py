"""What MMPretrain's model index says of an entry, as the configuration of an image classifier.

About 480 of its entries are classifiers. The others hold an image encoder inside something else: a pretraining
algorithm, a retriever, a model of images and text, a backbone without a head. Those become MMPretrain's own
`ImageClassifier` around that encoder, with a new linear head, so that the result is a plain model of the zoo.
"""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.registry.errors import CapabilityError, CheckpointError, MissingDependencyError
from mdpd_plugins.zoos.mmpretrain.pipeline import usual_steps

# Where MMPretrain's models keep the network that reads the image.
ENCODERS = ("backbone", "vision_backbone", "vision_encoder", "visual_encoder", "image_encoder")
# What a config says of an encoder for the sake of the model around it: where its own weights lie, what of it is
# frozen, which of its outputs is read.
FOR_THE_OUTER_MODEL = ("type", "init_cfg", "pretrained", "frozen_stages", "out_type")
SIDE = 224  # px, where an encoder does not say what images it was made for


@dataclass
class Entry:
    """One entry of the model index.

    Attributes:
        name: as in the index. weights: URL of a checkpoint, or None.
        config: the whole config; its `model` is an ImageClassifier.
        bare: whether it is an encoder that got a new head; in its checkpoint the encoder is a part of something else.
    """

    name: str
    config: Any
    weights: str | None
    bare: bool = False


def read_entry(name: str) -> Entry:
    """The entry `name` of the model index.

    Raises:
        CapabilityError: it holds no image encoder that stands alone.
        MissingDependencyError: its encoder is of a class that MMPretrain defines beside its multimodal models only,
            and what those need is not installed.
    """
    info = _info(name)
    _read_from_files(info.config)
    model = info.config.model
    if model.get("type") == "ImageClassifier" and model.get("head") is not None:
        return Entry(info.name, info.config, info.weights)
    found = [model[key] for key in ENCODERS if model.get(key)]
    if not found:
        raise CapabilityError(
            f"mmpretrain/{name} is a {model.type} without an image backbone of its own: a part of its language model "
            f"reads the image, and no classifier can be made of that alone. `mdpd list-backbones --zoo mmpretrain "
            f"--modality image` lists the entries that can be one"
        )
    # A retriever lists its encoder and the pooling after it.
    encoder = found[0][0] if isinstance(found[0], list) else found[0]
    # Models of images and text name a checkpoint of the encoder alone, a thousandth of the whole in size.
    weights = encoder.get("pretrained") or info.weights
    return Entry(info.name, _classifier(encoder, info.config, name), weights, bare=True)


def _info(name: str) -> Any:
    from mmengine.config import Config
    from mmpretrain.apis.model import ModelHub

    try:
        return ModelHub.get(name)
    except (RuntimeError, KeyError) as error:
        info = copy.deepcopy(ModelHub._models_dict.get(name.lower()))
        if info is None:
            raise
        if "lazy_import" in str(error):
            # A config that imports something is taken for one of mmengine's newer kind; RepLKNet's is not.
            info.config = Config.fromfile(info.config, lazy_import=False)
        else:
            # SwinV2's for ImageNet-21k change a test pipeline that their bases do not have.
            info.config = _model_part(Path(info.config))
        return info


def _read_from_files(config: Any) -> None:
    # A data set that hands images out red first (CIFAR) has nothing to turn round. From files the zoo reads them blue
    # first, and files are what a model of ours is given.
    steps, preprocessor = config.get("test_pipeline") or [], config.get("data_preprocessor") or {}
    if steps and not any(step["type"].startswith("Load") for step in steps) and "to_rgb" in preprocessor:
        preprocessor["to_rgb"] = True


def _model_part(path: Path) -> Any:
    """A config with what it says of data and training left out, bases excepted."""
    from mmengine.config import Config

    kept = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            kept[statement.targets[0].id] = statement.value
    bases = [str(path.parent / base) for base in ast.literal_eval(kept["_base_"])]
    lines = [f"{name} = {ast.unparse(kept[name])}" for name in ("model", "data_preprocessor") if name in kept]
    return Config.fromstring("\n".join([f"_base_ = {bases!r}", *lines]), ".py")


def _classifier(encoder: Mapping[str, Any], config: Any, name: str) -> Any:
    """The config of an ImageClassifier around `encoder`; `fit` adds what depends on the encoder's output."""
    from mmengine.config import Config

    kind = _plain_class(encoder["type"], name)
    taken = parameters(kind)
    backbone: dict[str, Any] = {"type": kind.__name__}
    backbone |= {k: copy.deepcopy(v) for k, v in encoder.items() if k in taken and k not in FOR_THE_OUTER_MODEL}
    if "out_type" in taken and taken["out_type"].default not in ("cls_token", "avg_featmap"):
        backbone["out_type"] = "avg_featmap"  # one vector for an image, not all tokens
    side = backbone.get("img_size") or (taken["img_size"].default if "img_size" in taken else SIDE)
    side = max(side) if isinstance(side, (tuple, list)) else side
    preprocessor = config.get("data_preprocessor") or {}
    if preprocessor.get("mean") is None:
        preprocessor = {"mean": [127.5] * 3, "std": [127.5] * 3, "to_rgb": True}  # -1 to 1, where nothing is said
    pipeline = usual_steps((side, side))
    return Config(
        dict(
            model=dict(type="ImageClassifier", backbone=backbone, head=dict(type="LinearClsHead", num_classes=1000)),
            data_preprocessor={k: preprocessor[k] for k in ("mean", "std", "to_rgb") if k in preprocessor},
            test_pipeline=pipeline,
            test_dataloader=dict(dataset=dict(type="CustomDataset", pipeline=copy.deepcopy(pipeline))),
        )
    )


def _plain_class(kind_name: str, entry: str) -> Any:
    """The backbone class, without what a pretraining algorithm adds to it."""
    from mmpretrain.registry import MODELS

    kind = MODELS.get(kind_name)
    if kind is None:
        raise MissingDependencyError(
            f"mmpretrain/{entry} needs {kind_name}, which MMPretrain defines only where its multimodal models can be "
            f"imported: pip install 'mmpretrain[multimodal]' in an environment with transformers below 5"
        )
    # Classes for pretraining derive from the backbone they pretrain, and answer with masks and targets besides.
    bases = (c for c in inspect.getmro(kind) if ".sparse_" not in c.__module__ and hasattr(c, "forward"))
    plain = (c for c in bases if ".backbones." in c.forward.__module__)
    return next(plain, kind)


def parameters(kind: Any) -> dict[str, inspect.Parameter]:
    """Arguments of a class's constructor; a subclass that passes `**kwargs` on takes what its bases take."""
    found: dict[str, inspect.Parameter] = {}
    for c in inspect.getmro(kind):
        if "__init__" not in vars(c):
            continue
        own = inspect.signature(vars(c)["__init__"]).parameters
        found = {**own, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    return found


def fit(model: Any, config: Any) -> None:
    """Give an ImageClassifier a neck and a head as wide as what its backbone puts out; `config.model` says the same.

    For a backbone that was changed or that had no head. A head that takes no width is left alone.
    """
    from mmpretrain.registry import MODELS

    parts = config.model
    head = parts.get("head")
    if not head or "in_channels" not in parameters(MODELS.get(head["type"])):
        return
    for module in model.modules():
        module.training = False
    features = _features(model.backbone, parts.backbone)
    if head.get("in_channels") is None and _last(features)[-1].dim() == 4:
        parts["neck"] = dict(type="GlobalAveragePooling")
    if neck := parts.get("neck"):
        for part in neck if isinstance(neck, (list, tuple)) else [neck]:
            for key in ("in_channels", "input_features"):
                if isinstance(part.get(key), int):
                    part[key] = _width(_last(features)[-1])
                elif key in part:
                    part[key] = type(part[key])(_width(f) for f in features)
        model.neck = MODELS.build(neck)
        for module in model.neck.modules():
            module.training = False
        with torch.no_grad():
            features = model.neck(features)
    widths = [_width(f) for f in _last(features)]
    old = head.get("in_channels")
    new: Any = type(old)(widths) if isinstance(old, (list, tuple)) else widths[-1]
    if new != old or model.head is None:
        head["in_channels"] = new
        model.head = MODELS.build(head)


def _features(backbone: nn.Module, fields: Mapping[str, Any]) -> Any:
    # Widths do not depend on the image's size, and a small image is over sooner; some take only their own.
    own = fields.get("img_size") or getattr(backbone, "img_size", None) or SIDE
    own = max(own) if isinstance(own, (tuple, list)) else own
    with torch.no_grad():
        if own > 64:
            try:
                return backbone(torch.zeros(1, 3, 64, 64))
            except Exception:  # whatever a network raises for an image that is too small
                pass
        return backbone(torch.zeros(1, 3, own, own))


def _last(features: Any) -> list[torch.Tensor]:
    """The tensors of the last stage: two for networks with two streams."""
    last = features[-1] if isinstance(features, (tuple, list)) else features
    return list(last) if isinstance(last, (tuple, list)) else [last]


def _width(feature: torch.Tensor) -> int:
    return feature.shape[-1] if feature.dim() == 3 else feature.shape[1]


def encoder_state(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> dict[str, torch.Tensor]:
    """The encoder's weights out of a checkpoint of what it is a part of, under the classifier's keys.

    Raises:
        CheckpointError: no part of the checkpoint has the encoder's keys.
    """
    own = {k.removeprefix("backbone.") for k in model.state_dict() if k.startswith("backbone.")}
    prefixes = [f"{k}." for k in ENCODERS] + [f"{k}.0." for k in ENCODERS] + [""]
    found = {p: {k.removeprefix(p) for k in state if k.startswith(p)} & own for p in prefixes}
    best = max(prefixes, key=lambda p: len(found[p]))
    if not found[best]:
        raise CheckpointError(
            f"{source} has no part with the keys of a {type(model.backbone).__name__}, such as {sorted(own)[0]!r}: "
            f"choose the backbone it was made for, or another checkpoint"
        )
    # What pretraining adds to an encoder (mask tokens) has no place in a classifier.
    return {f"backbone.{k}": state[f"{best}{k}"] for k in found[best]}


__all__ = ["Entry", "encoder_state", "fit", "parameters", "read_entry"]
