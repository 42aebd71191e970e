"""Mixed pictures and RandAugment: torchvision's, drawn from what the caller seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mdpd_plugins.data import AUGMENTS, MIXES, Mixing, Source, make_transform

PICTURES = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 16, 16)
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("mix", MIXES[1:])
def test_pictures_and_labels_are_mixed_by_the_same_shares(mix):
    mixing = Mixing(mix, 3)
    for seed in range(8):
        torch.manual_seed(seed)
        images, labels = mixing(PICTURES, LABELS)
        assert labels.shape == (4, 3) and torch.allclose(labels.sum(1), torch.ones(4))
        share = labels[1, 1]  # of the second picture itself; the rest is the first's
        # The second picture is all ones and the one before it all zeros: its mean is its share.
        torch.testing.assert_close(images[1].mean(), share, rtol=0, atol=1e-5)
        torch.manual_seed(seed)
        again, _ = mixing(PICTURES, LABELS)
        assert torch.equal(images, again)
    assert set(images.unique().tolist()) != {0.0, 1.0, 2.0, 3.0} or mix != "mixup"


def test_randaugment_changes_pictures_by_the_examples_generator_alone():
    assert "crop+randaugment" in AUGMENTS
    drawn = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    source = Source([drawn], [0], ("a", "b"), "image", "one", augment="crop")
    change, plain = (make_transform(source, name) for name in ("crop+randaugment", "crop"))
    image, before = Image.fromarray(drawn), torch.random.get_rng_state()

    def found(transform, seed):
        return np.asarray(transform(image, np.random.default_rng(seed)))

    for seed in range(5):
        first = found(change, seed)
        torch.rand(3)
        assert np.array_equal(first, found(change, seed)) and first.shape == found(plain, seed).shape
    assert any(not np.array_equal(found(change, seed), found(plain, seed)) for seed in range(5))
    torch.random.set_rng_state(before)
