"""Source types `images` and `texts`: inputs without labels."""

from __future__ import annotations

from pathlib import Path

from mdpd_plugins.data.images import read_image
from mdpd_plugins.data.source import Source, as_is
from mdpd_plugins.data.sources.image_folder import images_below
from mdpd_plugins.registry import DataError


def open_images(*, root: str, description: str | None = None) -> dict[str, Source]:
    """Open every picture of a folder and of the folders inside it.

    Args:
        root: the folder. description: what the data is, its licence and origin.

    Returns:
        {"train": source} of label kind "none".

    Raises:
        DataError: the folder is missing or holds no picture.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DataError(f"image folder {root} does not exist; correct root=")
    paths = images_below(base, f"folder {base}")
    about = description or f"Pictures of the folder {base.resolve().name!r}, without labels."
    nothing = [0] * len(paths)
    return {"train": Source(paths, nothing, (), "image", about, label_kind="none", read=read_image, augment="crop")}


def open_texts(*, path: str, description: str | None = None) -> dict[str, Source]:
    """Open a UTF-8 text file: every line that is not blank is a text.

    Args:
        path: the file. description: what the data is, its licence and origin.

    Returns:
        {"train": source} of label kind "none".

    Raises:
        DataError: the file is missing, is not UTF-8, or holds no text.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"text file {path} does not exist; correct path=")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"text file {path} is not UTF-8 ({error}); convert it, for example with iconv") from error
    numbers = [i for i, line in enumerate(lines, 1) if line.strip()]
    if not numbers:
        raise DataError(f"text file {path} is empty: it holds no text")
    about = description or f"Lines of {file.name}, without labels."
    texts = [lines[i - 1] for i in numbers]

    def where(i: int) -> str:
        return f"{path}, line {numbers[i]}"

    return {"train": Source(texts, [0] * len(texts), (), "text", about, label_kind="none", read=as_is, where=where)}


__all__ = ["open_images", "open_texts"]
