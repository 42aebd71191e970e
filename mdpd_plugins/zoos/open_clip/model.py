"""OpenCLIP: making a model from its configuration, and the projections that its towers end in."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.storage.trust import SETTING, remote_code_trusted, unattended
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
        with unattended():  # a text tower of transformers' may ask whether to run code
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


def settings_of(model: nn.Module, tower: str) -> dict[str, Any]:
    """The settings that `create` makes a live model's like from: those of the configuration of OpenCLIP's that it is.

    Candidates are narrowed down by the sizes that are in the model, and then built without memory.

    Raises:
        ConfigError: it is like none of them.
    """
    import open_clip

    state = {k: v.shape for k, v in model.state_dict().items()}
    sizes = {n for shape in state.values() for n in shape}
    # Built with precision="fp16" or "bf16", norms are of a class that works in float32; their weights are the same.
    said = repr(model).replace("LayerNormFp32(", "LayerNorm(")
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        config["embed_dim"] = getattr(
            model.visual, "output_dim", config["embed_dim"]
        )  # another, once it has had a head
        if not _sizes_of(config) <= sizes or not _same_libraries(config, model):
            continue
        vision = config["vision_cfg"]
        vision["image_size"] = getattr(model.visual, "image_size", vision.get("image_size"))
        # Weights that a tag publishes may want the other activation than the configuration says.
        for quick in dict.fromkeys((config.get("quick_gelu", False), True, False)):
            settings = {"config_name": name, "model_cfg": {**config, "quick_gelu": quick}, "tower": tower}
            try:
                with torch.device("meta"):
                    like = create(settings, config["embed_dim"])
            except (ConfigError, ImportError, OSError, RuntimeError):  # it needs a library or files, or real numbers
                break
            if repr(like) == said and {k: v.shape for k, v in like.state_dict().items()} == state:
                return settings
    raise ConfigError(
        f"this {type(model).__name__} is like no configuration of OpenCLIP's, so it can be given no output layer and "
        f"an export could not say how to load it: build it by its registered name, mdpd_plugins.adapters."
        f"build_backbone('open_clip/<configuration>', ...), with your own values in vision_cfg and text_cfg"
    )


def _sizes_of(config: dict[str, Any]) -> set[int]:
    vision, text = config["vision_cfg"], config["text_cfg"]
    """Some lengths that the weights of a configuration must have."""
    own = {config["embed_dim"]}
    if not vision.get("timm_model_name"):
        own.add(vision.get("width", 768))  # of CLIPVisionCfg
    if not text.get("hf_model_name"):
        own |= {text.get("width", 512), text.get("vocab_size", 49408)}  # of CLIPTextCfg
    return own


def _same_libraries(config: dict[str, Any], model: nn.Module) -> bool:
    """Whether the towers that other libraries build are the same ones; asking for another would ask the hub for it."""
    text = getattr(getattr(model, "text", None), "config", None)
    timm_tower = hasattr(model.visual, "trunk")
    own = getattr(text, "_name_or_path", "") or ""
    return (
        config["text_cfg"].get("hf_model_name", "") == own and ("timm_model_name" in config["vision_cfg"]) == timm_tower
    )


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


def tokenizer_of(source: str, config: dict[str, Any], **options: Any) -> Any:
    """OpenCLIP's tokenizer of a name or folder; one of transformers' runs no code of the folder unless that is trusted.

    Args:
        config: the model's configuration, which says whether it is one of transformers'.
    """
    import open_clip

    if config["text_cfg"].get("hf_tokenizer_name"):
        options[SETTING] = remote_code_trusted()  # comes before what the configuration says
    return open_clip.get_tokenizer(source, **options)


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
    "tokenizer_of",
    "settings_of",
    "zero_other_projection",
]
