"""HuggingFace transformers: encoders that have no classifier of their own, with a linear output layer on top."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.built import Built
from mdpd_plugins.adapters.inspection.arrangement import settle, vector_lengths
from mdpd_plugins.adapters.storage.checkpoint import SAFETENSORS_FORMAT, read_state_dict
from mdpd_plugins.adapters.storage.trust import remote_code_trusted
from mdpd_plugins.registry.errors import CapabilityError, CheckpointError
from mdpd_plugins.zoos.huggingface.adapter import HuggingFaceAdapter, arguments
from mdpd_plugins.zoos.huggingface.build import build as build_model
from mdpd_plugins.zoos.huggingface.models import ENCODER, architecture
from mdpd_plugins.zoos.transformers_code import own_code_only

HEAD_WEIGHTS, HEAD_SETTINGS = "head.safetensors", "head.json"
POOLER, MEAN = "pooler_output", "mean"
_AXES = {"BTD": (1,), "BCHW": (2, 3), "BHWC": (1, 2)}

_USAGE = """\
Logits, where EXPORT is this folder:

```python
import torch, transformers, safetensors.torch
encoder = transformers.AutoModel.from_pretrained("EXPORT").eval()
head = safetensors.torch.load_file("EXPORT/head.safetensors")
output = encoder({call})
pooled = {pooled}
logits = torch.nn.functional.linear(pooled, head["weight"], head["bias"])
```"""


class EncoderWithHead(nn.Module):
    """A bare transformers encoder, its output pooled to one vector a sample, and a linear layer.

    How it pools is decided once, from the encoder's answer to one example: its own `pooler_output` where that is one
    vector a sample; else the mean of `last_hidden_state` over its positions, for text over those that are not padding.

    Args:
        encoder: what `AutoModel` builds.
        num_outputs: logits.
        pooling: "pooler_output" or "mean".
        width: channels of the pooled vector.
        dims: axes of `last_hidden_state` that are positions, for "mean".
    """

    base_model_prefix = "encoder"  # as transformers' models say it, which peft asks
    encoder: Any  # transformers' classes have attributes that PyTorch types as Tensor or Module

    def __init__(self, encoder: nn.Module, num_outputs: int, pooling: str, width: int, dims: tuple[int, ...] = ()):
        super().__init__()
        self.encoder = encoder
        self.pooling, self.dims = pooling, tuple(dims)
        self.head: nn.Module = nn.Linear(width, num_outputs)

    @property
    def config(self) -> Any:
        """The encoder's configuration."""
        return self.encoder.config

    @property
    def main_input_name(self) -> str:
        """ "pixel_values" or "input_ids"."""
        return _main_input(self.encoder)

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        """The encoder's own switch."""
        self.encoder.set_attn_implementation(*args, **kwargs)

    def forward(self, **kwargs: Any) -> Any:
        """transformers' classifier output with logits (B, num_outputs); the arguments are the encoder's."""
        from transformers.modeling_outputs import SequenceClassifierOutput

        output = _run(self.encoder, kwargs)
        if self.pooling == POOLER:
            pooled = output.pooler_output.flatten(1)
        else:
            pooled = _mean(output.last_hidden_state, self.dims, kwargs.get("attention_mask"))
        return SequenceClassifierOutput(logits=self.head(pooled), attentions=getattr(output, "attentions", None))

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:
        """The encoder as transformers writes it, and the output layer in two small files beside it."""
        from safetensors.torch import save_file

        self.encoder.save_pretrained(folder, **kwargs)
        settings = {"pooling": self.pooling, "dims": list(self.dims)}
        (Path(folder) / HEAD_SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")
        weights = {k: v.detach().contiguous() for k, v in self.head.state_dict().items()}
        save_file(weights, str(Path(folder) / HEAD_WEIGHTS), metadata=SAFETENSORS_FORMAT)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> EncoderWithHead:
        """Read what `save_pretrained` wrote.

        Raises:
            CheckpointError: the output layer's files are missing or hold something else.
        """
        import transformers

        settings, weights = Path(folder) / HEAD_SETTINGS, read_state_dict(Path(folder) / HEAD_WEIGHTS)
        try:
            raw = json.loads(settings.read_text(encoding="utf-8"))
            pooling, dims = raw["pooling"], tuple(int(d) for d in raw["dims"])
            (outputs, width), known = weights["weight"].shape, pooling in (POOLER, MEAN) and "bias" in weights
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{str(folder)!r} holds no output layer that can be read: {error}") from error
        if not known:
            raise CheckpointError(f"{str(settings)!r} names the pooling {pooling!r}; {POOLER!r} and {MEAN!r} exist")
        with own_code_only(folder):
            encoder = transformers.AutoModel.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=remote_code_trusted()
            )
        model = cls(encoder, outputs, pooling, width, dims)
        model.head.load_state_dict(weights)
        return model.eval()


