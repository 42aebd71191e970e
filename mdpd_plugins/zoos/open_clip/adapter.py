"""OpenCLIP: one tower of a CLIP model with its output projection as the classification head.

OpenCLIP's towers end in a projection to the joint space. A model whose `embed_dim` is the number of classes is
a plain OpenCLIP model whose `encode_image` (or `encode_text`) returns logits, so that is what a classifier is
here, and `create_model_and_transforms` loads it without this project. The other tower keeps its weights; its
projection, which led to a joint space that is gone, is zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.adapter import Adapter
from mdpd_plugins.adapters.built import Built, as_built
from mdpd_plugins.adapters.storage.checkpoint import SAFETENSORS_FORMAT
from mdpd_plugins.adapters.transform import PictureTransform, Size, TextTransform
from mdpd_plugins.registry.errors import CapabilityError, ConfigError
from mdpd_plugins.zoos.open_clip.model import (
    IMAGE_PREFIXES,
    TEXT_PREFIXES,
    create,
    evaluation_transform,
    projections_of,
    settings_of,
    tokenizer_of,
    zero_other_projection,
)
from mdpd_plugins.zoos.transformers_code import own_code_only

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"


class OpenCLIPAdapter(Adapter):
    """One tower of an OpenCLIP model.

    Args:
        model: `open_clip.CLIP`, `CustomTextCLIP` or `CoCa`, as `build` makes it.
        modality: "image" for the visual tower, "text" for the text tower; by default what `build` was told.
    """

    load_with = "open_clip.create_model_and_transforms('local-dir:FOLDER')"

    def __init__(self, model: nn.Module | Built, *, name: str = "", modality: str = ""):
        built = as_built(model)
        tower = (built.settings or {}).get("tower", "image")
        name = name or f"open_clip/{type(built.model).__name__}"
        super().__init__(built, name=name, modality=modality or tower)
        self.prefixes = IMAGE_PREFIXES if self.modality == "image" else TEXT_PREFIXES

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the model is built from: as `build` was told, or found for a live model.

        Raises:
            ConfigError: a live model that is none of OpenCLIP's configurations.
        """
        return self.built.settings or settings_of(self.model, self.modality)

    def _call(self, inputs):
        if self.modality == "image":
            return self.model.encode_image(inputs["image"], normalize=False)  # CoCa normalises by default
        return self.model.encode_text(inputs["input_ids"], normalize=False)

    def as_inputs(self, given: Any, *, example: bool = False) -> dict[str, torch.Tensor]:
        """As the base's; tokens may also come as OpenCLIP's own tokenizer returns them, under "text"."""
        if self.modality == "text" and isinstance(given, Mapping) and set(given) == {"text"}:
            given = self._masked(given["text"])
        return super().as_inputs(given, example=example)

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

    @property
    def _own_size(self) -> Size:  # type: ignore[override]
        size = self._said["size"]
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def _said(self) -> dict[str, Any]:
        # A model made by its class alone has none.
        return getattr(self.model.visual, "preprocess_cfg", None) or {"size": self.model.visual.image_size}

    def _preprocess_cfg(self, size: Size | None, stretch: bool) -> dict[str, Any]:
        """OpenCLIP's preprocess configuration: that of the weights, which `build` or OpenCLIP left on the model."""
        cfg = dict(self._said)
        if size is not None and size != self._own_size:
            cfg["size"] = size[0] if size[0] == size[1] else size
        return {**cfg, "resize_mode": "squash"} if stretch else cfg

    def _image_transform(self, size: Size | None, stretch: bool) -> PictureTransform:
        """OpenCLIP's own evaluation transform."""
        return evaluation_transform(self._preprocess_cfg(size, stretch))

    def _text_transform(self) -> TextTransform:
        """OpenCLIP's tokenizer, of fixed length as its text tower wants it."""
        return TextTransform(self._tokenize, self._text_tower().context_length)

    def words(self, ids: Sequence[int]) -> list[str]:
        """The tokenizer's own words of tokens, one at a time."""
        decode = getattr(self.tokenizer, "decode", None) or getattr(self.tokenizer.tokenizer, "decode", None)
        return [decode([i]).strip() for i in ids] if decode else []

    def _text_tower(self):
        return getattr(self.model, "text", self.model)

    @cached_property
    def tokenizer(self) -> Any:
        """OpenCLIP's tokenizer of this configuration: its own, or one of transformers'."""
        import open_clip

        # A causal tower with learned positions takes its full context only; shorter texts are padded to it.
        name, length = self.settings["config_name"], self._text_tower().context_length
        with own_code_only(name):
            return tokenizer_of(name, open_clip.get_model_config(name), context_length=length)

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
        return {"input_ids": ids, "attention_mask": torch.arange(ids.shape[1], device=ids.device) <= end}

    def declared_blocks(self) -> int | None:
        """By the tower's configuration, where OpenCLIP builds it itself."""
        part = (
            (self.built.settings or {})
            .get("model_cfg", {})
            .get("vision_cfg" if self.modality == "image" else "text_cfg", {})
        )
        foreign = "timm_model_name" in part or "hf_model_name" in part
        layers = None if foreign else part.get("layers", 12)  # of CLIPVisionCfg and CLIPTextCfg
        return sum(layers) if isinstance(layers, (list, tuple)) else layers

    def replace_head(self, num_outputs: int) -> None:
        """A fresh projection to `num_outputs` in both towers, as OpenCLIP initialises it."""
        projections = projections_of(self.settings)
        if not any(key.startswith(self.prefixes) for key in projections):
            raise CapabilityError(
                f"the {self.modality} tower of {self.name} ends without a projection that could be an output layer: "
                f"build it by its registered name, which gives it one"
            )
        fresh = create(self.settings, num_outputs)
        state = fresh.state_dict()
        for key, value in self.model.state_dict().items():
            if key in projections:
                module, _, attribute = key.rpartition(".")
                owner = self.model.get_submodule(module)
                setattr(owner, attribute, nn.Parameter(state[key].to(value.device)))
                # Numbers that follow its width: a LayerNorm's normalized_shape, an attention's embed_dim.
                numbers = {k: v for k, v in vars(fresh.get_submodule(module)).items() if type(v) in (int, tuple)}
                vars(owner).update(numbers)
        zero_other_projection(self.model, self.modality, projections)
        self.settings["model_cfg"]["embed_dim"] = num_outputs

    def write(self, folder: Path) -> None:
        """The zoo's native files."""
        from safetensors.torch import save_file

        preprocess = self._preprocess_cfg(self.input_size, self.resize == "stretch")
        config = {
            "model_cfg": self.settings["model_cfg"],
            "preprocess_cfg": {k: v for k, v in preprocess.items() if v is not None},
        }
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        state = {k: v.detach().cpu().clone().contiguous() for k, v in self.model.state_dict().items()}
        save_file(state, str(folder / WEIGHTS_FILE), metadata=SAFETENSORS_FORMAT)
        # Where the configuration names one of transformers' tokenizers, OpenCLIP looks for its files in the folder.
        if "tokenizer" in vars(self) and hasattr(self.tokenizer, "save_pretrained"):
            self.tokenizer.save_pretrained(str(folder))

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported model through `open_clip.create_model_and_transforms`."""
        import open_clip

        return open_clip.create_model_and_transforms(f"local-dir:{folder}")[0].eval()


__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "OpenCLIPAdapter"]
