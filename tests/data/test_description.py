"""What is said about data before a run: sizes, classes, cut texts, one example, and what looks wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mdpd_plugins.adapters.transform import ImageTextTransform, ImageTransform, TextTransform
from mdpd_plugins.data import Source, describe, description, description_lines, load_source
from mdpd_plugins.data.description import near_names
from mdpd_plugins.data.images import read_image

PREPROCESSING = {"size": (6, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}


def texts(inputs: list[Any], labels: list[Any], classes: tuple[str, ...] = ("a", "b"), kind: Any = "single") -> Source:
    return Source(inputs, labels, classes, "text", "some texts", label_kind=kind)


def huggingface() -> Callable[..., Any]:
    """A real tokenizer of whole words, called as the adapter calls it."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "and", "round"])}
    whole = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    whole.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=whole, unk_token="[UNK]", pad_token="[PAD]")

    def tokenize(given: list[Any], max_length: int) -> dict[str, torch.Tensor]:
        pairs = [t if isinstance(t, tuple) else (t, None) for t in given]
        second = None if all(b is None for _, b in pairs) else [b for _, b in pairs]
        options = {"padding": True, "truncation": True, "max_length": max_length, "return_tensors": "pt"}
        return dict(tokenizer([a for a, _ in pairs], second, **options))

    tokenize.decode = tokenizer.decode  # type: ignore[attr-defined]
    return tokenize


def open_clips() -> Callable[..., Any]:
    """OpenCLIP's own, which fills 77 tokens whatever it is told."""
    tokenizer = pytest.importorskip("open_clip").get_tokenizer("ViT-B-32")
    return lambda given, max_length: {"input_ids": tokenizer(list(given))}


def test_sizes_classes_and_one_example_as_the_model_gets_it() -> None:
    tokenize = huggingface()
    train = texts(["red and round", "round", "red green"], [0, 1, 0])
    found = describe(
        {"train": train, "val": texts(["and"], [1])},
        transform=TextTransform(tokenize, 4),
        tokenizer=tokenize,
        max_length=4,
        decode=tokenize.decode,  # type: ignore[attr-defined]
    )
    assert json.loads(json.dumps(found)) == found
    assert found["splits"] == {
        "train": {"size": 3, "classes": {"a": 2, "b": 1}},
        "val": {"size": 1, "classes": {"a": 0, "b": 1}},
    }
    assert found["cut"]["train"] == {"cut": 1, "looked_at": 3, "size": 3, "max_length": 4}
    assert found["cut"]["val"]["cut"] == 0
    example = found["example"]
    assert (example["input"], example["label"]) == ("red and round", "a")
    ids = example["tensors"]["input_ids"]
    assert (ids["shape"], ids["dtype"], ids["first"], ids["more"]) == ([4], "int64", [2, 4, 5, 3], False)
    assert example["decoded"] == "[CLS] red and [SEP]"
    lines = description_lines(found)
    assert lines[:3] == ["data: texts; train 3, val 1", "train, 2 classes: a 2, b 1", "val, 2 classes: a 0, b 1"]
    assert "train: 1 of 3 texts are cut at 4 tokens" in lines and "  read as: '[CLS] red and [SEP]'" in lines


@pytest.mark.parametrize("fixed", [False, True])
def test_texts_are_cut_where_something_of_them_is_lost(fixed: bool) -> None:
    tokenize, length = (open_clips(), 77) if fixed else (huggingface(), 12)
    body = length - 2  # two are the tokenizer's own
    inputs = ["red " * (body - 1), "red " * body, "red " * (body + 1), "round", "red and " * body, "green  "]
    source = texts(inputs, [0, 1] * 3)
    for together in (1, 2, 64):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(description, "_AT_ONCE", together)
            found = describe({"train": source}, tokenizer=tokenize, max_length=length)
        assert found["cut"]["train"]["cut"] == 2
    if fixed:  # which data.max_length does not shorten
        assert describe({"train": source}, tokenizer=tokenize, max_length=32)["cut"]["train"]["cut"] == 2
    else:
        pairs = texts([("red " * 5, "red " * 5), ("red", "red " * 7), ("red", "red")], [0, 1, 0])
        assert describe({"train": pairs}, tokenizer=tokenize, max_length=length)["cut"]["train"]["cut"] == 1


