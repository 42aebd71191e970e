"""HuggingFace transformers: preparing data for its classifiers, capturing and exporting them."""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.adapter import Adapter
from mdpd_plugins.adapters.built import Built, as_built
from mdpd_plugins.adapters.outputs import logits_of
from mdpd_plugins.adapters.transform import PictureTransform, Size, TextTransform
from mdpd_plugins.registry.errors import CapabilityError, CheckpointError, ConfigError
from mdpd_plugins.zoos.huggingface.image_processor import (
    colour_processor,
    image_processor,
    own_size,
    patch_processor,
    prepared_at,
)
from mdpd_plugins.zoos.huggingface.inputs import (
    LENGTH,
    KeepsNothing,
    colour_tokens,
    colours,
    example_text,
    patches,
    reads,
)
from mdpd_plugins.zoos.huggingface.models import IMAGE, QUESTION, TEXT
from mdpd_plugins.zoos.huggingface.quantized import as_saved, check_savable
from mdpd_plugins.zoos.huggingface.texts import (
    Tokens,
    agree_on_padding,
    count_positions,
    longest_text,
    read_tokenizer,
    rows_of,
)
from mdpd_plugins.zoos.timm.data import TimmPictures
from mdpd_plugins.zoos.transformers_code import own_code_only

# transformers' words for kinds of label (`config.problem_type`).
PROBLEMS = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "float": "regression",
}


