"""Source type `vtab`: the nineteen tasks of VTAB-1k by name, from a local folder in the usual layout."""

from __future__ import annotations

from pathlib import Path

from mdpd_plugins.data.images import read_image
from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import ConfigError, DataError, closest

# Task -> number of classes: Zhai et al. (arXiv:1910.04867), in the groups natural, specialised and structured.
CLASSES = {
    **{"caltech101": 102, "cifar": 100, "dtd": 47, "oxford_flowers102": 102, "oxford_iiit_pet": 37, "sun397": 397},
    **{"svhn": 10, "patch_camelyon": 2, "eurosat": 10, "resisc45": 45, "diabetic_retinopathy": 5},
    **{"clevr_count": 8, "clevr_dist": 6, "dmlab": 6, "kitti": 4, "dsprites_loc": 16, "dsprites_ori": 16},
    **{"smallnorb_azi": 18, "smallnorb_ele": 9},
}
_TRAIN, _VAL, _BOTH, _TEST = "train800.txt", "val200.txt", "train800val200.txt", "test.txt"


def open_vtab(*, name: str, root: str, full: bool = False) -> dict[str, Source]:
    """Open `root/<task>/`, whose lists name one picture and its class a line: `images/train/00001.jpg 3`.

    Args:
        name: the task: caltech101, cifar, dtd, oxford_flowers102, oxford_iiit_pet, svhn, sun397, patch_camelyon,
            eurosat, resisc45, diabetic_retinopathy, clevr_count, clevr_dist, dmlab, kitti, dsprites_loc,
            dsprites_ori, smallnorb_azi or smallnorb_ele.
        root: the folder of the tasks' folders.
        full: train on train800val200.txt and evaluate on test.txt, as final numbers are made. Without it, for tuning:
            train800.txt and val200.txt, with test.txt as test data where it is there.

    Returns:
        "train", "val", and "test" -> source; classes are called "0", "1", ... . Nothing is augmented by default, as
        is usual here: where an object stands or points is the label of several tasks.

    Raises:
        ConfigError: an unknown task.
        DataError: a folder, list or picture that is missing, or a line that is none; named, with the usual layout.
    """
    if name not in CLASSES:
        raise ConfigError(f"VTAB-1k has no task {name!r}: {closest(str(name), CLASSES)}")
    home = Path(root).expanduser() / name
    if not home.is_dir():
        raise DataError(f"VTAB-1k task {name!r} is not in {root}: there is no folder {home}; {_layout(name)}")
    lists = {"train": _BOTH, "val": _TEST, "test": _TEST} if full else {"train": _TRAIN, "val": _VAL, "test": _TEST}
    if not full and not (home / _TEST).is_file():
        del lists["test"]  # tuning does without
    read: dict[str, tuple[list[Path], list[int]]] = {}
    for file in dict.fromkeys(lists.values()):
        read[file] = _read(home / file, name)
    classes = tuple(str(i) for i in range(CLASSES[name]))
    about = (
        f"VTAB-1k's task {name}, {'800 + 200' if full else '800'} pictures to train on (local files). Zhai et al., "
        "arXiv:1910.04867; licence and origin are those of the task's own data set."
    )
    return {pool: Source(*read[file], classes, "image", about, read=read_image) for pool, file in lists.items()}


def _read(path: Path, name: str) -> tuple[list[Path], list[int]]:
    if not path.is_file():
        raise DataError(f"VTAB-1k task {name!r} lacks {path}; {_layout(name)}")
    images, labels = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        picture, _, label = line.strip().rpartition(" ")
        if not picture or not label.isdecimal():
            raise DataError(f"{path}, line {number}: {line!r} is no picture and class, as images/train/00001.jpg 3")
        if int(label) >= CLASSES[name]:
            raise DataError(f"{path}, line {number}: class {label}, but {name} has 0 to {CLASSES[name] - 1}")
        images.append(path.parent / picture)
        labels.append(int(label))
    missing = next((image for image in images if not image.is_file()), None)
    if missing is not None:
        raise DataError(f"{path} names {missing}, which does not exist; {_layout(name)}")
    return images, labels


def _layout(name: str) -> str:
    lists = ", ".join((_TRAIN, _VAL, _BOTH, _TEST))
    return f"expected ROOT/{name}/ with {lists} and the pictures they name below it"


__all__ = ["CLASSES", "open_vtab"]