def test_a_picture_as_the_model_gets_it(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), (255, 255, 255)).save(tmp_path / "white.png")
    source = Source([tmp_path / "white.png"] * 2, [0, 1], ("a", "b"), "image", "p", read=read_image, augment="crop")
    found = describe({"train": source}, transform=ImageTransform(**PREPROCESSING))
    assert found["example"]["input"] == "white.png, 20x10"
    pixels = {"shape": [3, 6, 8], "dtype": "float32", "lowest": 1.0, "mean": 1.0, "highest": 1.0}
    assert found["example"]["tensors"] == {"image": pixels}
    assert found["augment"] == "crop" and found["cut"] == {}
    assert "  image 3x6x8 float32: from 1 to 1, mean 1" in description_lines(found)


def test_nearly_equal_names_are_found_by_name_with_counts() -> None:
    assert near_names(["bug report", "Bug report", "bug  report", "Bug-Report", "bug_report", "bugs"]) == [
        ["bug report", "Bug report", "bug  report", "Bug-Report", "bug_report"]
    ]
    assert near_names(["caf\u00e9", "cafe\u0301", "cafe"]) == [["caf\u00e9", "cafe\u0301"]]
    assert near_names(["\uff21", "a", "stra\u00dfe", "STRASSE"]) == [["\uff21", "a"], ["stra\u00dfe", "STRASSE"]]
    assert near_names(["-1", "1", "1-2", "12", "1 2", "a1", "a-1"]) == []
    source = texts([f"t{i}" for i in range(86)], [1] * 85 + [0], ("Bug report", "bug report"))
    (warning,) = [w for w in describe({"train": source})["warnings"] if "name" in w]
    assert warning.startswith("classes with nearly the same name: 'bug report' (85) and 'Bug report' (1);")


def test_what_looks_wrong_is_a_warning() -> None:
    train = texts(["One  text.", "two", "three", "four"], [0, 0, 1, 0], ("a", "b", "c"))
    val = texts(["one text.", "five"], [0, 0], ("a", "b", "c"))
    found = describe({"train": train, "val": val})
    assert found["warnings"] == [
        "train has no example of 1 of 3 classes: c",
        "val has no example of 2 of 3 classes: b, c",
        "1 of 3 classes have one example in train: b",
        "1 of 2 examples of val are in train, too; the first is example 0, which is example 0",
    ]
    lines = description_lines(found)
    assert lines[-1].startswith("warning: 1 of 2 examples of val") and max(map(len, lines)) <= 120
    assert describe({"train": texts(["a", "b"], [0, 1]), "val": texts(["c", "d"], [1, 0])})["warnings"] == [
        "2 of 2 classes have one example in train: a, b"
    ]


def test_the_same_picture_in_two_splits_is_found_by_its_content(tmp_path: Path) -> None:
    paths = []
    for i in range(6):
        pixels = np.full((60, 60, 3), 7, np.uint8)
        pixels[30, 30] = 0 if i in (0, 3) else i  # the same size, begin and end, if stored plainly
        Image.fromarray(pixels).save(tmp_path / f"{i}.bmp")
        paths.append(tmp_path / f"{i}.bmp")

    def source(some: list[Any]) -> Source:
        return Source(some, [0] * len(some), ("a", "b"), "image", "p", read=read_image)

    def found(one: list[Any], other: list[Any]) -> list[str]:
        sources = {"train": source(one), "val": source(other)}
        return [w for w in describe(sources)["warnings"] if "too" in w]

    (warning,) = found(paths[:3], paths[3:])
    assert warning.startswith("1 of 3 examples of val are in train, too; the first is ")
    assert warning.endswith(f"{paths[3]}, which is {paths[0]}")
    stored = [{"bytes": path.read_bytes(), "path": None} for path in paths]
    arrays = [np.asarray(Image.open(path)) for path in paths]
    assert len(found(stored[:3], stored[3:])) == len(found(arrays[:3], arrays[3:])) == 1
    assert found(paths[:3], paths[4:]) == [] and found(arrays[:3], arrays[4:]) == []


