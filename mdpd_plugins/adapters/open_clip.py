"""OpenCLIP: one tower of a CLIP model with its output projection as the classification head.

OpenCLIP's towers end in a projection to the joint space. A model whose `embed_dim` is the number of classes is
a plain OpenCLIP model whose `encode_image` (or `encode_text`) returns logits, so that is what a classifier is
here, and `create_model_and_transforms` loads it without this project. The other tower keeps its weights; its
projection, which led to a joint space that is gone, is zero.
"""

from __future__ import annotations

import copy
import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.base import Adapter
from mdpd_plugins.adapters.checkpoint import check_keys, read_state_dict
from mdpd_plugins.adapters.origin import RANDOM, record_origin
from mdpd_plugins.adapters.weights import cached_file, hub_reachable, reachable
from mdpd_plugins.registry.errors import CheckpointError, ConfigError, MissingDependencyError, closest

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
IMAGE_PREFIXES = ("visual.",)
# A plain CLIP model keeps its text tower's parts at the top; the others keep it as `text`.
TEXT_PREFIXES = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "text.")


class OpenCLIPAdapter(Adapter):
    """One tower of an OpenCLIP model.

    Args:
        model: `open_clip.CLIP`, `CustomTextCLIP` or `CoCa`, as `build` makes it.
        modality: "image" for the visual tower, "text" for the text tower; by default what `build` was told.
    """

    def __init__(self, model: nn.Module, *, name: str = "", modality: str = ""):
        self.settings: dict[str, Any] = getattr(model, "mdpd_settings", {})
        super().__init__(model, name=name, modality=modality or self.settings.get("tower", "image"))
        self.prefixes = IMAGE_PREFIXES if self.modality == "image" else TEXT_PREFIXES

    def _call(self, inputs):
        if self.modality == "image":
            return self.model.encode_image(inputs["image"], normalize=False)  # CoCa normalises by default
        return self.model.encode_text(inputs["input_ids"], normalize=False)

    def attention_mask(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """(B, T): True up to the end-of-text token. CLIP's token id 0 is a real one, so ids cannot tell padding.

        None for a tower whose tokens also look at the padding (SigLIP's): there it is part of the text.
        """
        if self.modality == "text" and not self._padding_is_hidden:
            return None
        if self.modality == "text" and getattr(self._text_tower(), "cls_emb", None) is not None:
            # CoCa's tower knows padding by its id, and puts a class token behind it.
            real = inputs["input_ids"] != self._padding
            return torch.cat([real, torch.ones_like(real[:, :1])], 1)
        return inputs["attention_mask"].bool() if "attention_mask" in inputs else None

    @property
    def fixed_length(self) -> bool:
        """OpenCLIP's own tokenizers fill the context; HuggingFace's towers take any length."""
        return self.modality == "text" and not hasattr(self._text_tower(), "config")

    @property
    def _padding_is_hidden(self) -> bool:
        # A causal tower reads its last real token; a HuggingFace one is given a mask of its padding.
        tower = self._text_tower()
        return hasattr(tower, "config") or getattr(tower, "attn_mask", None) is not None

    def example_inputs(self, batch: int = 2) -> dict[str, torch.Tensor]:
        """Inputs of the model's own size."""
        if self.modality == "image":
            return super().example_inputs(batch)
        tower, generator = self._text_tower(), torch.Generator().manual_seed(0)
        length = 16 if hasattr(tower, "config") else tower.context_length
        ids = torch.randint(5, min(tower.vocab_size, 1000) - 1, (batch, length), generator=generator)
        for row, real in enumerate((length // 2, *[length // 3] * (batch - 1))):
            ids[row, real - 1] = tower.vocab_size - 1  # CLIP's end of text
            ids[row, real:] = self._padding
        return {k: v.to(self.device) for k, v in self._masked(ids).items()}

    @property
    def _padding(self) -> int:
        tower = self._text_tower()
        found = tower.config.pad_token_id if hasattr(tower, "config") else getattr(tower, "pad_id", 0)
        return found or 0

    def _preprocessing(self) -> dict[str, Any]:
        """OpenCLIP's preprocess configuration, or its tokenizer (fixed length, as its text tower wants)."""
        if self.modality == "text":
            return {"tokenizer": self._tokenize, "max_length": self._text_tower().context_length}
        cfg = self.model.visual.preprocess_cfg
        size = cfg["size"]
        return {
            "size": (size, size) if isinstance(size, int) else tuple(size),
            "mean": tuple(cfg["mean"]),
            "std": tuple(cfg["std"]),
            "interpolation": cfg.get("interpolation", "bicubic"),
        }

    def _text_tower(self):
        return getattr(self.model, "text", self.model)

    @cached_property
    def tokenizer(self) -> Any:
        """OpenCLIP's tokenizer of this configuration: its own, or one of transformers'."""
        import open_clip

        # A causal tower with learned positions takes its full context only; shorter texts are padded to it.
        length = self._text_tower().context_length
        return open_clip.get_tokenizer(self.settings["config_name"], context_length=length)

    def _tokenize(self, texts, max_length: int) -> dict[str, torch.Tensor]:
        if any(isinstance(t, tuple) for t in texts):
            raise ConfigError("OpenCLIP's text towers read one text; sentence pairs need a HuggingFace backbone")
        return self._masked(self.tokenizer(list(texts)))

    def _masked(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        if hasattr(self._text_tower(), "config"):
            return {"input_ids": ids, "attention_mask": ids != self._padding}
        if not self._padding_is_hidden:
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids, dtype=torch.bool)}
        end = ids.argmax(-1, keepdim=True)  # end-of-text is the largest id of CLIP's vocabulary
        return {"input_ids": ids, "attention_mask": torch.arange(ids.shape[1]) <= end}

    def replace_head(self, num_outputs: int) -> None:
        """A fresh projection to `num_outputs` in both towers, as OpenCLIP initialises it."""
        fresh = _create(self.settings, num_outputs)
        state, projections = fresh.state_dict(), _projections(self.settings)
        for key, value in self.model.state_dict().items():
            if key in projections:
                module, _, attribute = key.rpartition(".")
                owner = self.model.get_submodule(module)
                setattr(owner, attribute, nn.Parameter(state[key].to(value.device)))
                # Numbers that follow its width: a LayerNorm's normalized_shape, an attention's embed_dim.
                numbers = {k: v for k, v in vars(fresh.get_submodule(module)).items() if type(v) in (int, tuple)}
                vars(owner).update(numbers)
        _zero_other_projection(self.model, self.modality, projections)
        self.settings["model_cfg"]["embed_dim"] = num_outputs

    def write(self, folder: Path) -> None:
        """The zoo's native files."""
        from safetensors.torch import save_file

        if not self.settings:
            raise ConfigError(
                "this OpenCLIP model does not know its configuration, so it cannot be exported: build it by its "
                "registered name with mdpd_plugins.adapters.build_backbone"
            )

        # Training stretches images to the model's size; OpenCLIP alone would cut the middle out.
        preprocess = {**self.model.visual.preprocess_cfg, "resize_mode": "squash"}
        config = {
            "model_cfg": self.settings["model_cfg"],
            "preprocess_cfg": {k: v for k, v in preprocess.items() if v is not None},
        }
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        state = {k: v.detach().cpu().clone().contiguous() for k, v in self.model.state_dict().items()}
        save_file(state, str(folder / WEIGHTS_FILE))
        # Where the configuration names one of transformers' tokenizers, OpenCLIP looks for its files in the folder.
        if "tokenizer" in vars(self) and hasattr(self.tokenizer, "save_pretrained"):
            self.tokenizer.save_pretrained(str(folder))

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported model through `open_clip.create_model_and_transforms`."""
        import open_clip

        return open_clip.create_model_and_transforms(f"local-dir:{folder}")[0].eval()


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
) -> nn.Module:
    """An OpenCLIP model whose tower ends in `num_classes` outputs.

    Args:
        name: `open_clip/<config name>`.
        pretrained: "auto" (the first published weights that fit the config; random if they cannot be had), a tag
            of OpenCLIP's, a checkpoint file, or None.
        num_classes: outputs of the tower's projection; with both towers, their joint space stays as wide as it is.
        tower: "image" or "text": which one is the backbone; "both" for retrieval.
        image_size: input side in pixels; OpenCLIP resizes position embeddings on loading.
        vision_cfg, text_cfg, multimodal_cfg: overrides of the config's towers and of CoCa's text decoder.

    Raises:
        ConfigError: an unknown tower or override.
        CheckpointError: an explicit checkpoint that is missing, unsafe or of another architecture.
    """
    open_clip = _open_clip()
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
    settings = {"config_name": config_name, "model_cfg": config, "tower": tower}
    state, origin = _find(open_clip, config_name, config, pretrained)
    model = _create(settings, num_classes)
    projections = frozenset[str]() if tower == "both" else _projections(settings)
    if state is not None:
        _load(model, state, origin, projections)
    if tower != "both":
        _zero_other_projection(model, tower, projections)
    settings["model_cfg"] = {**config, "embed_dim": num_classes}
    model.mdpd_settings = settings
    record_origin(model, origin)
    return model.eval()


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


def _create(settings: dict[str, Any], embed_dim: int) -> nn.Module:
    import open_clip
    from open_clip.transform import PreprocessCfg

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
    preprocess = PreprocessCfg(size=model.visual.image_size)
    open_clip.set_model_preprocess_cfg(model, preprocess.__dict__.copy())
    return model


def _load(model: nn.Module, state: dict[str, torch.Tensor], origin: str, projections: frozenset[str]) -> None:
    from open_clip.model import resize_pos_embed, resize_text_pos_embed

    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    own = model.state_dict()
    differing = [k for k in own if k in state and own[k].shape != state[k].shape and k not in projections]
    missing = [k for k in own if k not in state and k not in projections]
    unexpected = [k for k in state if k not in own and not k.endswith(("position_ids", "attn_mask"))]
    check_keys(origin, type(model).__name__, missing, unexpected, differing)
    model.load_state_dict({k: v for k, v in state.items() if k in own and own[k].shape == v.shape}, strict=False)


def _projections(settings: dict[str, Any]) -> frozenset[str]:
    """Keys that end either tower: those whose shape follows the joint space's width, by building two without data."""
    config = {k: v for k, v in settings["model_cfg"].items() if k != "embed_dim"}
    return _following_width(settings["config_name"], json.dumps(config, sort_keys=True))


@lru_cache(maxsize=16)  # a model is built, given another head and exported: three times the same question
def _following_width(config_name: str, config: str) -> frozenset[str]:
    settings = {"config_name": config_name, "model_cfg": json.loads(config)}
    with torch.device("meta"):
        one, other = ({k: v.shape for k, v in _create(settings, width).state_dict().items()} for width in (64, 96))
    return frozenset(k for k in one if one[k] != other[k])


def _zero_other_projection(model: nn.Module, tower: str, projections: frozenset[str]) -> None:
    own = IMAGE_PREFIXES if tower == "image" else TEXT_PREFIXES
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key in projections and not key.startswith(own):
                parameter.zero_()


def _find(open_clip, config_name: str, config: dict, pretrained: str | None):
    """(state dict or None, phrase of origin)."""
    if pretrained is None:
        return None, f"{RANDOM} (asked for)"
    tags = open_clip.list_pretrained_tags_by_model(config_name)
    if pretrained != "auto" and pretrained not in tags:
        path = Path(pretrained)
        if path.is_dir():
            path = path / WEIGHTS_FILE
        if not path.is_file():
            raise CheckpointError(
                f"checkpoint {pretrained!r} does not exist: it is neither a file nor one of the published weights "
                f"of {config_name} ({', '.join(tags) or 'none'})"
            )
        return read_state_dict(path), f"file {pretrained}"
    quick = bool(config.get("quick_gelu", False))
    fitting = [t for t in tags if bool(open_clip.get_pretrained_cfg(config_name, t).get("quick_gelu")) == quick]
    tag = (fitting or [""])[0] if pretrained == "auto" else pretrained
    if not tag:
        return None, f"{RANDOM}: OpenCLIP publishes no weights that fit {config_name}"
    where = open_clip.get_pretrained_cfg(config_name, tag)
    try:
        path = _published(open_clip, where)
    except (OSError, RuntimeError, ValueError) as error:
        if pretrained != "auto":
            raise CheckpointError(f"weights {tag!r} of {config_name} cannot be had: {error}") from error
        return None, f"{RANDOM}: weights {tag!r} of {config_name} are neither in the local cache nor reachable"
    return read_state_dict(path), f"OpenCLIP, {config_name} {tag}"


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


def _open_clip():
    try:
        import open_clip
    except ImportError as error:
        raise MissingDependencyError("this backbone needs OpenCLIP: pip install 'mdpd-plugins[open_clip]'") from error
    return open_clip


__all__ = ["OpenCLIPAdapter", "build"]
