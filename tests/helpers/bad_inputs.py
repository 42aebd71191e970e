"""Strategies of hypothesis for what users may give: configurations, tables, pictures, texts, folder names.

Each has a function that does with one example what a run would. It returns "right" or "refused"; whatever else happens
is raised.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import struct
import tempfile
import zlib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

from mdpd_plugins.data import Source, load_source
from mdpd_plugins.engine import Settings
from mdpd_plugins.registry.errors import MDPDError
from mdpd_plugins.training.sections import RunSections

# How many examples a test draws: a fixed few in a run of the tests, more where somebody asks for them.
EXAMPLES = int(os.environ.get("MDPD_EXAMPLES", "0"))


def sample(count: int) -> settings:
    """The same `count` examples at every run; MDPD_EXAMPLES others, at random, where that is set."""
    return settings(
        max_examples=EXAMPLES or count,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# --- configurations ----------------------------------------------------------------------------------------------


def _keys(section: type, before: str = "") -> list[str]:
    found, hints = [], get_type_hints(section)
    for field in fields(section):
        path = f"{before}{field.name}"
        found += [path, *(_keys(hints[field.name], f"{path}.") if is_dataclass(hints[field.name]) else [])]
    return found


_OPTIONS = (
    "hidden_size",
    "image_size",
    "num_attention_heads",
    "patch_size",
    "hidden_act",
    "nonsense",
    "layer_norm_eps",
)
_SOURCE = ("type", "name", "train_size", "val_size", "split_seed", "verify", "nonsense", "label_column")
# Where a run lies is not this test's to choose; what a coach reads is another one's.
_LEFT_OUT = ("work_dir", "export_dir", "custom_imports", "custom_hooks", "data.unlabelled", "coach")
KEYS = [
    *(key for key in _keys(RunSections) if not key.startswith(_LEFT_OUT)),
    *(f"distill.{field.name}" for field in fields(Settings)),
    *(f"backbone.options.{name}" for name in _OPTIONS),
    *(f"data.source.{name}" for name in _SOURCE),
    *("", ".", "train..seed", "train.max_steps.deep", "nonsense", "distill.0", "backbone.options.0.x"),
]
VALUES = [
    *("", "0", "1", "2", "3", "7", "-1", "64", "1.5", "-0.5", "1e-9", "1e400", "inf", "-inf", "nan", "True", "None"),
    *(str(2**31), str(2**63), str(2**64), "9" * 400, "-" + "9" * 30, "[]", "[0]", "[0,1]", "(0,)", "[[1],[2]]", "{}"),
    *("word", "auto", "none", "mdpd", "mdpd_low_rank", "mdpd_local", "linear", "full", "test", "bfloat16", "float16"),
    *("huggingface/vit-base-patch16-224", "huggingface/minilm-l6", "digits", "packaged", "image_folder", "multi"),
    *("a b", "'", '"', "[0", "0]", "\udc80", "\x00", "ß\u202e\n", "../..", "/", "~", "http://x", "x" * 5000, "0.25"),
]
overrides = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)).map(lambda pair: f"{pair[0]}={pair[1]}"),
    min_size=1,
    max_size=3,
)

# --- tables ------------------------------------------------------------------------------------------------------

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_CELL = st.one_of(
    _TEXT, st.sampled_from(["", " ", "a", "b", "0", "1", "nan", "NULL", '"', "a,b", "a\nb", "\x00", "a|b"])
)
_ANY = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _TEXT, st.lists(_TEXT, max_size=2))


@st.composite
def tables(draw: Any) -> tuple[str, bytes, dict[str, Any]]:
    """(ending, content, options of the source)."""
    names = draw(
        st.sampled_from([("text", "label")] * 6 + [("text", "text"), ("", "label"), ("te xt", "label"), ("text",)])
    )
    cells = [_CELL] if len(names) == 1 else [_CELL, draw(st.sampled_from([st.sampled_from("ab"), _CELL]))]
    rows = draw(st.lists(st.tuples(*cells), min_size=draw(st.sampled_from([0, 12])), max_size=25))
    ending = draw(st.sampled_from([".csv"] * 4 + [".tsv", ".jsonl", ".jsonl", ".parquet", ".xlsx", ".txt"]))
    content: Any
    if draw(st.integers(0, 9)) == 0 or ending in (".parquet", ".xlsx"):
        content = draw(st.binary(max_size=200))
    elif ending == ".jsonl":
        odd = draw(st.booleans())
        values = [draw(_ANY) if odd and not draw(st.integers(0, 4)) else dict(zip(names, r, strict=True)) for r in rows]
        content = "\n".join(map(json.dumps, values))
    else:
        file = io.StringIO()
        between = "\t" if ending == ".tsv" else draw(st.sampled_from([",", ",", ";"]))
        if draw(st.booleans()):
            csv.writer(file, delimiter=between).writerows([names, *rows])
        else:  # as somebody writes it who knows no quoting
            file.writelines(between.join(row) + "\n" for row in [names, *rows])
        content = file.getvalue()
    if isinstance(content, str):
        content = content.encode(draw(st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16"])))
    options = {
        "text_column": "text",
        "label_column": draw(st.sampled_from(["label"] * 6 + ["text", "lable"])),
        "label_kind": draw(st.sampled_from(["single"] * 4 + ["multi", "float"])),
        "val_size": draw(st.sampled_from([2, 2, 2, 0.5, 0, 10**6])),
        "on_broken": draw(st.sampled_from(["error", "skip", "skip"])),
    }
    return ending, content, options


def open_table(given: tuple[str, bytes, dict[str, Any]]) -> str:
    """Open a table, and read all of its examples."""
    ending, content, options = given
    with _folder() as folder:
        path = folder / f"table{ending}"
        path.write_bytes(content)
        return _read({"type": "table", "path": str(path), **options})


# --- pictures and folders ----------------------------------------------------------------------------------------

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")
_FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "ICO")
_NAME = st.one_of(
    st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.sampled_from(["a b", "'", '"', "a\nb", "-rf", "~", "%s", "{x}", "[bold]", "..a", ".hidden", "*", "COM1", "ä"]),
).filter(lambda name: name not in (".", ".."))


@st.composite
def pictures(draw: Any) -> tuple[bytes, str]:
    """(content of a file, name)."""
    name = draw(_NAME) + draw(st.sampled_from([".png", ".jpg", ".gif", ".tif", ".PNG", ".webp", ".bmp"]))
    kind = draw(st.sampled_from(["picture"] * 5 + ["binary", "bomb"]))
    if kind == "binary":
        return draw(st.binary(max_size=100)), name
    if kind == "bomb":
        return _bomb(draw(st.sampled_from([(1, 2**31 - 1), (40000, 40000), (2**31 - 1, 2**31 - 1), (0, 0)]))), name
    mode, form = draw(st.sampled_from(_MODES)), draw(st.sampled_from(_FORMATS))
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    drawn = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (*size, 3), np.uint8)
    picture = Image.fromarray(drawn)
    more: dict[str, Any] = {}
    if draw(st.booleans()):
        exif = Image.Exif()
        exif[0x0112] = draw(st.integers(0, 9))  # orientation, of which there are eight
        more["exif"] = exif
    if form in ("GIF", "TIFF", "WEBP") and draw(st.booleans()):
        more |= {"save_all": True, "append_images": [picture.rotate(90)]}
    file = io.BytesIO()
    try:
        (picture.convert(mode) if mode not in ("PA", "I;16", "LAB") else _of(mode, drawn)).save(file, form, **more)
    except (OSError, ValueError, KeyError):  # this format has no such pictures
        picture.save(file, "PNG")
    content = file.getvalue()
    cut = draw(st.sampled_from([0, 0, 0, 1, 20, len(content) // 2]))
    return content[: len(content) - cut], name


def _of(mode: str, drawn: np.ndarray) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(drawn[..., 0].astype(np.uint16) * 257)
    return Image.new(mode, drawn.shape[1::-1], 7 if mode == "PA" else (7, 7, 7))


def _bomb(size: tuple[int, int]) -> bytes:
    """A PNG of a few bytes whose header asks for more pixels than there is memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\x00" * 64))
        + chunk(b"IEND", b"")
    )


