"""Faults in files, as disks, transfers and people make them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

KINDS = ("flip", "cut", "empty", "delete", "swap", "folder")


def damage(rng: random.Random, path: Path, other: Path, kind: str | None = None) -> str:
    """One fault in a file, drawn if it is not given; its name. What has no content is deleted instead of changed.

    flip: one bit is another. cut: its end is missing. swap: the file `other` is in its place. folder: a folder is.
    """
    content, whole = path.read_bytes(), ("delete", "swap", "folder")
    kind = kind or rng.choice(KINDS if content else whole)
    kind = kind if content or kind in whole else "delete"
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
