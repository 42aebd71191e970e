"""Whatever a table, a picture, a folder or a text holds: it is read, or refused with a reason."""

from __future__ import annotations

import warnings

import bad_inputs
import pytest
from hypothesis import given
from small_zoo import small

pytestmark = pytest.mark.filterwarnings("ignore")


@bad_inputs.sample(60)
@given(bad_inputs.tables())
def test_tables(table):
    assert bad_inputs.open_table(table) in ("right", "refused")


@bad_inputs.sample(60)
@given(bad_inputs.folders)
def test_folders_and_pictures(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of pictures that are nearly too large
        assert bad_inputs.open_folder(folder) in ("right", "refused")


@pytest.fixture(scope="module")
def transforms():
    return [small(key).text_transform() for key in ("hf-minilm", "oc-text")]


@bad_inputs.sample(25)
@given(bad_inputs.texts)
def test_texts(transforms, texts):
    for transform in transforms:
        inputs = transform(texts)
        assert len(inputs["input_ids"]) == len(texts)
        assert 1 <= inputs["input_ids"].shape[1] <= transform.max_length
        if "attention_mask" in inputs:
            assert inputs["attention_mask"].sum(1).min() >= 1