def _run(encoder: Any, inputs: dict[str, Any]) -> Any:
    if hasattr(encoder.config, "mask_ratio") and "pixel_values" in inputs:
        # A masked autoencoder shuffles its patches by noise, also where it hides none.
        image, patch = inputs["pixel_values"], encoder.config.patch_size
        count = (image.shape[-2] // patch) * (image.shape[-1] // patch)
        inputs = {**inputs, "noise": torch.arange(count, device=image.device).expand(image.shape[0], -1)}
    return encoder(**inputs)


def _mean(hidden: torch.Tensor, dims: tuple[int, ...], mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return hidden.mean(dims)
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


class HuggingFaceEncoderAdapter(HuggingFaceAdapter):
    """A bare transformers encoder with a linear output layer.

    Args:
        model: an `EncoderWithHead`.
    """

    model: EncoderWithHead

    @property
    def _reader(self) -> nn.Module:
        return self.model.encoder

    def example_inputs(self, batch: int = 2) -> dict[str, torch.Tensor]:
        """Inputs of the model's own size; a text ends in the end-of-text token, where CLIP's pooler looks."""
        inputs = super().example_inputs(batch)
        end = getattr(self.config.get_text_config(), "eos_token_id", None)
        if "input_ids" in inputs and isinstance(end, int):
            mask = inputs["attention_mask"]
            last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(1)
            inputs["input_ids"][torch.arange(batch, device=mask.device), last] = end
        return inputs

    @property
    def usage(self) -> str:
        """Plain code that uses the export: the zoo has no class for an encoder with an output layer."""
        call = "pixel_values=images" if self.modality == "image" else "input_ids=ids, attention_mask=mask"
        pooled = f"output.last_hidden_state.mean({self.model.dims})"
        if self.model.pooling == POOLER:
            pooled = "output.pooler_output.flatten(1)"
        elif self.modality == "text":
            pooled = "(output.last_hidden_state * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)"
        return _USAGE.format(call=call, pooled=pooled)

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported folder: the encoder through `AutoModel.from_pretrained`, the output layer from its files."""
        return EncoderWithHead.from_pretrained(folder)


def build(*, name: str, num_classes: int, dtype: torch.dtype | None = None, **options: Any) -> Built:
    """A transformers classifier; of a type that has none, its encoder with a linear output layer of `num_classes`.

    Args:
        name: registered name, `huggingface/<model>` or `huggingface/<model type>`.
        dtype, options: those of `mdpd_plugins.zoos.huggingface.build.build`. head="mean" takes the encoder also where
            there is a classifier, and the mean of its output: sentence encoders were trained with that, and their
            type's classifier reads one token that was not.

    Raises:
        CapabilityError: what the encoder puts out cannot be pooled.
        as `huggingface_build.build` does.
    """
    built = build_model(name=name, num_classes=num_classes, dtype=dtype, **options)
    encoder: Any = built.model
    head = options.get("head", "")
    if architecture(name.rpartition("/")[2], head).auto_class != ENCODER:
        return built
    if hasattr(encoder.config, "mask_ratio"):
        encoder.config.mask_ratio = 0.0  # hiding patches is how a masked autoencoder was pretrained
    pooling, width, dims = _choose(encoder, (MEAN,) if head == MEAN else (POOLER, MEAN))
    model = EncoderWithHead(encoder, num_classes, pooling, width, dims)
    model.head.to(encoder.dtype)
    return replace(built, model=model)


def is_encoder(model: nn.Module) -> bool:
    """Whether a model is what `AutoModel` builds: its type's encoder, without an output layer."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    found = MODEL_MAPPING_NAMES.get(getattr(model.config, "model_type", ""), ())
    return type(model).__name__ in ((found,) if isinstance(found, str) else found)


def with_head(adapter: HuggingFaceAdapter, num_outputs: int) -> HuggingFaceEncoderAdapter:
    """An adapter of a live encoder with a linear output layer on top; the encoder is the very one.

    Raises:
        CapabilityError: what the encoder puts out cannot be pooled.
    """
    encoder, device = adapter.model, adapter.device
    pooling, width, dims = _choose(encoder, (POOLER, MEAN))
    model = EncoderWithHead(encoder, num_outputs, pooling, width, dims)
    model.head.to(device, adapter.dtype)
    return HuggingFaceEncoderAdapter(replace(adapter.built, model=model), name=adapter.name, modality=adapter.modality)


def _choose(encoder: nn.Module, allowed: tuple[str, ...]) -> tuple[str, int, tuple[int, ...]]:
    """(pooling, width, axes of positions) of an encoder, by its answer to one example."""
    adapter = HuggingFaceEncoderAdapter(EncoderWithHead(encoder, 1, MEAN, 1))
    taken: list[Any] = []
    handle = encoder.register_forward_hook(lambda module, args, output: taken.append(output))
    probe = adapter._probe
    try:
        with torch.no_grad():
            adapter.model.head = nn.Identity()
            probe.run()
            probe.varied(lambda run, _: run())
    finally:
        handle.remove()
    output, other = taken[0], taken[-1]
    if getattr(output, "last_hidden_state", None) is None:
        raise CapabilityError(
            f"{type(encoder).__name__} puts out no last_hidden_state that could be pooled: take one tower of it, "
            f"or a model with a classifier"
        )
    pooled = getattr(output, POOLER, None)
    if POOLER in allowed and isinstance(pooled, torch.Tensor) and pooled.shape[0] == 2:
        if pooled[0].numel() == pooled.shape[1]:
            return POOLER, pooled.shape[1], ()
    hidden = output.last_hidden_state
    axes = settle(hidden.shape, 2, other.last_hidden_state.shape, 3, vector_lengths(encoder))
    if axes not in _AXES:
        raise CapabilityError(f"{type(encoder).__name__} puts out {tuple(hidden.shape)}, which has no batch in front")
    dims = _AXES[axes]
    (channels,) = {1, 2, 3}.intersection(range(hidden.dim())) - set(dims)
    return MEAN, hidden.shape[channels], dims


def _main_input(encoder: nn.Module) -> str:
    # The class's own `main_input_name` is inherited, and wrong, in some towers of larger models.
    return "pixel_values" if "pixel_values" in arguments(encoder) else "input_ids"


__all__ = ["EncoderWithHead", "HuggingFaceEncoderAdapter", "build", "is_encoder", "with_head"]
