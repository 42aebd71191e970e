"""Faults in files, as disks, transfers and people make them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

KINDS = ("flip", "cut", "empty", "delete", "swap", "folder")


def damage(rng: random.Random, path: Path, other: Path) -> str:
    """One fault in a file; its name.

    flip: one bit is another. cut: its end is missing. swap: the file `other` is in its place. folder: a folder is.
    """
    content, kind = path.read_bytes(), rng.choice(KINDS if path.stat().st_size else ("delete", "swap", "folder"))
    if kind == "flip":
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
    elif kind in ("cut", "empty"):
        path.write_bytes(content[: rng.randrange(len(content)) if kind == "cut" else 0])
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "swap":
            shutil.copy(other, path)
    return kind
