"""The huggingface zoo reads the model types that the installed transformers has classifiers for."""

import json

import pytest

from mdpd_plugins.registry import UnknownBackboneError, load_catalogue
from mdpd_plugins.zoos.huggingface.models import model_types, read_model_types

TABLE = """
OTHER = OrderedDict([("no", "No")])
MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES = OrderedDict(
    [
        # a comment
        ("vit", "ViT"),
        ("both", ("A", "B")),
    ]
)
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES = OrderedDict([("both", "C"), ("bert", "Bert")])
"""


def test_tables_of_classifiers_are_read_and_others_not(tmp_path):
    (tmp_path / "modeling_auto.py").write_text(TABLE)
    found = read_model_types(tmp_path / "modeling_auto.py")
    assert found == {"bert": ["text"], "both": ["image", "text"], "vit": ["image"]}


def test_every_classifier_of_the_installed_transformers_is_listed():
    auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    image = set(auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    text = set(auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
    assert {t for t, reads in model_types().items() if "image" in reads} == image
    assert {t for t, reads in model_types().items() if "text" in reads} == text
    names = {r.name for r in load_catalogue().select("huggingface")}
    assert {f"huggingface/{t}" for t in image | text} <= names


def test_a_cache_of_another_shape_is_not_believed(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = model_types()
    (file,) = (tmp_path / "mdpd").iterdir()
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "value": {"vit": ["sound"]}}))
    assert model_types() == found


def test_family_and_search_narrow_the_listing():
    catalogue = load_catalogue()
    found = catalogue.select("open_clip", family="ResNet")
    assert found and all(r.spec.family == "resnet" for r in found)
    names = {r.name for r in catalogue.select(search="clip vit b 16 siglip2")}
    assert "open_clip/ViT-B-16-SigLIP2" in names and "open_clip/RN50" not in names
    assert catalogue.select(search="no such words anywhere") == []
    with pytest.raises(UnknownBackboneError, match="resnet"):
        catalogue.select("open_clip", family="resnt")
