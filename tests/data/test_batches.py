"""From examples to batches: labels, augmentation that depends on nothing global, collate functions."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mdpd_plugins.adapters import EachPicture, ImageTransform, TextTransform
from mdpd_plugins.data import Collate, LabelledDataset, Source, augment_line, chosen_augment, make_transform
from mdpd_plugins.registry import ConfigError

PREPROCESSING = {"size": (6, 8), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "interpolation": "bicubic"}


def image_source(count: int = 6, size: tuple[int, int] = (32, 24), augment: str = "crop+flip") -> Source:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]
    labels = [i % 2 for i in range(count)]
    return Source(pictures, labels, ("a", "b"), "image", "noise", augment=augment)


def text_source(labels: list[Any], kind: Any, classes: tuple[str, ...] = ()) -> Source:
    return Source([f"text {i}" for i in range(len(labels))], labels, classes, "text", "texts", label_kind=kind)


def test_labels_become_tensors_of_their_kind() -> None:
    single = LabelledDataset(text_source([1, 0], "single", ("a", "b")))[0][1]
    assert (single.dtype, single.tolist()) == (torch.int64, 1)
    multi = LabelledDataset(text_source([[0, 2], []], "multi", ("a", "b", "c")))
    assert (multi[0][1].dtype, multi[0][1].tolist(), multi[1][1].tolist()) == (
        torch.float32,
        [1, 0, 1],
        [0, 0, 0],
    )
    number = LabelledDataset(text_source([0.5], "float"))[0][1]
    assert (number.dtype, number.shape, number.item()) == (torch.float32, (), 0.5)


def test_metainfo_names_the_classes() -> None:
    info = LabelledDataset(text_source([1, 0], "single", ("a", "b"))).metainfo
    assert info["classes"] == ("a", "b") and info["label_kind"] == "single"


def test_augmentation_depends_on_seed_epoch_and_example_only() -> None:
    source = image_source()
    data = LabelledDataset(source, make_transform(source), seed=3, train=True)

    def pixels(dataset: LabelledDataset, index: int) -> bytes:
        torch.manual_seed(index)  # global generators have no say
        np.random.seed(index)
        return dataset[index][0].tobytes()

    again = LabelledDataset(source, make_transform(source), seed=3, train=True)
    expected = {i: pixels(data, i) for i in range(18)}
    assert {i: pixels(again, i) for i in reversed(range(18))} == expected
    assert len({expected[i] for i in (0, 6, 12)}) == 3  # each epoch shows example 0 in another way
    other = LabelledDataset(source, make_transform(source), seed=4, train=True)
    assert pixels(other, 0) != expected[0]


def test_without_training_examples_come_as_they_are() -> None:
    source = image_source()
    data = LabelledDataset(source, make_transform(source), train=False)
    assert data[1][0].tobytes() == source[1][0].tobytes()
    assert len(list(data)) == len(source)
    with pytest.raises(IndexError):
        data[len(source)]


def test_choice_of_augmentation() -> None:
    assert make_transform(image_source(augment="none")) is None
    assert make_transform(image_source(), "none") is None
    assert make_transform(text_source([0, 1], "single", ("a", "b"))) is None
    with pytest.raises(ConfigError, match="'flip' does not exist: did you mean 'crop\\+flip'"):
        make_transform(image_source(), "flip")
    with pytest.raises(ConfigError, match="is for images"):
        make_transform(text_source([0, 1], "single", ("a", "b")), "crop")


def test_auto_crops_and_never_mirrors() -> None:
    for declared, chosen in (("none", "none"), ("crop", "crop"), ("crop+flip", "crop")):
        source = image_source(augment=declared)
        assert chosen_augment(source, "auto") == chosen
        transform = make_transform(source)
        assert (transform is None) == (chosen == "none")
        if transform is not None:
            ramp = Image.linear_gradient("L").rotate(90).convert("RGB")
            crops = [np.asarray(transform(ramp, np.random.default_rng(i)))[..., 0] for i in range(50)]
            assert len({bool(crop[0, 0] < crop[0, -1]) for crop in crops}) == 1
    assert chosen_augment(image_source(augment="none"), "crop+flip") == "crop+flip"
    assert augment_line(image_source()).startswith("augmentation: crop, the default; ")
    assert augment_line(image_source(), "crop+flip") == "augmentation: crop+flip, as data.augment says"
    assert augment_line(image_source(augment="none")) == "augmentation: none, the data's default"


@pytest.mark.parametrize("augment", ["crop", "crop+flip"])
def test_crops_keep_most_of_the_picture_and_flip_half_of_them(augment: str) -> None:
    ramp = np.zeros((40, 60, 3), np.uint8)
    ramp[..., 0] = np.arange(60)
    transform = make_transform(image_source(), augment)
    assert transform is not None
    rng = np.random.default_rng(0)
    crops = [np.asarray(transform(Image.fromarray(ramp), rng))[..., 0] for _ in range(200)]
    shares = np.array([crop.size / (40 * 60) for crop in crops])
    assert shares.min() > 0.5 and shares.max() <= 1 and shares.std() > 0.05
    mirrored = sum(int(crop[0, 0]) > int(crop[0, -1]) for crop in crops)
    assert mirrored == 0 if augment == "crop" else 70 < mirrored < 130
    assert transform(Image.new("RGB", (1, 1)), rng).size == (1, 1)


def test_image_batch_is_resized_and_normalised() -> None:
    source = image_source()
    samples = [LabelledDataset(source)[i] for i in range(3)]
    batch = Collate(ImageTransform(**PREPROCESSING))(samples)
    images = batch["inputs"]["image"]
    assert (images.shape, images.dtype, images.is_contiguous()) == ((3, 3, 6, 8), torch.float32, True)
    assert (batch["labels"].dtype, batch["labels"].tolist()) == (torch.int64, [0, 1, 0])
    resized = np.asarray(source[1][0].resize((8, 6), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    expected = (resized - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.3, 0.4])
    np.testing.assert_allclose(images[1].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_fit_crop_keeps_the_shape_of_things() -> None:
    bars = np.zeros((10, 40, 3), np.uint8)
    bars[:, 15:25] = 255  # the middle quarter
    sample = [(Image.fromarray(bars), torch.tensor(0))]
    plain = {"size": (10, 10), "mean": (0, 0, 0), "std": (1, 1, 1), "interpolation": "bilinear"}
    stretched = Collate(ImageTransform(**plain))(sample)["inputs"]["image"]
    cropped = Collate(ImageTransform(**plain, fit="crop"))(sample)["inputs"]["image"]
    assert stretched.mean() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(cropped, torch.ones_like(cropped))


def test_text_batches_call_the_backbones_tokenizer_with_texts_or_pairs() -> None:
    def tokenizer(texts: list[Any], max_length: int) -> dict[str, torch.Tensor]:
        rows = [" ".join(t if isinstance(t, tuple) else (t,)).split()[:max_length] for t in texts]
        longest = max(map(len, rows))
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor([len(word) for word in row])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}

    collate = Collate(TextTransform(tokenizer, 3))
    batch = collate([("a bb", torch.tensor(0)), ("ccc dd e f", torch.tensor(1))])
    assert batch["inputs"]["input_ids"].tolist() == [[1, 2, 0], [3, 2, 1]]
    assert batch["inputs"]["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [0, 1]
    pair = collate([(("a", "bb"), torch.tensor(0.5))])
    assert pair["inputs"]["input_ids"].tolist() == [[1, 2]]
    assert (pair["labels"].dtype, pair["labels"].tolist()) == (torch.float32, [0.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "cubic"}, "did you mean 'bicubic'"),
        ({"fit": "cropped"}, "did you mean 'crop'"),
        ({"std": (0, 1, 1)}, "std above 0"),
        ({"mean": (0.5, 0.5)}, "three values each"),
        ({"size": (0, 4)}, "must be positive"),
    ],
)
def test_wrong_preparation_of_pictures(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageTransform(**{**PREPROCESSING, **change})


def test_texts_of_no_tokens_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_length=0"):
        TextTransform(print, 0)


def test_a_librarys_own_transform_of_one_picture_makes_a_batch() -> None:
    def shifted(image: Image.Image) -> torch.Tensor:
        assert image.mode == "RGB"
        return torch.from_numpy(np.array(image.resize((5, 4)))).permute(2, 0, 1) / 255 - 1

    transform = EachPicture(shifted)
    assert transform.size == (4, 5)
    batch = transform([Image.new("L", (30, 20), 255), Image.new("RGB", (7, 9))])["image"]
    assert batch.shape == (2, 3, 4, 5) and batch.dtype == torch.float32
    assert batch[0].unique().tolist() == [0] and batch[1].unique().tolist() == [-1]
    with pytest.raises(ConfigError, match="different sizes.*a batch needs one size"):
        EachPicture(lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1))


def test_everything_a_loader_process_needs_can_be_pickled() -> None:
    source = image_source()
    data = LabelledDataset(source.subset([0, 2]), make_transform(source), train=True)
    copy = pickle.loads(pickle.dumps(data))
    collate = pickle.loads(pickle.dumps(Collate(ImageTransform(**PREPROCESSING))))
    assert torch.equal(
        collate([copy[0], copy[3]])["inputs"]["image"],
        Collate(ImageTransform(**PREPROCESSING))([data[0], data[3]])["inputs"]["image"],
    )
