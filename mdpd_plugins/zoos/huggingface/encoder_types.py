"""The bare encoders there are in transformers: model types that have no classifier of their own.

A type is one, read off the installed source, if

- `AutoModel` builds it, and no classifier of images or texts exists for it, nor one of video, sound or series;
- its forward reads one input: `pixel_values` or `input_ids` comes first, no other argument is required, and none is
  named for another kind of input or for how packed images lie. What is said to read sound, or video and no image,
  is out;
- it is one network: its configuration holds no other models' configurations, and its output none of an encoder
  beside a decoder. So detectors on a backbone, encoder-decoders and image-text models are out;
- its output has a `last_hidden_state`.

Decoder-only language models without a classifier count: what leaves their last block is pooled like any text's.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mdpd_plugins.zoos.huggingface.model_tables import TABLE, read_off, read_tables

CACHE_FORMAT = 4
READS = {"pixel_values": "image", "input_ids": "text"}
_CLASSIFIERS = re.compile(r"MODEL_FOR_(IMAGE|SEQUENCE|VIDEO|AUDIO|TIME_SERIES)_CLASSIFICATION_MAPPING_NAMES")
# Arguments that carry another kind of input than the first one does, or say how several images are packed.
_INPUT = re.compile(
    r"pixel|image|video|audio|bbox|grid|target_sizes|protein|input_(values|features)|^(input_ids|states?)$"
)
# Not counted: what follows from the image alone, and what only another tower gives.
_NO_INPUT = {"spatial_shapes", "pixel_attention_mask", "visual_pos_masks"}

_CLASS = re.compile(r"^class (\w+)(?:\(([^)]*)\))?:", re.M)
_FORWARD = re.compile(r"^    def forward\((.*?)\)(?:\s*->\s*([^\n]*?))?:\s*(?:#[^\n]*)?$", re.M | re.S)
_FIELD = re.compile(r"^    (\w+)\s*:", re.M)
_MODALITIES = re.compile(r"^    input_modalities\s*(?::[^=\n]*)?=\s*([^\n#]+)", re.M)
_NESTED = re.compile(r"^    sub_configs(?:_defaults)?\s*(?::[^=\n]*)?=\s*\{\s*[^\s}]", re.M)


def encoder_types() -> dict[str, str]:
    """Model type -> "image" or "text", for every bare encoder; sorted. Empty without transformers.

    The sources are searched once for each version and place of transformers, then the cache answers.
    """
    return read_off("transformers-encoders", CACHE_FORMAT, read_encoder_types, _valid)


def read_encoder_types(folder: Path) -> dict[str, str]:
    """Apply the rule above to the transformers package in `folder`."""
    auto = folder / "models" / "auto"
    tables = read_tables(folder / TABLE)
    classified = {t for name, rows in tables.items() if _CLASSIFIERS.fullmatch(name) for t in rows}
    candidates = {t: c for t, c in tables.get("MODEL_MAPPING_NAMES", {}).items() if t not in classified}
    configs = _configurations(auto)
    outputs = _Classes((folder / "modeling_outputs.py").read_text(encoding="utf-8"))
    wanted = set(candidates.values()) | {configs[t] for t in candidates if t in configs}
    sources = _sources(folder / "models", wanted)
    found = {}
    for model_type, name in candidates.items():
        config = configs.get(model_type, "")
        if name in sources and config in sources and not sources[config].find(config, _NESTED.search):
            if reads := _reads(sources[name], name, outputs):
                found[model_type] = reads
    return dict(sorted(found.items()))


class _Classes:
    """The classes of one file, found by their first lines: a syntax tree of every file would take half a minute."""

    def __init__(self, text: str):
        heads = list(_CLASS.finditer(text))
        ends = [h.start() for h in heads[1:]] + [len(text)]
        self.bodies = {h[1]: text[h.end() : end] for h, end in zip(heads, ends, strict=True)}
        self.bases = {h[1]: re.findall(r"\w+(?=\s*(?:,|$))", h[2] or "") for h in heads}

    def lineage(self, name: str) -> Iterator[str]:
        """Bodies of the class and of those in this file that it is derived from, nearest first."""
        names = [name]
        for one in names:
            if one in self.bodies:
                yield self.bodies[one]
                names += [base for base in self.bases[one] if base not in names]

    def find(self, name: str, search: Callable[[str], re.Match[str] | None]) -> re.Match[str] | None:
        """What `search` finds in the nearest body that has it."""
        return next((m for body in self.lineage(name) if (m := search(body))), None)


def _sources(models: Path, wanted: set[str]) -> dict[str, _Classes]:
    """Class -> the classes of the file that defines it."""
    found = {}
    for file in sorted([*models.glob("*/modeling_*.py"), *models.glob("*/configuration_*.py")]):
        text = file.read_text(encoding="utf-8")
        if there := wanted & {m[1] for m in _CLASS.finditer(text)}:
            classes = _Classes(text)
            found.update({name: classes for name in there})
    return found


def _configurations(auto: Path) -> dict[str, str]:
    """Model type -> class of its configuration."""
    found: dict[str, str] = {}
    for file in ("auto_mappings.py", "configuration_auto.py"):
        text = (auto / file).read_text(encoding="utf-8") if (auto / file).is_file() else ""
        for pair in re.finditer(r"[\"']([\w.-]+)[\"'](?:,|:)\s*[\"'](\w+Config)[\"']", text):
            found.setdefault(pair[1], pair[2])
    return found


def _reads(classes: _Classes, name: str, outputs: _Classes) -> str:
    """ "image" or "text" if the class keeps the rule for inputs and outputs, else ""."""
    forward = classes.find(name, _FORWARD.search)
    if forward is None:
        return ""
    arguments = ast.parse(f"def forward({forward[1]}): pass").body[0].args  # type: ignore[attr-defined]
    names = [a.arg for a in arguments.args][1:]
    required = set(names[1 : len(names) - len(arguments.defaults)]) - _NO_INPUT
    reads = READS.get(names[0], "") if names else ""
    others = [n for n in names[1:] if _INPUT.search(n) and n not in _NO_INPUT]
    said = classes.find(name, _MODALITIES.search)
    heard = said is not None and ("audio" in said[1] or ("video" in said[1] and "image" not in said[1]))
    if not reads or required or others or heard:
        return ""
    fields = {
        f
        for output in re.findall(r"\w+", forward[2] or "")
        for one in (classes, outputs)
        for body in _outputs(one, outputs, output)
        for f in _FIELD.findall(body)
    }
    return reads if "last_hidden_state" in fields and "encoder_last_hidden_state" not in fields else ""


def _outputs(classes: _Classes, general: _Classes, name: str) -> Iterator[str]:
    # A model's own output class is often derived from one in modeling_outputs.py.
    yield from classes.lineage(name)
    for base in classes.bases.get(name, []):
        yield from general.lineage(base)


def _valid(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and set(value.values()) <= set(READS.values())


__all__ = ["encoder_types", "read_encoder_types"]
