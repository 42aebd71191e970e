"""OpenCLIP: building one tower as a classifier, or both with their joint space, from weights or at random."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.built import RANDOM, Built
from mdpd_plugins.adapters.storage.checkpoint import check_keys, read_state_dict
from mdpd_plugins.adapters.storage.precision import stored_type
from mdpd_plugins.adapters.storage.weights import cached_file, hub_reachable, reachable
from mdpd_plugins.registry.errors import CheckpointError, ConfigError, closest
from mdpd_plugins.zoos.open_clip.adapter import CONFIG_FILE, WEIGHTS_FILE
from mdpd_plugins.zoos.open_clip.model import create, import_open_clip, projections_of, zero_other_projection

_LOG = logging.getLogger(__name__)


def build(
    *,
    name: str,
    pretrained: str | None = "auto",
    num_classes: int,
    tower: str = "image",
    image_size: int | None = None,
    vision_cfg: dict[str, Any] | None = None,
    text_cfg: dict[str, Any] | None = None,
    multimodal_cfg: dict[str, Any] | None = None,
) -> Built:
    """An OpenCLIP model whose tower ends in `num_classes` outputs.

    Args:
        name: `open_clip/<config name>`.
        pretrained: "auto" (the first published weights that fit the config; random if they are not available), a tag
            of OpenCLIP's, a checkpoint file, an OpenCLIP folder, or None. Pictures are prepared as a tag or a folder
            says, and the activation (GELU or QuickGELU) is the one that its weights were trained with.
        num_classes: outputs of the tower's projection; with both towers, their joint space stays as wide as it is.
        tower: "image" or "text": which one is the backbone; "both" for retrieval.
        image_size: input side in pixels; OpenCLIP resizes position embeddings on loading.
        vision_cfg, text_cfg, multimodal_cfg: overrides of the config's towers and of CoCa's text decoder.

    Raises:
        ConfigError: an unknown tower or override.
        CheckpointError: an explicit checkpoint that is missing, unsafe or of another architecture.
    """
    open_clip = import_open_clip()
    if tower not in ("image", "text", "both"):
        raise ConfigError(f"{name} has no tower {tower!r}: use 'image', 'text', or 'both'")
    config_name = name.partition("/")[2]
    config = copy.deepcopy(open_clip.get_model_config(config_name))
    parts = {"vision_cfg": vision_cfg, "text_cfg": text_cfg}
    if "multimodal_cfg" in config:
        parts["multimodal_cfg"] = multimodal_cfg
    for part, changes in parts.items():
        known = _fields(open_clip, part)
        for key in changes or {}:
            if key not in known:
                raise ConfigError(f"{name} has no {part} option {key!r}: {closest(key, known)}")
        config[part].update(changes or {})
    if image_size is not None:
        config["vision_cfg"]["image_size"] = image_size
    if tower == "both":
        num_classes = config["embed_dim"]
    else:
        _give_projection(config, tower)
    weights = _find(open_clip, config_name, config, pretrained)
    if weights.quick_gelu is not None and weights.quick_gelu != bool(config.get("quick_gelu", False)):
        # With the other activation they give other, worse answers; OpenCLIP warns, or takes force_quick_gelu.
        _LOG.info("%s: quick_gelu=%s, as its weights were trained (%s)", name, weights.quick_gelu, weights.origin)
        config["quick_gelu"] = weights.quick_gelu
    settings = {
        "config_name": config_name,
        "model_cfg": config,
        "tower": tower,
        "preprocess_cfg": weights.preprocess_cfg,
    }
    state, origin = weights.state, weights.origin
    stored = None if state is None else stored_type(state.values())
    model = create(settings, num_classes)
    projections = frozenset[str]() if tower == "both" else projections_of(settings)
    if state is not None:
        _load(model, state, origin, projections)
    if tower != "both":
        zero_other_projection(model, tower, projections)
    settings["model_cfg"] = {**config, "embed_dim": num_classes}
    return Built(model.eval(), origin=origin, settings=settings, stored=stored)


def _give_projection(config: dict[str, Any], tower: str) -> None:
    """Turn a tower without an output projection into one that has it: it is the classifier."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if vision.get("attentional_pool"):
        vision["attn_pooler_heads"] = 1  # the pooler is as wide as the output, which heads must divide
    if tower == "image":
        if vision.get("timm_proj") in ("none", ""):
            vision["timm_proj"] = "linear"
    elif "hf_model_name" not in text and text.get("proj_type") == "none":
        text["proj_type"] = "linear"


