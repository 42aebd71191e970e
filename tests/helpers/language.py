"""Causal language models at small size, and texts for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from running import WORDS, write_config
from small_zoo import randomise

from mdpd_plugins.adapters import Adapter, build_backbone
from mdpd_plugins.engine import Settings
from mdpd_plugins.tasks import Language
from mdpd_plugins.training.model import RunnerModel

VOCABULARY = 30522  # of the tokenizer in MiniLM's package
_GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
# Tied output layer and LayerNorm; output layer of its own and RMSNorm.
MODELS: dict[str, dict[str, Any]] = {"gpt2": _GPT2, "llama": _LLAMA}


def decoder(key: str, vocabulary: int = 300, **options: Any) -> Adapter:
    """A small language model, every weight drawn."""
    options = {**MODELS[key], "vocab_size": vocabulary, **options}
    adapter = build_backbone(f"huggingface/{key}", pretrained=None, num_classes=1, head="causal", **options)
    randomise(adapter.model)
    return adapter


def blocks(batch: int = 4, length: int = 12, vocabulary: int = 300, seed: int = 0) -> dict[str, Any]:
    """A training batch."""
    ids = torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))
    return {"inputs": {"input_ids": ids}, "labels": ids}


def language_distiller(adapter: Adapter, **settings: Any) -> RunnerModel:
    """A distiller of the language task."""
    torch.manual_seed(0)
    given = Settings.from_dict({"reduction": 4, "bottleneck": 8, "backbone_every": 1, "warmup": 0.0, **settings})
    return RunnerModel(adapter, Language(), given, max_steps=8)


def language_config(folder: Path, key: str = "gpt2", /, **sections: Any) -> Path:
    """A config of a small run on a table of texts."""
    rng = np.random.default_rng(0)
    lines = ["text,label"] + [f"{' '.join(rng.choice(WORDS, size=6 + i % 5))},{'ab'[i % 2]}" for i in range(60)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.csv").write_text("\n".join(lines) + "\n")
    columns = {"text_column": "text", "label_column": "label"}
    source = {"type": "table", "path": str(folder / "texts.csv"), "train_size": 30, "val_size": 18, **columns}
    options = {"head": "causal", "tokenizer": "huggingface/minilm-l6", "vocab_size": VOCABULARY, **MODELS[key]}
    defaults: dict[str, dict[str, Any]] = {
        "backbone": {"name": f"huggingface/{key}", "options": options},
        "task": {"kind": "language"},
        "data": {"source": source, "batch_size": 4, "eval_batch_size": 4, "max_length": 16},
        "train": {"max_steps": 5},
        "distill": {"backbone_every": 2},
    }
    for name, values in sections.items():
        defaults[name] = {**defaults.get(name, {}), **values}
    return write_config(folder, "hf-minilm", **defaults)
