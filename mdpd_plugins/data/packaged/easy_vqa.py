"""The packaged data set `easy-vqa`: questions about drawn shapes, or captions and attributes made of their answers."""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from mdpd_plugins.data.images import read_image, read_image_text
from mdpd_plugins.data.labels import number_items
from mdpd_plugins.data.packaged.package_files import package_path
from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import ConfigError, DataError, closest

_FORMS = ("question", "caption", "attributes")
_SHAPES = frozenset(("circle", "rectangle", "triangle"))
_COLOURS = frozenset(("black", "blue", "brown", "gray", "green", "red", "teal", "yellow"))
_ANSWERS = tuple(sorted({*_SHAPES, *_COLOURS, "yes", "no"}))
_ATTRIBUTES = (*sorted(_COLOURS), *sorted(_SHAPES))
_ABOUT = (
    "easy-VQA: questions about 5,000 drawn pictures (64x64) of one coloured shape each, 13 answers; by Victor Zhou, "
    "from the pip package easy-vqa (MIT)"
)
Row = tuple[str, str, int]
"""(question, answer, number of the picture)"""


@functools.lru_cache(maxsize=2)
def open_easy_vqa(*, form: str = "question") -> dict[str, Source]:
    """Pictures, most with texts, in the package's own parts for training and test.

    Args:
        form: "question": a question about the picture, labelled with its answer (38,575 for training, 9,673 for
            test). "caption", for retrieval: one caption a picture, "a red circle", put together from the answers to
            that picture's questions. There are 24 different captions, and pictures with the same one are the same
            item: a caption is a right answer for each of them, because nothing in it tells them apart. Pictures
            whose questions do not reveal both shape and colour are left out (3,542 stay for training, 880 for test).
            "attributes": the same pictures without a text, each with two labels of eleven, its colour and its shape.

    Raises:
        MissingDependencyError: easy-vqa is not installed.
        DataError: its files are not what they should be.
        ConfigError: another form.
    """
    if form not in _FORMS:
        raise ConfigError(f"easy-vqa has no form {form!r}: {closest(str(form), _FORMS)}")
    rows = {pool: _read(pool) for pool in ("train", "test")}
    if form == "question":
        return {pool: _questions(pool, part) for pool, part in rows.items()}
    shown = {pool: _revealed(part) for pool, part in rows.items()}
    if form == "attributes":
        return {pool: _attributes(pool, part) for pool, part in shown.items()}
    items = number_items({pool: list(part.values()) for pool, part in shown.items()})
    about = f"{_ABOUT}; a caption a picture, put together from its questions' answers."
    return {
        pool: Source(
            [(_picture(pool, number), f"a {colour} {shape}") for number, (colour, shape) in part.items()],
            items[pool],
            (),
            "image-text",
            about,
            label_kind="pair",
            read=read_image_text,
        )
        for pool, part in shown.items()
    }


def _questions(pool: str, rows: list[Row]) -> Source:
    return Source(
        [(_picture(pool, number), question) for question, _, number in rows],
        [_ANSWERS.index(answer) for _, answer, _ in rows],
        _ANSWERS,
        "image-text",
        f"{_ABOUT}.",
        read=read_image_text,
        groups=[number for _, _, number in rows],
    )


def _attributes(pool: str, shown: dict[int, tuple[str, str]]) -> Source:
    return Source(
        [_picture(pool, number) for number in shown],
        [[_ATTRIBUTES.index(word) for word in words] for words in shown.values()],
        _ATTRIBUTES,
        "image",
        f"{_ABOUT}; here without questions, each picture's colour and shape, as its questions' answers reveal them.",
        label_kind="multi",
        read=read_image,
    )


def _revealed(rows: Iterable[Row]) -> dict[int, tuple[str, str]]:
    """Number of a picture -> its colour and its shape, of every picture whose questions reveal both."""
    found: dict[int, set[str]] = defaultdict(set)
    for question, answer, number in rows:
        words = set(re.findall(r"\w+", question))
        # "Is there not a red shape?", "no": there is one.
        agreed = answer == ("no" if words & {"no", "not"} else "yes")
        if answer not in ("yes", "no"):
            found[number] |= {answer, *words}
        elif agreed:
            found[number] |= words
    shown = {}
    for number, words in sorted(found.items()):
        shapes, colours = words & _SHAPES, words & _COLOURS
        if len(shapes) == len(colours) == 1:
            shown[number] = colours.pop(), shapes.pop()
    return shown


def _read(pool: str) -> list[Row]:
    path = _folder() / pool / "questions.json"
    try:
        rows = [(str(q), str(a), int(n)) for q, a, n in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} does not read ({error}); pip install --force-reinstall easy-vqa") from error
    unknown = {answer for _, answer, _ in rows} - set(_ANSWERS)
    if unknown:
        raise DataError(f"{path} holds answers that easy-vqa 1.0 does not have: {', '.join(sorted(unknown))}")
    return rows


@functools.lru_cache(maxsize=1)
def _folder() -> Path:
    return package_path("easy-vqa", "easy_vqa/data")


def _picture(pool: str, number: int) -> Path:
    return _folder() / pool / "images" / f"{number}.png"
