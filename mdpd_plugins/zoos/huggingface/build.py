"""HuggingFace transformers: building a model, from weights or at random."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.built import Built
from mdpd_plugins.adapters.storage.checkpoint import check_keys, read_state_dict
from mdpd_plugins.adapters.storage.precision import TYPES
from mdpd_plugins.registry.errors import CheckpointError, ConfigError, MissingDependencyError, closest
from mdpd_plugins.zoos.huggingface.adapter import quiet
from mdpd_plugins.zoos.huggingface.models import CAUSAL, ENCODER, QUESTION, TEXT, Architecture, architecture, modality
from mdpd_plugins.zoos.huggingface.quantized import held_alike, only_in_blocks, quantized_by
from mdpd_plugins.zoos.huggingface.resized import at_size, square, with_image_size
from mdpd_plugins.zoos.huggingface.source import find_source, tokenizer_of, tokenizer_source, type_in
from mdpd_plugins.zoos.huggingface.texts import no_row, read_tokenizer
from mdpd_plugins.zoos.transformers_code import check_attention, own_code_only

HEADS = ("image", "text", "causal", "mean")


def build(
    *,
    name: str,
    pretrained: str | None = "auto",
    num_classes: int,
    head: str = "",
    tokenizer: str = "",
    image_size: int | Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Built:
    """A transformers classifier with `num_classes` outputs.

    Args:
        name: registered name, `huggingface/<model>` or `huggingface/<model type>`.
        head: "image" or "text", for a model type that has both classifiers; "causal" for the type's language model,
            which keeps the outputs it has; "mean" for its bare encoder (see `huggingface.encoder.build`).
        pretrained: "auto" (package, cache, then hub; random if none is available), a folder or hub id, or None.
        num_classes: outputs of the head.
        image_size: input side in pixels; where the model does not take it as it is, its positions are resized after
            loading (`resized.at_size`).
        tokenizer: folder or hub id of a tokenizer, for text models built without weights or whose folder has none; or
            `huggingface/<model>`, for that of a named model which a package carries.
        dtype: of the weights; None for the checkpoint's, which is told by its files. Where transformers keeps parts of
            a model in float32 beside a narrower type (T5's in float16), they are.
        options: fields of the model's configuration, such as `num_hidden_layers`; a mapping for a nested one.

    Raises:
        ConfigError: an option that the configuration does not have, or a head that this model cannot have.
        CheckpointError: an explicit checkpoint that is missing or of another architecture.
    """
    transformers = import_transformers()
    image_size = square(image_size)
    arch = _architecture(transformers, name, head)
    source, origin = find_source(arch, pretrained)
    config = _configuration(transformers, arch, source, name)
    _check_mean(name, head, config)
    if image_size is not None and not source:
        options = with_image_size(config, options, image_size)
    _set_fields(config, options, name)
    if options and not source:
        # Made anew, so that fields worked out from others follow (DINOv2's stage names from its depth): a
        # configuration that contradicts itself cannot be read back from an export.
        with quiet():  # of special tokens outside a smaller vocabulary, which are dropped below
            config = transformers.AutoConfig.for_model(arch.model_type, **{**arch.config, **options})
    named = tokenizer_source(tokenizer)
    files = source or named or tokenizer_of(arch)
    made_up = _fit_to_task(config, arch, num_classes, named or files)
    auto = getattr(transformers, arch.auto_class)
    if not source:
        stored = None
        model, finish = auto.from_config(config, dtype=dtype or torch.float32), None
    else:
        packed = quantized_by(config, source)
        stored = _named_type(config) if packed else type_in(source)
        held = dtype or stored or torch.float32
        model, finish = _load(auto, config, source, name, head, held)
        if packed:
            held_alike(model, held)
            check = finish

            def finish(adapter: Any) -> None:
                only_in_blocks(adapter)
                check(adapter)

        if image_size is not None:
            model = at_size(auto, model, image_size, name)
    settings = {"tokenizer": named, "image_size": image_size, "made_up_padding": made_up}
    return Built(model, origin=origin, source=files, settings=settings, finish=finish, stored=stored)


def _named_type(config: Any) -> torch.dtype:
    """The type that a configuration names: files of quantised weights hold several."""
    named = getattr(config, "dtype", None)
    return next((dtype for dtype in TYPES.values() if dtype == named), torch.float32)


def _architecture(transformers: Any, name: str, head: str) -> Architecture:
    """The architecture of a name and a head, if the two go together."""
    if head and head not in HEADS:
        raise ConfigError(f"backbone.options.head={head!r} does not exist: {closest(head, HEADS)}")
    arch = architecture(name.rpartition("/")[2], head)
    if head in ("image", "text") and (own := modality(arch)) != head:
        raise ConfigError(f"backbone.options.head={head!r}: {name} is a classifier of {own} inputs; leave it out")
    decoders = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if arch.auto_class == CAUSAL and arch.model_type not in decoders:
        raise ConfigError(f"{name} has no causal language model: choose another backbone, such as huggingface/gpt2")
    return arch


def _configuration(transformers: Any, arch: Architecture, source: str, name: str) -> Any:
    """The configuration in a source, or the architecture's own; of a model that holds several, the one of its type."""
    if source:
        try:
            with own_code_only(source):
                local = os.path.isdir(source)
                config = transformers.AutoConfig.from_pretrained(
                    source, local_files_only=local, trust_remote_code=False
                )
        except CheckpointError:
            raise
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{source!r} has no readable transformers configuration: {error}") from error
        check_attention(config, source)
    else:
        config = transformers.AutoConfig.for_model(arch.model_type, **arch.config)
    wanted = transformers.AutoConfig.for_model(arch.model_type).model_type
    config = next((c for c in map(vars(config).get, config.sub_configs) if c and c.model_type == wanted), config)
    if config.model_type != wanted:
        raise CheckpointError(
            f"{source!r} holds a {config.model_type!r} model, but {name} is {arch.model_type!r}: choose a "
            f"backbone of that type, or another checkpoint"
        )
    return config


def _check_mean(name: str, head: str, config: Any) -> None:
    two_inputs = architecture(name.rpartition("/")[2]).auto_class == QUESTION
    if head == "mean" and (two_inputs or config.is_encoder_decoder):
        what = "reads a picture and a question" if two_inputs else "has a decoder behind its encoder"
        raise ConfigError(f"{name} {what}: backbone.options.head='mean' is for encoders alone; leave it out")


def _fit_to_task(config: Any, arch: Architecture, num_classes: int, files: str) -> bool:
    """Outputs, padding and caches as training needs them.

    Args:
        files: folder or hub id of the tokenizer; "" for none.

    Returns:
        Whether the padding token had to be made up: neither the configuration nor the tokenizer names one.
    """
    made_up = False
    causal = arch.auto_class == CAUSAL
    if causal:
        _drop_foreign_tokens(config.get_text_config())
    else:
        config.num_labels = num_classes
    config.architectures = config.architectures or []  # where a type has several classifiers, the first
    if arch.auto_class == TEXT and getattr(config.get_text_config(), "pad_token_id", None) is None:
        # Decoders find the last token of a text by it. Where there is no tokenizer that would say so, any token serves.
        found = _padding(files)
        rows = getattr(config.get_text_config(), "vocab_size", None)
        if found is not None and isinstance(rows, int) and found >= rows:
            raise no_row(found, "its padding token", rows)
        made_up = found is None
        config.get_text_config().pad_token_id = config.pad_token_id = found or 0
    for part in (config, *(getattr(config, k) for k in getattr(config, "sub_configs", {}))):
        if not causal and getattr(part, "use_cache", False):
            part.use_cache = False  # a classifier generates nothing, and its blocks may run a second time
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = config.pad_token_id  # T5's, which its configuration no longer says
    return made_up


def _padding(files: str) -> int | None:
    try:
        return read_tokenizer(files).pad_token_id if files else None
    except CheckpointError:  # said when texts are to be prepared
        return None


def _set_fields(config, values: dict[str, Any], name: str) -> None:
    from transformers import PretrainedConfig

    for key, value in values.items():
        # In `vars` first: transformers refuses to read a field in which layers differ (Gemma 4's head_dim).
        if key not in vars(config) and not hasattr(config, key):
            known = [k for k in config.to_dict() if not k.startswith("_")]
            raise ConfigError(f"{name} has no option {key!r}: {closest(key, known)}")
        if isinstance(value, dict) and isinstance(part := vars(config).get(key), PretrainedConfig):
            _set_fields(part, value, f"{name}'s {key}")
        else:
            setattr(config, key, value)


def _drop_foreign_tokens(config) -> None:
    # Special tokens of the type's usual vocabulary, where the model is built with a smaller one.
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if isinstance(token := getattr(config, key, None), int) and token >= config.vocab_size:
            setattr(config, key, None)


def _load(
    auto: Any, config: Any, source: str, name: str, head: str, dtype: torch.dtype
) -> tuple[nn.Module, Callable[[Any], None]]:
    """The model with the weights of `source`, and the check that they were its own, for when there is an adapter."""
    folder = Path(source)
    local = folder.is_dir()
    if local and not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        for file in folder.glob("pytorch_model*.bin"):
            read_state_dict(file)  # refuses pickled code with our message before transformers opens it
    try:
        with quiet(), own_code_only(source):
            model, report = auto.from_pretrained(
                source,
                config=config,
                dtype=dtype,
                local_files_only=local,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except CheckpointError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"weights of {name} could not be read from {source!r}: {error}") from error
    whole = auto.__name__ in (ENCODER, CAUSAL)  # every weight is in the checkpoint, the output layer's too

    def check(adapter: Any) -> None:
        new = {} if whole else adapter.head_parameters()
        unused = ("pooler.",) if head == "mean" else ()
        missing = [k for k in report["missing_keys"] if k not in new and not k.startswith(unused)]
        if missing and not whole:
            encoder = _encoder_keys(config)  # a norm or a pooler that the classifier adds is new like its output layer
            missing = [k for k in missing if k.removeprefix(f"{model.base_model_prefix}.") in encoder]
        shapes = [k[0] for k in report["mismatched_keys"] if k[0] not in new]
        # Pretraining heads are left out freely; a further block, told by its number alone, is another architecture.
        base = model.base_model_prefix
        kinds = {_unnumbered(k, base) for k in model.state_dict()}
        unexpected = [k for k in report["unexpected_keys"] if _unnumbered(k, base) in kinds]
        check_keys(f"{source!r}", type(model).__name__, missing, unexpected, shapes)

    return model, check


def _encoder_keys(config: Any) -> set[str]:
    """Keys of a type's bare encoder, which a checkpoint without any head holds."""
    import transformers

    try:
        with torch.device("meta"):
            return set(transformers.AutoModel.from_config(config).state_dict())
    except RuntimeError:  # some work out numbers while they are built, which a meta tensor does not have
        return set(transformers.AutoModel.from_config(config).state_dict())


def _unnumbered(key: str, base: str) -> str:
    """A key with its numbers left open, the same in a bare encoder's checkpoint and in a classifier's."""
    return re.sub(r"\d+", "#", key.removeprefix(f"{base}."))


def import_transformers() -> Any:
    """The library.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError("this needs transformers: pip install 'mdpd-plugins[huggingface]'") from error
    return transformers


__all__ = ["build", "import_transformers"]
