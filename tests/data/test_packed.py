"""Packing: nothing is lost or repeated but the rest at the end, whatever the texts are."""

from itertools import chain

import pytest
import torch

from mdpd_plugins.data import PackedDataset, Source, stack_blocks
from mdpd_plugins.data.packed import TOGETHER, pack
from mdpd_plugins.registry import ConfigError, DataError

END = 0


def letters(texts):
    return [[*map(ord, text), END] for text in texts]


@pytest.mark.parametrize("length", [2, 7, 64])
def test_blocks_are_the_stream_of_all_texts_cut_evenly(length):
    texts = [chr(97 + i % 26) * (i % 5) for i in range(2 * TOGETHER + 3)]
    found = pack(texts, letters, length)
    stream = list(chain.from_iterable(letters(texts)))
    assert found.flatten().tolist() == stream[: len(stream) // length * length]
    assert found.shape[1] == length and len(stream) - found.numel() < length


def test_a_data_set_of_blocks_ignores_labels_and_repeats_with_its_epochs():
    source = Source(["abc", "de"], [0, 1], ("x", "y"), "text", "letters")
    dataset = PackedDataset(source, letters, 3)
    assert len(dataset) == dataset.epoch_stride == 2
    tokens, labels = dataset[1]
    assert tokens.tolist() == labels.tolist() == [END, ord("d"), ord("e")] and tokens.dtype == torch.int64
    assert torch.equal(dataset[3][0], tokens)
    batch = stack_blocks([dataset[0], dataset[1]])
    assert torch.equal(batch["inputs"]["input_ids"], batch["labels"]) and batch["labels"].shape == (2, 3)


def test_what_cannot_be_packed():
    with pytest.raises(DataError, match="1 texts have 4 tokens, which is not one block of 5"):
        pack(["abc"], letters, 5)
    with pytest.raises(ConfigError, match="max_length=1: .*at least two"):
        pack(["abc"], letters, 1)
