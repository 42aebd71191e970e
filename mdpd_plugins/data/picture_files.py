"""Which files below a folder are pictures."""

from __future__ import annotations

import os
from pathlib import Path

from mdpd_plugins.data.images import SUFFIXES


def is_picture_file(path: Path) -> bool:
    """Whether a file's name says that it is a picture, and it is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def pictures_below(folder: Path) -> list[Path]:
    """Pictures of a folder and of those inside it, by their suffix, in order.

    Links to folders are followed, as torchvision's and timm's readers do; a folder that is reached twice is read once.
    What lies in a hidden folder is no data: notebooks keep copies of pictures in `.ipynb_checkpoints`.
    """
    found: list[Path] = []
    seen = {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, followlinks=True):
        entered = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(place, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                entered.append(name)
        folders[:] = entered  # what os.walk goes into
        found += [path for path in map(Path(place).joinpath, files) if is_picture_file(path)]
    return sorted(found)


__all__ = ["is_picture_file", "pictures_below"]