def _load(model: nn.Module, state: dict[str, torch.Tensor], origin: str, projections: frozenset[str]) -> None:
    from open_clip.model import resize_pos_embed, resize_text_pos_embed

    for key in state:
        if key.endswith("positional_embedding"):
            state[key] = state[key].float()  # as the model is now; not every type can be interpolated
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    own = model.state_dict()
    differing = [k for k in own if k in state and own[k].shape != state[k].shape and k not in projections]
    missing = [k for k in own if k not in state and k not in projections]
    unexpected = [k for k in state if k not in own and not k.endswith(("position_ids", "attn_mask"))]
    check_keys(origin, type(model).__name__, missing, unexpected, differing)
    model.load_state_dict({k: v for k, v in state.items() if k in own and own[k].shape == v.shape}, strict=False)


@dataclass(frozen=True)
class Weights:
    """Weights, and what is said of them beside them.

    Attributes:
        state: None for random initialisation. origin: one phrase.
        preprocess_cfg: fields of OpenCLIP's `PreprocessCfg` that pictures were prepared with.
        quick_gelu: the activation they were trained with; None where that is not said.
    """

    state: dict[str, torch.Tensor] | None
    origin: str
    preprocess_cfg: dict[str, Any] = field(default_factory=dict)
    quick_gelu: bool | None = None


def _find(open_clip: Any, config_name: str, config: dict[str, Any], pretrained: str | None) -> Weights:
    if pretrained is None:
        return Weights(None, f"{RANDOM} (asked for)")
    tags = open_clip.list_pretrained_tags_by_model(config_name)
    if pretrained != "auto" and pretrained not in tags:
        path = Path(pretrained)
        preprocess_cfg, quick = _folder_says(path)
        if path.is_dir():
            path = path / WEIGHTS_FILE
        if not path.is_file():
            raise CheckpointError(
                f"checkpoint {pretrained!r} does not exist: it is neither a file nor one of the published weights "
                f"of {config_name} ({', '.join(tags) or 'none'})"
            )
        return Weights(read_state_dict(path), f"file {pretrained}", preprocess_cfg, quick)
    tag = choose_tag(config_name, config) if pretrained == "auto" else pretrained
    if not tag:
        return Weights(None, f"{RANDOM}: OpenCLIP publishes no weights of {config_name}")
    where = open_clip.get_pretrained_cfg(config_name, tag)
    said, quick = tag_preprocess(where), bool(where.get("quick_gelu", False))
    try:
        published = _published(open_clip, where)
    except (OSError, RuntimeError, ValueError) as error:
        if pretrained != "auto":
            raise CheckpointError(f"weights {tag!r} of {config_name} are not available: {error}") from error
        missing = f"{RANDOM}: weights {tag!r} of {config_name} are neither in the local cache nor reachable"
        return Weights(None, missing, said)
    return Weights(read_state_dict(published), f"OpenCLIP, {config_name} {tag}", said, quick)


def choose_tag(config_name: str, config: dict[str, Any]) -> str:
    """The tag that "auto" means: the first whose activation is the configuration's, else the first; "" for none."""
    open_clip = import_open_clip()
    tags: list[str] = open_clip.list_pretrained_tags_by_model(config_name)
    quick = bool(config.get("quick_gelu", False))
    fitting = [t for t in tags if bool(open_clip.get_pretrained_cfg(config_name, t).get("quick_gelu")) == quick]
    return next(iter(fitting or tags), "")


def tag_preprocess(where: dict[str, Any]) -> dict[str, Any]:
    """Fields of `PreprocessCfg` in a tag's configuration. Its size is the model's affair."""
    from open_clip.transform import merge_preprocess_dict

    return {k: v for k, v in merge_preprocess_dict({}, where).items() if k != "size"}


def _folder_says(folder: Path) -> tuple[dict[str, Any], bool | None]:
    """What an OpenCLIP folder's configuration says of pictures, and of the activation if it describes a model.

    Raises:
        CheckpointError: it cannot be read.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        return {}, None
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        model = said.get("model_cfg")
        return tag_preprocess(said.get("preprocess_cfg") or {}), model and bool(model.get("quick_gelu", False))
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{str(file)!r} cannot be read ({error}): correct or remove it") from error


def _published(open_clip, where: dict[str, Any]) -> str | Path:
    """The file of published weights, from the hub's cache or over the network.

    Raises:
        OSError: neither has it.
    """
    # OpenCLIP writes "organisation/repository/file", where the file may be left out.
    repo, _, file = (where.get("hf_hub") or "").rpartition("/")
    if repo:
        names = (WEIGHTS_FILE, file or "open_clip_pytorch_model.bin")
        if found := cached_file(repo, *names):
            return found
        there = hub_reachable(repo)
    else:
        there = bool(where.get("url")) and reachable(where["url"])
    if not there:
        raise OSError("neither cached nor reachable")
    return open_clip.download_pretrained(where)


def _fields(open_clip, part: str) -> list[str]:
    from open_clip.coca_model import MultimodalCfg

    kind = {
        "vision_cfg": open_clip.CLIPVisionCfg,
        "text_cfg": open_clip.CLIPTextCfg,
        "multimodal_cfg": MultimodalCfg,
    }[part]
    return list(kind.__dataclass_fields__)


__all__ = ["build"]
