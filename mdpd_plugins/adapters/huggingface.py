"""HuggingFace transformers: building, preparing data for, and exporting its classifiers."""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
import re
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mdpd_plugins.adapters.base import Adapter
from mdpd_plugins.adapters.checkpoint import check_keys
from mdpd_plugins.adapters.huggingface_inputs import KeepsNothing, colour_tokens, colours, example_text, patches, reads
from mdpd_plugins.adapters.huggingface_source import find_source, tokenizer_of, tokenizer_source
from mdpd_plugins.adapters.layout import first_tensor
from mdpd_plugins.adapters.origin import record_origin
from mdpd_plugins.registry.errors import (
    CapabilityError,
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    closest,
)
from mdpd_plugins.zoos.huggingface_models import CAUSAL, ENCODER, IMAGE, QUESTION, TEXT, architecture


class HuggingFaceAdapter(Adapter):
    """A transformers image or sequence classifier.

    Args:
        model: an `AutoModelForImageClassification` or `AutoModelForSequenceClassification` instance.
            Its configuration's `name_or_path` says where its tokenizer or image processor can be had.
    """

    def __init__(self, model: nn.Module, *, name: str = "", modality: str = ""):
        super().__init__(model, name=name, modality=modality or reads(model))
        self.config: Any = model.config
        self.source: str = self.config.name_or_path

    @property
    def in_channels(self) -> int:  # type: ignore[override]
        """Channels of an input image."""
        channels = getattr(self._vision, "num_channels", 3)
        return channels if isinstance(channels, int) else 3

    @cached_property
    def _arguments(self) -> set[str]:
        return _arguments(self.model)

    def attention_mask(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """(B, T) bool; None too where the model takes no mask (FNet mixes padding in)."""
        return super().attention_mask(inputs) if "attention_mask" in self._arguments else None

    @property
    def _vision(self) -> Any:
        return getattr(self.config, "vision_config", None) or self.config

    @property
    def _size(self) -> tuple[int, int] | None:
        size = getattr(self._vision, "image_size", None)
        if "spatial_shapes" in self._arguments:  # SigLIP 2 says how many patches a square of them has
            size = math.isqrt(self._vision.num_patches) * self._vision.patch_size
        elif self._reads_colours:
            size = math.isqrt(self.config.max_position_embeddings)
        return (size, size) if isinstance(size, int) else tuple(size) if size else None

    @property
    def _reads_colours(self) -> bool:
        return self.modality == "image" and "pixel_values" not in self._arguments

    @cached_property
    def _palette(self) -> torch.Tensor:
        return colours(self.source, self.config.vocab_size - 1)  # the last one starts a sequence

    def _call(self, inputs):
        if "image" not in inputs:
            if "attention_mask" not in self._arguments and "kwargs" not in self._arguments:
                inputs = {k: v for k, v in inputs.items() if k != "attention_mask"}
            # A cache of keys and values would grow with every block that runs a second time.
            without: dict[str, Any] = {"use_cache": False} if "use_cache" in self._arguments else {}
            if not without and "cache" in self._arguments:
                without = {"cache": KeepsNothing()}
            return _logits(self.model(**inputs, **without))
        image = inputs["image"]
        if "spatial_shapes" in self._arguments:
            return _logits(self.model(**patches(image, self._vision.patch_size)))
        if self._reads_colours:
            return _logits(self.model(input_ids=colour_tokens(image, self._palette), use_cache=False))
        if {"input_ids", "pixel_values"} <= self._arguments:
            raise CapabilityError(
                f"{self.name} reads an image together with a prompt, and its outputs are words of its vocabulary: it "
                f"has no output layer for classes of your own. Choose a backbone that reads images alone"
            )
        # ViT interpolates its position embeddings on request only; DINOv2 and hierarchical models always adapt.
        other = "interpolate_pos_encoding" in self._arguments and image.shape[-2:] != self._size
        resize = {"interpolate_pos_encoding": True} if other else {}
        return _logits(self.model(pixel_values=image, **resize))

    def example_inputs(self, batch: int = 2) -> dict[str, torch.Tensor]:
        """Inputs of the model's own size (text: 16 tokens, the last sample padded after 9)."""
        if self.modality == "image":
            return super().example_inputs(batch)
        return {k: v.to(self.device) for k, v in example_text(self.config, batch).items()}

    def _preprocessing(self) -> dict[str, Any]:
        """The checkpoint's own tokenizer or image processor settings; the family's defaults without a source."""
        return self._text() if self.modality == "text" else self._image()

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that came with the weights.

        Raises:
            ConfigError: the model was built without any.
        """
        from transformers import AutoTokenizer

        if not self.source:
            raise ConfigError(
                f"{self.name} has no tokenizer: it was built without pretrained files. Give pretrained= a folder "
                f"that holds one, or tokenizer= in the backbone's options"
            )
        return AutoTokenizer.from_pretrained(self.source, local_files_only=os.path.isdir(self.source))

    def _text(self) -> dict[str, Any]:
        tokenizer = self.tokenizer

        def tokenize(texts, max_length):
            pairs = [t if isinstance(t, tuple) else (t, None) for t in texts]
            first, second = [a for a, _ in pairs], [b for _, b in pairs]
            second = None if all(b is None for b in second) else second
            return dict(
                tokenizer(first, second, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
            )

        limit = getattr(self.config.get_text_config(), "max_position_embeddings", 512)
        return {"tokenizer": tokenize, "max_length": min(limit, tokenizer.model_max_length)}

    def _image(self) -> dict[str, Any]:
        found = {"size": self._size or (224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
        settings = Path(self.source or ".") / "preprocessor_config.json"
        if self.source and settings.is_file():
            raw = json.loads(settings.read_text())
            crop = raw.get("crop_size") or raw.get("size") or {}
            if isinstance(crop, dict) and "height" in crop:
                found["size"] = (crop["height"], crop["width"])
            found["mean"] = tuple(raw.get("image_mean") or found["mean"])
            found["std"] = tuple(raw.get("image_std") or found["std"])
            found["interpolation"] = "bicubic" if raw.get("resample") == 3 else "bilinear"
        return found

    def replace_head(self, num_outputs: int) -> None:
        """A fresh output layer of the zoo's kind; the configuration's labels follow."""
        super().replace_head(num_outputs)
        self.config.num_labels = num_outputs
        if hasattr(self.model, "num_labels"):
            self.model.num_labels = num_outputs

    def set_labels(self, classes: tuple[str, ...]) -> None:
        """Write class names into the configuration, where transformers' pipelines read them."""
        if len(classes) == self.config.num_labels:
            self.config.id2label = dict(enumerate(classes))
            self.config.label2id = {c: i for i, c in enumerate(classes)}

    def write(self, folder: Path) -> None:
        """The zoo's native files."""
        with _quiet():
            self.model.save_pretrained(folder, safe_serialization=True)
        if self.modality != "image" and self.source:
            self.tokenizer.save_pretrained(folder)
        if self.modality == "text":
            return
        p = self.preprocessing()
        p = p.get("image", p)
        settings = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": p["size"][0], "width": p["size"][1]},
            "resample": 3 if p["interpolation"] == "bicubic" else 2,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(p["mean"]),
            "image_std": list(p["std"]),
        }
        if "spatial_shapes" in self._arguments:
            patch = self._vision.patch_size
            count = (p["size"][0] // patch) * (p["size"][1] // patch)
            del settings["size"]  # it keeps an image's aspect, at that many patches
            settings |= {
                "image_processor_type": "Siglip2ImageProcessor",
                "patch_size": patch,
                "max_num_patches": count,
            }
        elif self._reads_colours:
            settings |= {"image_processor_type": "ImageGPTImageProcessor", "clusters": self._palette.tolist()}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported folder through `from_pretrained`."""
        import transformers

        auto = {"text": TEXT, "image": IMAGE, "image-text": QUESTION}[self.modality]
        return getattr(transformers, auto).from_pretrained(str(folder), local_files_only=True).eval()


def _logits(output: Any) -> torch.Tensor:
    # PP-LCNet returns its logits under another name, and nothing else.
    return output.logits if hasattr(output, "logits") else first_tensor(output)


def _arguments(model: nn.Module) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def build(
    *,
    name: str,
    pretrained: str | None = "auto",
    num_classes: int,
    head: str = "",
    tokenizer: str = "",
    image_size: int | None = None,
    **options: Any,
) -> nn.Module:
    """A transformers classifier with `num_classes` outputs.

    Args:
        name: registered name, `huggingface/<model>` or `huggingface/<model type>`.
        head: "image" or "text", for a model type that has both classifiers; "causal" for the type's language model,
            which keeps the outputs it has; "mean" for its bare encoder (see `huggingface_encoder.build`).
        pretrained: "auto" (package, cache, then hub; random if none can be had), a folder or hub id, or None.
        num_classes: outputs of the head.
        image_size: input side in pixels; learned position embeddings are resized after loading.
        tokenizer: folder or hub id of a tokenizer, for text models built without weights; or `huggingface/<model>`,
            for that of a named model which a package carries.
        options: fields of the model's configuration, such as `num_hidden_layers`; a mapping for a nested one.

    Raises:
        ConfigError: an option that the configuration does not have.
        CheckpointError: an explicit checkpoint that is missing or of another architecture.
    """
    transformers = _transformers()
    arch = architecture(name.rpartition("/")[2], head)
    causal = arch.auto_class == CAUSAL
    if causal and arch.model_type not in transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConfigError(f"{name} has no causal language model: choose another backbone, such as huggingface/gpt2")
    source, origin = find_source(arch, pretrained)
    if source:
        try:
            config = transformers.AutoConfig.from_pretrained(source, local_files_only=os.path.isdir(source))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{source!r} has no readable transformers configuration: {error}") from error
    else:
        config = transformers.AutoConfig.for_model(arch.model_type, **arch.config)
    wanted = transformers.AutoConfig.for_model(arch.model_type).model_type
    config = next((c for c in map(vars(config).get, config.sub_configs) if c and c.model_type == wanted), config)
    if config.model_type != wanted:
        raise CheckpointError(
            f"{source!r} holds a {config.model_type!r} model, but {name} is {arch.model_type!r}: choose a "
            f"backbone of that type, or another checkpoint"
        )
    if image_size is not None and not source and hasattr(config, "image_size"):
        options = {**options, "image_size": image_size}
    _set_fields(config, options, name)
    if options and not source:
        # Made anew, so that fields worked out from others follow (DINOv2's stage names from its depth): a
        # configuration that contradicts itself cannot be read back from an export.
        with _quiet():  # of special tokens outside a smaller vocabulary, which are dropped below
            config = transformers.AutoConfig.for_model(arch.model_type, **{**arch.config, **options})
    if causal:
        _drop_foreign_tokens(config.get_text_config())
    else:
        config.num_labels = num_classes
    config.architectures = config.architectures or []  # where a type has several classifiers, the first
    if arch.auto_class == TEXT and getattr(config.get_text_config(), "pad_token_id", None) is None:
        # Decoders find the last token of a text by it. Padding is masked, so any token serves.
        config.get_text_config().pad_token_id = config.pad_token_id = 0
    for part in (config, *(getattr(config, k) for k in getattr(config, "sub_configs", {}))):
        if not causal and getattr(part, "use_cache", False):
            part.use_cache = False  # a classifier generates nothing, and its blocks may run a second time
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = config.pad_token_id  # T5's, which its configuration no longer says
    auto = getattr(transformers, arch.auto_class)
    model = (
        _load(auto, config, source, name, unused=("pooler.",) * (head == "mean"))
        if source
        else auto.from_config(config)
    )
    if image_size is not None and source and "interpolate_pos_encoding" in _arguments(model):
        model = _resized(auto, model, image_size)
    record_origin(model, origin)
    # transformers' own field for where a model's files are; the adapter finds the tokenizer there.
    model.config.name_or_path = source or tokenizer_source(tokenizer) or tokenizer_of(arch)
    return model.float()


def _set_fields(config, values: dict[str, Any], name: str) -> None:
    from transformers import PretrainedConfig

    for key, value in values.items():
        if not hasattr(config, key):
            known = [k for k in config.to_dict() if not k.startswith("_")]
            raise ConfigError(f"{name} has no option {key!r}: {closest(key, known)}")
        if isinstance(value, dict) and isinstance(getattr(config, key), PretrainedConfig):
            _set_fields(getattr(config, key), value, f"{name}'s {key}")
        else:
            setattr(config, key, value)


def _drop_foreign_tokens(config) -> None:
    # Special tokens of the type's usual vocabulary, where the model is built with a smaller one.
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if isinstance(token := getattr(config, key, None), int) and token >= config.vocab_size:
            setattr(config, key, None)


def _load(auto, config, source: str, name: str, unused: tuple[str, ...]) -> nn.Module:
    folder = Path(source)
    local = folder.is_dir()
    if local and not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        from mdpd_plugins.adapters.checkpoint import read_state_dict

        for file in folder.glob("pytorch_model*.bin"):
            read_state_dict(file)  # refuses pickled code with our message before transformers opens it
    try:
        with _quiet():
            model, report = auto.from_pretrained(
                source, config=config, local_files_only=local, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"weights of {name} could not be read from {source!r}: {error}") from error
    whole = auto.__name__ in (ENCODER, CAUSAL)  # every weight is in the checkpoint, the output layer's too
    head = {} if whole else HuggingFaceAdapter(model).head_parameters()
    missing = [k for k in report["missing_keys"] if k not in head and not k.startswith(unused)]
    shapes = [k[0] for k in report["mismatched_keys"] if k[0] not in head]
    # Pretraining heads are left out freely; a further block, told by its number alone, is another architecture.
    base = model.base_model_prefix
    kinds = {_unnumbered(k, base) for k in model.state_dict()}
    unexpected = [k for k in report["unexpected_keys"] if _unnumbered(k, base) in kinds]
    check_keys(f"{source!r}", type(model).__name__, missing, unexpected, shapes)
    return model


def _unnumbered(key: str, base: str) -> str:
    """A key with its numbers left open, the same in a bare encoder's checkpoint and in a classifier's."""
    return re.sub(r"\d+", "#", key.removeprefix(f"{base}."))


def _resized(auto, model: nn.Module, image_size: int) -> nn.Module:
    # ViT's positions are learned for one size. The plain model must take the new one without a flag.
    config = copy.deepcopy(model.config)
    config.image_size = image_size
    resized = auto.from_config(config)
    state = model.state_dict()
    for key, value in resized.state_dict().items():
        if state[key].shape != value.shape:
            patch = config.patch_size
            old, new = model.config.image_size // patch, image_size // patch
            prefix = state[key].shape[1] - old * old
            grid = state[key][:, prefix:].transpose(1, 2).unflatten(2, (old, old))
            grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
            state[key] = torch.cat([state[key][:, :prefix], grid.flatten(2).transpose(1, 2)], 1)
    resized.load_state_dict(state)
    return resized


@contextmanager
def _quiet():
    # Its table of missing keys names the head that is about to be trained, and check_keys says what matters;
    # its progress bars count files, of which there is one.
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _transformers():
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError("this needs transformers: pip install 'mdpd-plugins[huggingface]'") from error
    return transformers


__all__ = ["HuggingFaceAdapter", "build"]