class HuggingFaceAdapter(Adapter):
    """A transformers image or sequence classifier.

    Args:
        model: an `AutoModelForImageClassification` or `AutoModelForSequenceClassification` instance.
            Its tokenizer or image processor comes from `Built.source`, or from where a live model was loaded from.
            `Built.settings` may name another "tokenizer", the "image_size" that was asked for, and whether the
            configuration's padding token is "made_up_padding".
    """

    load_with = "transformers' from_pretrained"

    def __init__(self, model: nn.Module | Built, *, name: str = "", modality: str = ""):
        built = as_built(model)
        kind = type(built.model).__name__
        super().__init__(built, name=name or f"huggingface/{kind}", modality=modality or reads(built.model))
        self.config: Any = built.model.config
        # A live model's own field for where its files are.
        self.source: str = built.source or self.config.name_or_path
        settings = built.settings or {}
        self.tokenizer_source: str = settings.get("tokenizer", "")
        self.built_size: int | None = settings.get("image_size")
        self.made_up_padding: bool = settings.get("made_up_padding", False)

    @property
    def in_channels(self) -> int:
        """Channels of an input image."""
        channels = getattr(self._vision, "num_channels", 3)
        return channels if isinstance(channels, int) else 3

    @cached_property
    def _arguments(self) -> set[str]:
        return arguments(self._reader)

    @property
    def _reader(self) -> nn.Module:
        """What the inputs are handed to."""
        return self.model

    def attention_mask(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """(B, T) bool; None too where the model takes no mask (FNet mixes padding in)."""
        return super().attention_mask(inputs) if "attention_mask" in self._arguments else None

    @cached_property
    def _makes_cache(self) -> bool:
        # XLM's is a dictionary that it makes unasked. A `Cache` is made where the configuration's `use_cache` asks.
        cache = inspect.signature(self._reader.forward).parameters.get("cache")
        return cache is not None and "Cache" not in str(cache.annotation)

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
        return colours(self._processor[0], self.config.vocab_size - 1)  # the last one starts a sequence

    def _call(self, inputs):
        if "image" not in inputs:
            if "attention_mask" not in self._arguments and "kwargs" not in self._arguments:
                inputs = {k: v for k, v in inputs.items() if k != "attention_mask"}
            # A cache of keys and values would grow with every block that runs a second time.
            without: dict[str, Any] = {"use_cache": False} if "use_cache" in self._arguments else {}
            if not without and self._makes_cache:
                without = {"cache": KeepsNothing()}
            return logits_of(self.model(**inputs, **without))
        image = inputs["image"]
        if "spatial_shapes" in self._arguments:
            return logits_of(self.model(**patches(image, self._vision.patch_size)))
        if self._reads_colours:
            return logits_of(self.model(input_ids=colour_tokens(image, self._palette), use_cache=False))
        if {"input_ids", "pixel_values"} <= self._arguments:
            raise CapabilityError(
                f"{self.name} reads an image together with a prompt, and its outputs are words of its vocabulary: it "
                f"has no output layer for classes of your own. Choose a backbone that reads images alone"
            )
        # ViT interpolates its position embeddings on request only; DINOv2 and hierarchical models always adapt.
        other = "interpolate_pos_encoding" in self._arguments and image.shape[-2:] != self._size
        resize = {"interpolate_pos_encoding": True} if other else {}
        return logits_of(self.model(pixel_values=image, **resize))

    def example_inputs(self, batch: int = 2) -> dict[str, torch.Tensor]:
        """Inputs of the model's own size (text: 16 tokens, the last sample padded after 9)."""
        if self.modality == "image":
            return super().example_inputs(batch)
        return {k: v.to(self.device) for k, v in example_text(self.config, batch).items()}

    # --- pictures ----------------------------------------------------------------------------------------

    @cached_property
    def _processor(self) -> tuple[Any, bool]:
        return image_processor(self.source, self.config)

    @cached_property
    def _own_size(self) -> Size:  # type: ignore[override]
        """The size that was asked for in building; else that of the checkpoint's image processor; else the model's."""
        if self.built_size is not None:
            return self.built_size, self.built_size
        processor, saved = self._processor
        sizes = (own_size(processor), self._size)
        return next((size for size in (sizes if saved else sizes[::-1]) if size), (224, 224))

    def _image_transform(self, size: Size | None, stretch: bool) -> PictureTransform:
        """By transformers' own image processor: the checkpoint's, or the family's usual one."""
        return prepared_at(self._processor[0], size or self._own_size, stretch)

    # --- texts -------------------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that came with the weights, or that was named.

        Raises:
            ConfigError: the model was built without any.
            CheckpointError: its files are missing.
        """
        source = self.tokenizer_source or self.source
        if not source:
            raise ConfigError(
                f"{self.name} has no tokenizer: it was built without pretrained files. Give pretrained= a folder "
                f"that holds one, or tokenizer= in the backbone's options"
            )
        return read_tokenizer(source)

    @cached_property
    def _longest(self) -> int:
        return longest_text(
            self.config, self.tokenizer, count_positions(lambda: self._run(self.example_inputs()), LENGTH)
        )

    def words(self, ids: Sequence[int]) -> list[str]:
        """The tokenizer's own words of tokens."""
        return [str(word) for word in self.tokenizer.convert_ids_to_tokens(list(ids))]

    def _text_transform(self) -> TextTransform:
        agree_on_padding(self.tokenizer, self.config, self.name, made_up=self.made_up_padding)
        return TextTransform(Tokens(self.tokenizer, rows_of(self.model)), self._longest)

    def declared_blocks(self) -> int | None:
        """By `depths` (HGNet-V2: `stage_num_blocks`), by layers of encoder and decoder, or by `num_hidden_layers`."""
        config = self._vision if self.modality == "image" else self.config.get_text_config()
        if getattr(config, "is_encoder_decoder", False):
            for pair in (("encoder_layers", "decoder_layers"), ("num_layers", "num_decoder_layers")):
                stacks = [getattr(config, key, None) for key in pair]
                if all(isinstance(n, int) for n in stacks):
                    return sum(stacks)
        depths = next((n for k in ("stage_num_blocks", "depths", "depth") if (n := getattr(config, k, None))), None)
        if repeats := getattr(config, "num_block_repeats", None):  # EfficientNet counts four layers to each block
            depths = [math.ceil(config.depth_coefficient * n) for n in repeats]
        found = sum(depths) if isinstance(depths, (list, tuple)) else getattr(config, "num_hidden_layers", None)
        return found if isinstance(found, int) else None

    def replace_head(self, num_outputs: int) -> None:
        """A fresh output layer of the zoo's kind; the configuration's labels follow."""
        super().replace_head(num_outputs)
        self.config.num_labels = num_outputs
        if hasattr(self.model, "num_labels"):
            self.model.num_labels = num_outputs

    def with_outputs(self, num_outputs: int) -> Adapter:
        """This adapter; of a bare encoder (`BertModel`), one of the encoder with a linear output layer on top."""
        from mdpd_plugins.zoos.huggingface.encoder import is_encoder, with_head

        if is_encoder(self.model):
            return with_head(self, num_outputs)
        return super().with_outputs(num_outputs)

    def set_labels(self, classes: tuple[str, ...], kind: str = "single") -> None:
        """Write class names and the kind of label into the configuration, where transformers' pipelines read them.

        Without the kind they would take several labels for one, and a number for a probability.
        """
        super().set_labels(classes, kind)
        self.config.problem_type = PROBLEMS.get(kind)
        if len(classes) == self.config.num_labels:
            self.config.id2label = dict(enumerate(classes))
            self.config.label2id = {c: i for i, c in enumerate(classes)}

    def class_names(self, count: int) -> tuple[str, ...]:
        """The configuration's, in order."""
        names = {int(i): str(name) for i, name in (self.config.id2label or {}).items()}
        return tuple(names[i] for i in range(count)) if set(names) == set(range(count)) else super().class_names(count)

    def check_quantized_export(self) -> None:
        """Raise CapabilityError unless bitsandbytes' own layers can take the quantised ones' place."""
        check_savable(self.model, self.name)

    def keep_quantized(self) -> None:
        """bitsandbytes' layers, which `save_pretrained` writes and `from_pretrained` reads."""
        as_saved(self.model)

    def write(self, folder: Path) -> None:
        """The zoo's native files."""
        with quiet():
            self.model.save_pretrained(folder, safe_serialization=True)
        if self.modality != "image" and (self.tokenizer_source or self.source):
            try:
                self.tokenizer.save_pretrained(folder)
            except CheckpointError:
                pass  # there are no such files: whoever trained this made its tokens elsewhere
        if self.modality != "text":
            self._write_processor(folder)

    def _write_processor(self, folder: Path) -> None:
        """The image processor that prepares pictures as training did."""
        prepared = self.image_transform()
        if isinstance(prepared, TimmPictures):  # its settings lie in the model's configuration
            file = folder / "config.json"
            config = json.loads(file.read_text(encoding="utf-8"))
            config["pretrained_cfg"] = {**(config.get("pretrained_cfg") or {}), **prepared.config}
            file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            return
        processor = copy.deepcopy(prepared.processor)  # type: ignore[attr-defined]
        if "spatial_shapes" in self._arguments:  # it keeps an image's aspect, at that many patches
            processor = patch_processor(processor, prepared.size, self._vision.patch_size)
        elif self._reads_colours:
            processor = colour_processor(processor, self._palette)
        processor.save_pretrained(folder)

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported folder through `from_pretrained`."""
        import transformers

        auto = {"text": TEXT, "image": IMAGE, "image-text": QUESTION}[self.modality]
        with own_code_only(folder):
            model = getattr(transformers, auto).from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        return model.eval()


def arguments(model: nn.Module) -> set[str]:
    """Names of what a model's forward takes."""
    return set(inspect.signature(model.forward).parameters)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers says nothing.

    Its table of missing keys names the head that is about to be trained, and `check_keys` says what matters; its
    progress bars count files, of which there is one.
    """
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


__all__ = ["HuggingFaceAdapter", "arguments", "quiet"]
