"""Pictures as MMPretrain's test pipelines prepare them: every pipeline of its model index, from files."""

import json
from functools import cache

import pytest
import small_zoo
import torch
from mmcv.transforms import Compose
from mmengine.registry import DefaultScope
from mmpretrain import ImageClassificationInferencer, list_models
from mmpretrain.models.utils import ClsDataPreprocessor
from mmpretrain.registry import TRANSFORMS
from pictures import odd_pictures

from mdpd_plugins.registry import CapabilityError, MissingDependencyError
from mdpd_plugins.zoos.mmpretrain.entries import read_entry
from mdpd_plugins.zoos.mmpretrain.pipeline import PipelinePictures, fitted, read_steps

FALLBACK = (224, 224)
NUMBERS = ("mean", "std", "to_rgb")


@cache
def recipes() -> dict[str, str]:
    """Pipeline and numbers, as text -> one entry that has them. Those of 800 pixels and more are like smaller ones."""
    found: dict[str, str] = {}
    for name in list_models():
        try:
            config = read_entry(name).config
        except (CapabilityError, MissingDependencyError):
            continue
        numbers = {k: config.data_preprocessor.get(k) for k in NUMBERS}
        steps = [dict(step) for step in config.get("test_pipeline") or []]
        assert read_steps(config) == steps, name
        if max((v for s in steps for v in s.values() if isinstance(v, int)), default=0) < 800:
            found.setdefault(json.dumps([steps, numbers], sort_keys=True), name)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(odd_pictures()):
        picture.save(folder / f"{i}.png")
    return sorted(folder.glob("*.png"))


def test_every_pipeline_of_the_zoo_prepares_pictures_as_from_files(files):
    compared = 0
    for recipe, name in recipes().items():
        steps, numbers = json.loads(recipe)
        if not any("scale" in step or "crop_size" in step for step in steps):
            continue  # it leaves pictures in their sizes, which make no batch
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            pipeline = Compose([TRANSFORMS.build(dict(step)) for step in steps])
        preprocessor = ClsDataPreprocessor(**numbers)
        whole = torch.stack([pipeline({"img_path": str(file)})["inputs"] for file in files])
        found = PipelinePictures(*_placed(fitted(steps, None, FALLBACK), preprocessor))(odd_pictures())["image"]
        assert torch.equal(found, preprocessor({"inputs": whole})["inputs"]), name
        compared += 1
    assert compared >= 50


def _placed(found, preprocessor):
    steps, size = found
    return steps, preprocessor, size


@pytest.mark.parametrize("size", [(96, 96), (64, 96)])
def test_every_pipeline_has_a_form_at_another_size(size):
    preprocessor = ClsDataPreprocessor()
    for recipe, name in recipes().items():
        steps, _ = json.loads(recipe)
        for stretch in (False, True):
            changed, found = fitted(steps, size, FALLBACK, stretch)
            assert found == size
            batch = PipelinePictures(changed, preprocessor, found)(odd_pictures()[:2])["image"]
            assert batch.shape == (2, 3, *size), (name, changed)


def test_lengths_keep_their_proportions():
    steps = json.loads(next(r for r in recipes() if '"scale": 256' in r and "EfficientNet" not in r))[0]
    changed, _ = fitted(steps, (112, 112), FALLBACK)
    assert [(s.get("scale"), s.get("crop_size")) for s in changed[1:3]] == [(128, None), (None, 112)]
    efficient = [{"type": "LoadImageFromFile"}, {"type": "EfficientNetCenterCrop", "crop_size": 224}]
    efficient.append({"type": "PackInputs"})
    step = fitted(efficient, (112, 112), FALLBACK)[0][1]
    assert (step["crop_size"], step["crop_padding"]) == (112, 16)


def test_a_live_classifier_is_given_what_the_zoos_own_inferencer_gives_it(files):
    adapter = small_zoo.small("mm-resnet")
    with DefaultScope.overwrite_default_scope("mmpretrain"):  # where Compose looks its steps up
        inferencer = ImageClassificationInferencer(adapter.model)
    for file, picture in zip(files, odd_pictures(), strict=True):
        (theirs,) = inferencer.preprocess([str(file)])
        expected = adapter.model.data_preprocessor(theirs)["inputs"]
        assert torch.equal(adapter.transform()([picture])["image"], expected)