folders = st.tuples(
    st.lists(pictures(), max_size=3),
    st.lists(_NAME, min_size=2, max_size=3, unique=True),
    st.sampled_from(["none", "none", "to itself", "to its parent", "to nothing"]),
    st.sampled_from(["error", "skip"]),
)


def open_folder(given: tuple[list[tuple[bytes, str]], list[str], str, str]) -> str:
    """Open an image folder of good pictures and these, and read all of its examples."""
    odd, classes, link, on_broken = given
    with _folder() as folder:
        root = folder / "pictures"
        try:
            for number, name in enumerate(classes):
                (root / name).mkdir(parents=True)
                for i in range(5):
                    Image.new("RGB", (9, 8), (40 * i, 90 * number, 9)).save(root / name / f"good {i}.png")
            for content, name in odd:
                (root / classes[0] / name).write_bytes(content)
        except OSError:
            return "right"  # this file system has no such name
        if link != "none":
            target = {"to itself": "loop", "to its parent": "..", "to nothing": "nowhere"}[link]
            (root / classes[0] / "loop").symlink_to(target)
        return _read({"type": "image_folder", "root": str(root), "on_broken": on_broken})


# --- texts -------------------------------------------------------------------------------------------------------

_LONG = ("a" * 300000, "red " * 100000)
texts = st.lists(
    st.one_of(
        st.text(max_size=200),
        st.integers(0, 16).map(lambda plane: "".join(chr(plane * 0x10000 + i) for i in range(0, 0xD000, 97))),
        st.sampled_from(["", " ", "\x00", "a\x00b", "\n\r\t", "\ufeff", *_LONG, "[MASK][SEP][PAD]"]),
    ),
    min_size=1,
    max_size=3,
)

# --- how an example ends -------------------------------------------------------------------------------------------


class _folder:
    """A folder for one example, beside which nothing may be written."""

    def __enter__(self) -> Path:
        self.base = Path(tempfile.mkdtemp(prefix="mdpd_bad_"))
        (self.base / "data").mkdir()
        return self.base / "data"

    def __exit__(self, *_: object) -> None:
        beside = sorted(p.name for p in self.base.iterdir())
        shutil.rmtree(self.base)
        assert beside == ["data"], f"written outside: {beside}"


def _read(source: dict[str, Any]) -> str:
    try:
        for split in ("train", "val"):
            found = load_source(source, split)
            for one, _ in found:
                _check(found, one)
    except MDPDError as error:
        assert str(error).strip(), "it does not say why"
        str(error).encode("utf-8", "surrogateescape")
        return "refused"
    return "right"


def _check(source: Source, one: Any) -> None:
    if source.modality == "image":
        assert one.mode == "RGB" and min(one.size) >= 1
    else:
        assert isinstance(one, str)
