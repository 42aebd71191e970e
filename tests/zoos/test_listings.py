"""The mmpretrain zoo reads the model index that the installed distribution ships, and caches it."""

import json
import multiprocessing
import os

import pytest

from mdpd_plugins import cache
from mdpd_plugins.registry import load_catalogue
from mdpd_plugins.zoos import installed
from mdpd_plugins.zoos.mmpretrain import plugin as mmpretrain

INDEX = """
Import:
  - configs/toy/metafile.yml
"""
METAFILE = """
Models:
  - Name: Toy-B_in1k
    In Collection: Toy
    Results:
      - {Task: Image Classification, Dataset: ImageNet-1k}
  - Name: toy_caption
    In Collection: Toy
    Results: {Task: Image Caption, Dataset: COCO}
    Config: configs/toy/caption.py
  - Name: toy_zeroshot-cls
  - Name: toy_pretrained
    Results: null
    Config: configs/toy/pretrained.py
  - Name: toy_in21k
    Results: null
"""


@pytest.fixture
def index(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package = tmp_path / "mmpretrain"
    (package / ".mim" / "configs" / "toy").mkdir(parents=True)
    (package / ".mim" / "model-index.yml").write_text(INDEX)
    (package / ".mim" / "configs" / "toy" / "metafile.yml").write_text(METAFILE)
    (package / ".mim" / "configs" / "toy" / "caption.py").write_text("model = dict(type='OFA', task='caption')\n")
    (package / ".mim" / "configs" / "toy" / "pretrained.py").write_text("model = dict(\n    type='MAE')\n")
    return mmpretrain.find_model_index(package)


EXPECTED = [
    ("toy-b_in1k", "Toy", "image", "image classifier"),
    ("toy_caption", "Toy", "image-text", mmpretrain.UNUSABLE["type='OFA'"]),
    ("toy_in21k", "", "image", "image classifier"),
    ("toy_pretrained", "", "image", "encoder without a classifier; gets a new linear head"),
    ("toy_zeroshot-cls", "", "image", "image encoder of a model of images and text; gets a new linear head"),
]


def test_metafiles_are_read(index):
    assert mmpretrain.list_models(index) == EXPECTED


def test_the_second_time_comes_from_the_cache_until_the_index_changes(index):
    mmpretrain.list_models(index)
    metafile = index.parent / "configs" / "toy" / "metafile.yml"
    metafile.write_text("Models:\n  - Name: other\n")
    assert mmpretrain.list_models(index) == EXPECTED
    os.utime(index, ns=(1, 1))
    assert mmpretrain.list_models(index) == [("other", "", "image", "image classifier")]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', '{"value": []}', "null", "[" * 100_000, "\udcff"])
def test_a_damaged_cache_is_replaced(index, content):
    mmpretrain.list_models(index)
    (file,) = cache.cache_folder().iterdir()
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert mmpretrain.list_models(index) == EXPECTED
    assert json.loads(file.read_text())["key"]["index"] == str(index)


def test_rows_of_a_wrong_shape_are_not_believed(index):
    mmpretrain.list_models(index)
    (file,) = cache.cache_folder().iterdir()
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "value": [["a", "b", "c"]]}))
    assert mmpretrain.list_models(index) == EXPECTED


def test_a_name_that_was_changed_in_the_cache_is_not_believed(index):
    mmpretrain.list_models(index)
    (file,) = cache.cache_folder().iterdir()
    file.write_text(file.read_text().replace("toy_in21k", "toy_in22k"))
    assert mmpretrain.list_models(index) == EXPECTED


def list_again_and_again(index, seen):
    for turn in range(30):
        os.utime(index, ns=(turn % 3 + 1,) * 2)  # so that each writes it anew, while others do
        seen.put(mmpretrain.list_models(index) == EXPECTED)


def test_many_may_write_the_cache_at_once(index):
    context = multiprocessing.get_context("fork")
    seen = context.Queue()
    started = [context.Process(target=list_again_and_again, args=(index, seen)) for _ in range(6)]
    for process in started:
        process.start()
    assert all(seen.get(timeout=120) for _ in range(6 * 30))
    for process in started:
        process.join()
        assert process.exitcode == 0
    assert [path.name for path in cache.cache_folder().iterdir()] == ["mmpretrain-models.json"]


def add_many(writer):
    for i in range(20):
        cache.add("notes", f"{writer}-{i}", i)


def test_what_many_add_at_once_is_all_there(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=add_many, args=(writer,)) for writer in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert cache.recall("notes") == {f"{writer}-{i}": i for writer in range(4) for i in range(20)}


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert mmpretrain.list_models(index) == EXPECTED
    assert mmpretrain.list_models(index) == EXPECTED


def test_nothing_temporary_is_left_in_the_cache(index):
    mmpretrain.list_models(index)
    assert [path.name for path in cache.cache_folder().iterdir()] == ["mmpretrain-models.json"]


def test_every_model_of_the_installed_mmpretrain_is_listed(tmp_path, monkeypatch):
    folder = installed.package_folder("mmpretrain")
    if folder is None:
        pytest.skip("mmpretrain is not installed")
    load_model_index = pytest.importorskip("modelindex.load_model_index")
    index = mmpretrain.find_model_index(folder)
    # The reader that mmpretrain's own list_models uses.
    reference = load_model_index.load(str(index))
    reference.build_models_with_collections()
    expected = {f"mmpretrain/{model.name.lower()}" for model in reference.models}
    assert {r.name for r in load_catalogue().select(zoo="mmpretrain")} == expected
    if installed.version("mmpretrain") == "1.2.0":
        assert len(expected) == 548


def test_every_configuration_of_the_installed_open_clip_is_listed():
    folder = installed.package_folder("open_clip")
    if folder is None:
        pytest.skip("open_clip is not installed")
    found = load_catalogue().select(zoo="open_clip")
    assert {r.name for r in found} == {f"open_clip/{p.stem}" for p in (folder / "model_configs").glob("*.json")}
    families = {r.name: r.spec.family for r in found}
    assert families["open_clip/ViT-B-16"] == "vit"
    assert families["open_clip/RN50"] == "resnet"
    assert families["open_clip/convnext_base"] == "convnext"
    assert all(families.values())
