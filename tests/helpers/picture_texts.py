"""Runs on pictures with texts: a table of them, and configurations of what reads both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from running import write_config
from small_zoo import BACKBONES

COLOURS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 240)}
QUESTIONS = ("which colour is it", "tell me the colour of what you see here")
# What reads both -> (image backbone, text backbone or none, kind of task).
READERS = {
    "pair": ("mm-vit", "hf-minilm", "answers"),
    "pair of captions": ("hf-vit", "oc-text", "matches"),
    "open_clip": ("oc-image", None, "matches"),
    "vilt": ("hf-vilt", None, "answers"),
}


def picture_table(folder: Path, pictures: int = 20) -> Path:
    """A CSV with two rows a picture: file, question, answer, caption."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,question,answer,caption"]
    for i in range(pictures):
        name, colour = list(COLOURS.items())[i % 3]
        noise = rng.integers(-15, 15, (30 + i % 5, 36, 3))
        Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")
        lines += [f"{i:02}.png,{q},{name},a {name} thing number {i} {q}" for q in QUESTIONS]
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def source_of(table: Path, kind: str) -> dict[str, Any]:
    """The data source of a task."""
    columns = {"text_column": "question", "label_column": "answer"}
    if kind == "matches":
        columns = {"text_column": "caption", "label_kind": "pair"}
    return {"type": "table", "path": str(table), "image_column": "file", "val_size": 8, **columns}


def config_of(folder: Path, reader: str, table: Path, **sections: Any) -> Path:
    """A config file of one of `READERS` on a table; ten steps of eight samples unless said otherwise."""
    image, text, kind = READERS[reader]
    given: dict[str, Any] = {"data": {"source": source_of(table, kind), "batch_size": 8}, "task": {"width": 16}}
    # Large steps, so that a path that had not been trained would be told from one that had.
    given["optim"] = {"norm_lr": 0.02, "head_lr": 0.02}
    if text is not None:
        name, options = BACKBONES[text]
        given["text_backbone"] = {"name": name, "pretrained": None, "options": options}
    if reader == "open_clip":
        name, options = BACKBONES[image]
        given["backbone"] = {"name": name, "options": {**options, "tower": "both"}}
    for key, value in sections.items():
        given[key] = {**given.get(key, {}), **value} if isinstance(value, dict) else value
    return write_config(folder, image, **given)
