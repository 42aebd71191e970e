"""The kit on pairs of towers, each from a zoo of its own."""

import pytest
import small_zoo

from mdpd_plugins.adapters.towers.fusion import Fusion
from mdpd_plugins.adapters.towers.pair import PairAdapter, pair
from mdpd_plugins.testing import NOT_APPLICABLE, check_backbone

WIDTH = 16


@pytest.mark.parametrize(
    ("image", "text", "without"),
    [
        ("mm-vit", "hf-minilm", {"head", "depth"}),
        # Convolutions have no attention maps, and half of an OpenCLIP model is no part of the pair.
        ("mm-resnet", "oc-text", {"head", "depth", "attention"}),
        ("oc-image", "hf-minilm", {"head", "depth", "odd_size"}),
    ],
)
def test_a_pair_passes_every_check_that_concerns_it(image, text, without):
    def make() -> PairAdapter:
        towers = (small_zoo.small(key, num_classes=WIDTH) for key in (image, text))
        return pair(*towers, Fusion(WIDTH, len(small_zoo.CLASSES)))

    report = check_backbone(make)
    assert report, report.reason
    assert {o.check for o in report.outcomes if o.status == NOT_APPLICABLE} == without