def test_large_data_is_looked_at_in_part_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "TOKENISED", 10)
    monkeypatch.setattr(description, "COMPARED", 20)
    train, val = (texts([f"{i} red" for i in range(size)], [0, 1] * (size // 2)) for size in (1000, 30))
    found = describe({"train": train, "val": val}, tokenizer=huggingface(), max_length=3)
    assert found["compared"] == {"train": 20, "val": 20} and found["cut"]["train"]["looked_at"] == 10
    assert "train: 10 of 10 texts looked at (1,000 in all) are cut at 3 tokens" in description_lines(found)


def test_other_kinds_of_label() -> None:
    several = texts(["a", "b", "c"], [[0, 1], [], [0]], ("x", "y"), "multi")
    assert describe({"train": several})["splits"]["train"] == {
        **{"size": 3, "classes": {"x": 2, "y": 1}, "unlabelled": 1}
    }
    numbers = describe({"train": texts(["a", "b"], [0.5, 1.5], (), "float")})
    assert numbers["splits"]["train"]["values"] == [0.5, 1.0, 1.5] and numbers["example"]["label"] == 0.5
    assert "train labels: from 0.5 to 1.5, mean 1" in description_lines(numbers)
    assert "every label of train is 2" in describe({"train": texts(["a"], [2.0], (), "float")})["warnings"][0]
    language = describe({"train": several}, kind="language", tokenizer=huggingface(), max_length=2)
    assert language["splits"] == {"train": {"size": 3}} and language["cut"] == {} and language["warnings"] == []


def test_many_classes_are_one_short_line() -> None:
    names = tuple(f"a class with a long name {i}" for i in range(300))
    source = texts([str(i) for i in range(600)], [*range(300), *[7] * 300], names)
    even = Source(source.inputs, [i % 300 for i in range(600)], names, "text", "even")
    assert "train, 300 classes: 2 of each" in description_lines(describe({"train": even}))
    lines = description_lines(describe({"train": source}))
    assert f"train, 300 classes: from 1 ({names[0]}) to 301 ({names[7]})" in lines
    assert max(map(len, lines)) <= 120


def test_pictures_with_texts_and_what_was_left_out(tmp_path: Path) -> None:
    for i in range(4):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "4.png").write_bytes((tmp_path / "3.png").read_bytes()[:40])
    rows = [f"{i}.png,{'red and round' if i else 'red'},{'ab'[i % 2]}" for i in range(5)]
    (tmp_path / "t.csv").write_text("\n".join(["image,text,label", *rows]) + "\n")
    cfg = {"type": "table", "path": str(tmp_path / "t.csv"), "image_column": "image", "text_column": "text"}
    cfg |= {"label_column": "label", "val_size": 1, "test_size": 0, "on_broken": "skip"}
    with pytest.warns(UserWarning, match="1 of 5 examples"):
        sources = {split: load_source(cfg, split) for split in ("train", "val")}
    tokenize = huggingface()
    transform = ImageTextTransform(ImageTransform(**PREPROCESSING), TextTransform(tokenize, 3))
    found = describe(sources, transform=transform, tokenizer=tokenize, max_length=3)
    assert set(found["example"]["tensors"]) >= {"image", "input_ids"}
    assert sum(cut["cut"] for cut in found["cut"].values()) == 3
    assert found["warnings"][0] == "left out, because they cannot be used (broken pictures, empty texts): 1"
    assert found["augment"] == "none"
