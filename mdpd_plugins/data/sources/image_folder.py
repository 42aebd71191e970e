"""Source type `image_folder`: one sub-folder per class."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from mdpd_plugins.data.images import SUFFIXES, read_image
from mdpd_plugins.data.labels import encode_pools
from mdpd_plugins.data.picture_files import is_picture_file, pictures_below
from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import DataError, DataWarning

_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def open_image_folder(
    *, root: str, classes: Iterable[str] | None = None, description: str | None = None
) -> dict[str, Source]:
    """Open `root/<class>/**/<image>`, or `root/train/<class>/...` with optional `val` and `test` beside it.

    Names of splits may be written large (`Train`). Hidden folders are left out, and links to folders are followed.
    Pictures that lie beside the class folders have no class: a warning counts them.

    Args:
        root: the folder.
        classes: class names in index order; by default the sub-folders in alphabetical order.
        description: what the data is, its licence and origin, for the model card.

    Returns:
        Pool name ("train", "val", "test") -> source.

    Raises:
        DataError: a folder that is missing or holds no classes, an empty class folder, a class folder outside
            `classes`, or a file that is no image; each named. Splits without class folders in them, where `classes`
            does not say that they are the classes.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DataError(f"image folder {root} does not exist; correct data root=")
    homes = _pool_folders(base)
    if classes is None and homes["train"] == base:
        _check_not_splits(base)
    _warn_of_strays({base, *homes.values()})
    files: dict[str, list[Path]] = {}
    names: dict[str, list[str]] = {}
    for pool, home in homes.items():
        files[pool], names[pool] = [], []
        for folder in _class_folders(home):
            images = images_below(folder, f"class folder {folder}")
            files[pool] += images
            names[pool] += [folder.name] * len(images)
    labels, known = encode_pools(
        names, kind="single", classes=classes, where=lambda pool, i: f"folder {files[pool][i].parent}"
    )
    if classes is not None:
        empty = sorted(set(known) - set(names["train"]))
        if empty:
            raise DataError(f"class {empty[0]!r} has no folder under {homes['train']}; add it or drop the class")
    about = description or f"Images of the folder {base.resolve().name!r}, one sub-folder per class."
    return {
        pool: Source(files[pool], labels[pool], known, "image", about, read=read_image, augment="crop")
        for pool in homes
    }


def _pool_folders(base: Path) -> dict[str, Path]:
    there = {p.name.lower(): p for p in sorted(base.iterdir()) if p.is_dir()}
    found = {pool: there[name] for pool, names in _FOLDERS.items() for name in names[::-1] if name in there}
    # A class may well be called "test"; only a train folder that holds folders makes these names splits.
    if "train" in found and any(p.is_dir() for p in found["train"].iterdir()):
        return found
    return {"train": base}


def _check_not_splits(home: Path) -> None:
    names = [p.name for p in _class_folders(home)]
    splits = {name.lower() for names in _FOLDERS.values() for name in names}
    if len(names) > 1 and splits.issuperset(name.lower() for name in names):
        raise DataError(
            f"{', '.join(names)} in {home} are called like splits, but there is no train folder with class folders in "
            f"it: put each class's images into a sub-folder of its name (train/cat). If these are the classes, say so: "
            f"classes={names}"
        )


def _warn_of_strays(homes: Iterable[Path]) -> None:
    strays = sorted(p for home in homes for p in home.iterdir() if is_picture_file(p) and p.is_file())
    if strays:
        named = ", ".join(p.name for p in strays[:3]) + ", ..." * (len(strays) > 3)
        warnings.warn(
            f"pictures beside the class folders of {strays[0].parent} have no class and are left out "
            f"({len(strays)}): {named}",
            DataWarning,
            stacklevel=3,
        )


def _class_folders(home: Path) -> list[Path]:
    folders = sorted(p for p in home.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataError(f"{home} holds no class folders; put each class's images into a sub-folder of its name")
    return folders


def images_below(folder: Path, what: str) -> list[Path]:
    """Pictures of a folder and of those inside it, by their suffix, in order; `what` names it if there are none.

    Raises:
        DataError: there are none.
    """
    paths = pictures_below(folder)
    if not paths:
        raise DataError(f"{what} holds no image ({', '.join(sorted(SUFFIXES))}); add images or remove it")
    return paths
