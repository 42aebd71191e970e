"""Labelled data: sources, data sets, collate functions, and the order of batches.

source = load_source({"type": "packaged", "name": "bbc-topics"}, "train")
dataset = LabelledDataset(source, make_transform(source), seed=0, train=True)
collate = Collate(adapter.transform())
"""

from mdpd_plugins.data.collate import Collate, NumberedCollate
from mdpd_plugins.data.dataset import LabelledDataset, NumberedDataset
from mdpd_plugins.data.description import describe, description_lines
from mdpd_plugins.data.load import load_source, load_unlabelled
from mdpd_plugins.data.mixing import MIXES, Mixing
from mdpd_plugins.data.packaged.catalogue import packaged_names
from mdpd_plugins.data.packed import PackedDataset, stack_blocks
from mdpd_plugins.data.sampler import EpochBatchSampler
from mdpd_plugins.data.source import READS, Source
from mdpd_plugins.data.taught import TaughtCollate, TaughtDataset
from mdpd_plugins.data.transforms import AUGMENTS, augment_line, chosen_augment, make_transform

__all__ = [
    "AUGMENTS",
    "MIXES",
    "READS",
    "Collate",
    "EpochBatchSampler",
    "LabelledDataset",
    "Mixing",
    "NumberedCollate",
    "NumberedDataset",
    "PackedDataset",
    "Source",
    "TaughtCollate",
    "TaughtDataset",
    "augment_line",
    "chosen_augment",
    "describe",
    "description_lines",
    "load_source",
    "load_unlabelled",
    "make_transform",
    "packaged_names",
    "stack_blocks",
]
