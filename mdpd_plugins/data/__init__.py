"""Labelled data: sources, data sets, collate functions, and the order of batches.

    source = load_source({"type": "packaged", "name": "bbc-topics"}, "train")
    dataset = LabelledDataset(source, make_transform(source), seed=0, train=True)
    collate = Collate(adapter.transform())

Importing this registers `EpochBatchSampler` with mmengine.
"""

from mdpd_plugins.data.collate import Collate
from mdpd_plugins.data.dataset import LabelledDataset
from mdpd_plugins.data.load import load_source
from mdpd_plugins.data.numbered import NumberedCollate, NumberedDataset
from mdpd_plugins.data.packaged.catalogue import packaged_names
from mdpd_plugins.data.packed import PackedDataset, stack_blocks
from mdpd_plugins.data.sampler import EpochBatchSampler
from mdpd_plugins.data.source import READS, Source
from mdpd_plugins.data.transforms import AUGMENTS, make_transform

__all__ = [
    "AUGMENTS",
    "READS",
    "Collate",
    "EpochBatchSampler",
    "LabelledDataset",
    "NumberedCollate",
    "NumberedDataset",
    "PackedDataset",
    "Source",
    "load_source",
    "make_transform",
    "packaged_names",
    "stack_blocks",
]
