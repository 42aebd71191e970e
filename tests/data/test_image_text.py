"""Pictures with texts: questions with answers, captions for retrieval, how they are split, augmented and collated."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mdpd_plugins.adapters import ImageTransform, TextTransform
from mdpd_plugins.adapters.transform import ImageTextTransform
from mdpd_plugins.data import Collate, LabelledDataset, Source, load_source, make_transform
from mdpd_plugins.registry import ConfigError, DataError

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def tokenizer(texts: list[str], max_length: int) -> dict[str, torch.Tensor]:
    """Letters as numbers, padded with zeros."""
    rows = [[ord(letter) for letter in text][:max_length] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


TRANSFORM = ImageTextTransform(ImageTransform((6, 6), interpolation="bilinear"), TextTransform(tokenizer, 8))


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Source]:
    """Write 30 pictures with two rows each (question, answer, caption) and load them."""
    (tmp_path / "pictures").mkdir()
    rows = []
    for i in range(30):
        name, colour = list(COLOURS.items())[i % 3]
        Image.new("RGB", (8, 6), colour).save(tmp_path / "pictures" / f"{i}.png")
        for question in ("which colour is it?", "what do you see?"):
            picture = f"pictures/{i}.png" if question[0] == "w" and i % 2 else f"./pictures/{i}.png"
            rows.append({"file": picture, "question": question, "answer": name, "caption": f"{name} {question}"})
    path = tmp_path / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def load(split: str = "train", **options: Any) -> Source:
        cfg = {"type": "table", "path": str(path), "image_column": "file", "val_size": 0, "test_size": 0, **options}
        return load_source(cfg, split)

    return load


def test_questions_about_pictures_with_answers(table: Callable[..., Source]) -> None:
    source = table(text_column="question", label_column="answer")
    assert (source.modality, source.label_kind, source.classes) == ("image-text", "single", ("blue", "green", "red"))
    (image, question), label = source[4]
    assert (image.getpixel((0, 0)), question, source.classes[label]) == (COLOURS["blue"], "which colour is it?", "blue")


def test_captions_of_one_picture_are_about_one_item(table: Callable[..., Source]) -> None:
    source = table(text_column="caption", label_kind="pair")
    assert (source.modality, source.label_kind, source.classes, len(source)) == ("image-text", "pair", (), 60)
    # The same file under two spellings of its path is the same picture.
    assert source.labels == [i // 2 for i in range(60)]
    assert LabelledDataset(source)[3][1].dtype == torch.int64
    by_colour = table(text_column="caption", label_kind="pair", label_column="answer")
    assert len(set(by_colour.labels)) == 3 and by_colour.labels[0] == by_colour.labels[6]


@pytest.mark.parametrize("options", [{"label_column": "answer"}, {"label_kind": "pair"}])
def test_no_picture_is_in_two_splits(table: Callable[..., Source], options: dict[str, Any]) -> None:
    sizes = {"val_size": 7, "test_size": 11}  # neither is a whole number of pictures
    parts = {s: table(s, text_column="caption", **options, **sizes) for s in ("train", "val", "test")}
    pictures = {s: set(part.groups or ()) for s, part in parts.items()}
    assert [len(parts[s]) for s in ("val", "test")] == [7, 11] and len(parts["train"]) == 60 - 8 - 12
    assert not pictures["train"] & pictures["val"] and not pictures["train"] & pictures["test"]
    assert not pictures["val"] & pictures["test"]
    less = table(text_column="caption", **options, **sizes, train_size=10)
    assert set(less.groups or ()) < pictures["train"]
    other = table(text_column="caption", **options, **sizes, split_seed=1)
    assert set(other.groups or ()) != pictures["train"]


def test_numbers_of_pictures_are_one_series_over_all_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    (tmp_path / "train.csv").write_text("image,caption\na.png,one\na.png,two\n")
    (tmp_path / "val.csv").write_text("image,caption\nb.png,three\na.png,four\n")
    files = {part: str(tmp_path / f"{part}.csv") for part in ("train", "val")}
    cfg = {"type": "table", **files, "image_column": "image", "text_column": "caption", "label_kind": "pair"}
    assert load_source(cfg, "train").labels == [0, 0]
    assert sorted(load_source(cfg, "val").labels) == [0, 1]


def test_pictures_with_texts_from_a_huggingface_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    one, other = Image.new("RGB", (4, 4), (9, 8, 7)), Image.new("RGB", (4, 4))
    columns = {"image": [one, other, one], "text": ["a", "b", "c"], "label": ["yes", "no", "no"]}
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "label": datasets.Value("string")}
    )
    datasets.Dataset.from_dict(columns, features).save_to_disk(str(tmp_path / "saved"))
    cfg = {
        **{"type": "huggingface", "path": str(tmp_path / "saved"), "val_size": 0, "test_size": 0},
        **{"image_column": "image", "text_column": "text"},
    }
    pairs = load_source({**cfg, "label_kind": "pair"}, "train")
    assert (pairs.labels, pairs[2][0][1]) == ([0, 1, 0], "c")
    answers = load_source(cfg, "train")
    (image, text), label = answers[0]
    assert (image.getpixel((1, 1)), text, answers.classes[label]) == ((9, 8, 7), "a", "yes")
    assert answers.groups == [0, 1, 0]


def test_what_does_not_go_together(table: Callable[..., Source]) -> None:
    with pytest.raises(ConfigError, match="name both image_column and text_column"):
        table(label_kind="pair")
    with pytest.raises(ConfigError, match="label_kind='single' needs the key 'label_column'"):
        table(text_column="question")
    with pytest.raises(ConfigError, match="text_pair_column needs text_column.*and no image_column"):
        table(text_column="question", text_pair_column="caption", label_column="answer")
    with pytest.raises(DataError, match="no column 'captions'.*did you mean 'caption'"):
        table(text_column="captions", label_kind="pair")


def test_augmentation_is_off_unless_asked_for_and_leaves_the_text(table: Callable[..., Source]) -> None:
    source = table(text_column="question", label_column="answer")
    assert make_transform(source) is None
    transform = make_transform(source, "crop")
    assert transform is not None
    shapes = {LabelledDataset(source, transform, train=True)[60 * e][0][0].size for e in range(8)}
    assert len(shapes) > 1
    texts = [LabelledDataset(source, transform, train=True)[i][0][1] for i in range(60)]
    assert texts == [source[i][0][1] for i in range(60)]


def test_a_batch_holds_pixels_and_tokens(table: Callable[..., Source]) -> None:
    source = table(text_column="question", label_column="answer")
    collate = pickle.loads(pickle.dumps(Collate(TRANSFORM)))
    batch = collate([LabelledDataset(source)[i] for i in (0, 3)])
    assert set(batch["inputs"]) == {"image", "input_ids", "attention_mask"}
    assert batch["inputs"]["image"].shape == (2, 3, 6, 6)
    np.testing.assert_allclose(batch["inputs"]["image"][0, :, 0, 0], [1, -1, -1], atol=0.01)
    assert batch["inputs"]["input_ids"].shape == (2, 8) and batch["inputs"]["input_ids"][0, 0] == ord("w")
    assert [source.classes[i] for i in batch["labels"]] == ["red", "green"]
