"""Exports for transformers: `from_pretrained`, with the image processor or tokenizer of the folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mdpd_plugins.adapters.outputs import logits_of
from mdpd_plugins.adapters.storage.checkpoint import check_keys
from mdpd_plugins.adapters.storage.trust import remote_code_trusted
from mdpd_plugins.adapters.transform import TextTransform
from mdpd_plugins.exports.exported import ExportedModel, Tensors, on_first_use
from mdpd_plugins.exports.record import ExportRecord
from mdpd_plugins.zoos.huggingface.adapter import arguments, quiet
from mdpd_plugins.zoos.huggingface.build import import_transformers
from mdpd_plugins.zoos.huggingface.causal import PackedTransform, token_stream
from mdpd_plugins.zoos.huggingface.encoder import HEAD_WEIGHTS, EncoderWithHead
from mdpd_plugins.zoos.huggingface.models import CAUSAL, IMAGE, QUESTION, TEXT
from mdpd_plugins.zoos.huggingface.texts import USUAL_LENGTH, Tokens, read_tokenizer
from mdpd_plugins.zoos.transformers_code import check_attention, own_code_only


def load(folder: Path, record: ExportRecord) -> ExportedModel:
    """A classifier, or a bare encoder with the output layer that lies beside it."""
    import_transformers()
    with quiet(), own_code_only(folder):
        check_attention(_configuration(folder), folder)
        model = _encoder(folder) if (folder / HEAD_WEIGHTS).is_file() else _classifier(folder, record)
    # Some classifiers (HGNetV2) have a part of that name too, which reads something else.
    reader = model.encoder if isinstance(model, EncoderWithHead) else model
    taken = arguments(reader)

    def call(inputs: Tensors) -> torch.Tensor:
        # A tokenizer may put out more than the model reads: FNet takes no mask.
        given = {k: v for k, v in inputs.items() if k in taken or "kwargs" in taken}
        return logits_of(model(**given))

    def prepare() -> Any:
        with quiet(), own_code_only(folder):
            return PREPARATIONS["language" if record.task == "language" else record.modality](folder, record)

    return ExportedModel(record, model, on_first_use(prepare), call)


def _only_here() -> dict[str, Any]:
    return {"local_files_only": True, "trust_remote_code": remote_code_trusted()}


def _configuration(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(folder), **_only_here())


def _classifier(folder: Path, record: ExportRecord) -> Any:
    import transformers

    auto = getattr(transformers, CAUSAL if record.task == "language" else CLASSIFIERS[record.modality])
    model, report = auto.from_pretrained(str(folder), **_only_here(), output_loading_info=True)
    # transformers draws what is missing at random and says so in a warning.
    shapes = [key[0] for key in report["mismatched_keys"]]
    check_keys(repr(str(folder)), type(model).__name__, report["missing_keys"], report["unexpected_keys"], shapes)
    return model


def _encoder(folder: Path) -> EncoderWithHead:
    return EncoderWithHead.from_pretrained(folder)


def _images(folder: Path, record: ExportRecord) -> Any:
    from transformers import AutoImageProcessor

    # Pillow's arithmetic, in which training prepares images; torchvision's rounds some pixels the other way.
    processor = AutoImageProcessor.from_pretrained(str(folder), **_only_here(), backend="pil")

    def prepare(images: Sequence[Any]) -> Tensors:
        if hasattr(processor, "max_num_patches") and record.size:  # it would keep shapes; training stretched them
            images = [image.resize(record.size[::-1], processor.resample) for image in images]
        return dict(processor(list(images), return_tensors="pt"))

    return prepare


def _texts(folder: Path, record: ExportRecord) -> Any:
    return TextTransform(Tokens(read_tokenizer(str(folder))), record.max_length or USUAL_LENGTH)


def _packed(folder: Path, record: ExportRecord) -> Any:
    # Blocks of tokens and not a row a text, as in training.
    tokens = token_stream(read_tokenizer(str(folder)), _configuration(folder).get_text_config().vocab_size)
    return PackedTransform(tokens, record.max_length or USUAL_LENGTH)


def _questions(folder: Path, record: ExportRecord) -> Any:
    images, texts = _images(folder, record), _texts(folder, record)

    def prepare(examples: Sequence[Any]) -> Tensors:
        pictures, questions = zip(*examples, strict=True)
        return {**images(pictures), **texts(questions)}

    return prepare


CLASSIFIERS = {"image": IMAGE, "text": TEXT, "image-text": QUESTION}
PREPARATIONS = {"image": _images, "text": _texts, "image-text": _questions, "language": _packed}

__all__ = ["load"]
