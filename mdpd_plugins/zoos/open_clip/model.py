"""OpenCLIP: making a model from its configuration, and the projections that its towers end in."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.transform import EachPicture
from mdpd_plugins.registry.errors import ConfigError, MissingDependencyError

IMAGE_PREFIXES = ("visual.",)
# A plain CLIP model keeps its text tower's parts at the top; the others keep it as `text`.
TEXT_PREFIXES = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "text.")


def create(settings: dict[str, Any], embed_dim: int) -> nn.Module:
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    cfg = copy.deepcopy({**settings["model_cfg"], "embed_dim": embed_dim})
    custom = cfg.pop("custom_text", False) or "hf_model_name" in cfg["text_cfg"]
    kind = open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    if "hf_model_name" in cfg["text_cfg"]:
        cfg["text_cfg"]["hf_model_pretrained"] = False
    try:
        model = kind(**cfg)
    except (TypeError, AssertionError, ValueError) as error:
        raise ConfigError(f"open_clip/{settings['config_name']} cannot be built with {cfg}: {error}") from error
    if kind is open_clip.CoCa:
        # As its init_parameters would, which OpenCLIP does not call: what memory held may not even be numbers.
        nn.init.normal_(model.text_decoder.text_projection, std=model.text_decoder.width**-0.5)
    # As OpenCLIP leaves it on a model: what the weights say, at the size that the model was built for.
    said = merge_preprocess_dict(PreprocessCfg(), settings.get("preprocess_cfg") or {})
    open_clip.set_model_preprocess_cfg(model, {**said, "size": model.visual.image_size})
    return model


def evaluation_transform(preprocess_cfg: dict[str, Any]) -> EachPicture:
    """OpenCLIP's transform of a preprocess configuration, for evaluation.

    Args:
        preprocess_cfg: fields of OpenCLIP's `PreprocessCfg`; those left out, or None, are its defaults.
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    cfg = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), preprocess_cfg))
    height, width = cfg.input_size[1:]
    return EachPicture(image_transform_v2(cfg, is_train=False), (height, width))


def projections_of(settings: dict[str, Any]) -> frozenset[str]:
    """Keys that end either tower: those whose shape follows the joint space's width, by building two without data."""
    config = {k: v for k, v in settings["model_cfg"].items() if k != "embed_dim"}
    return _following_width(settings["config_name"], json.dumps(config, sort_keys=True))


@lru_cache(maxsize=16)  # a model is built, given another head and exported: three times the same question
def _following_width(config_name: str, config: str) -> frozenset[str]:
    settings = {"config_name": config_name, "model_cfg": json.loads(config)}
    with torch.device("meta"):
        one, other = ({k: v.shape for k, v in create(settings, width).state_dict().items()} for width in (64, 96))
    return frozenset(k for k in one if one[k] != other[k])


def zero_other_projection(model: nn.Module, tower: str, projections: frozenset[str]) -> None:
    own = IMAGE_PREFIXES if tower == "image" else TEXT_PREFIXES
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key in projections and not key.startswith(own):
                parameter.zero_()


def import_open_clip():
    try:
        import open_clip
    except ImportError as error:
        raise MissingDependencyError("this backbone needs OpenCLIP: pip install 'mdpd-plugins[open_clip]'") from error
    return open_clip


__all__ = [
    "IMAGE_PREFIXES",
    "TEXT_PREFIXES",
    "create",
    "evaluation_transform",
    "import_open_clip",
    "projections_of",
    "zero_other_projection",
]
