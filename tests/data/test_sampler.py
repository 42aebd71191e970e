"""The order of batches: once through the data per epoch, repeatable from anywhere, split among processes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from PIL import Image

from mdpd_plugins.adapters import ImageTransform
from mdpd_plugins.data import Collate, EpochBatchSampler, LabelledDataset, Source, make_transform
from mdpd_plugins.registry import ConfigError


def dataset(count: int, train: bool = True) -> LabelledDataset:
    pictures = [Image.linear_gradient("L").resize((8, 8)).convert("RGB").rotate(9 * i) for i in range(count)]
    source = Source(pictures, [i % 2 for i in range(count)], ("a", "b"), "image", "ramps", augment="crop+flip")
    return LabelledDataset(source, make_transform(source), seed=1, train=train)


def batches(count: int, batch_size: int, number: int, seed: int = 0, **options: Any) -> list[list[int]]:
    sampler = EpochBatchSampler(DefaultSampler(dataset(count), seed=seed), batch_size, **options)
    return list(itertools.islice(iter(sampler), number))


def test_every_epoch_shows_each_example_once_in_another_order() -> None:
    stream = batches(10, 4, 9)
    assert [len(batch) for batch in stream] == [4, 4, 2] * 3
    orders = []
    for epoch in range(3):
        virtual = [index for batch in stream[3 * epoch : 3 * epoch + 3] for index in batch]
        assert sorted(virtual) == list(range(10 * epoch, 10 * epoch + 10))
        orders.append([index % 10 for index in virtual])
    assert orders[0] != orders[1] != orders[2]


def test_seed_and_options() -> None:
    assert batches(10, 4, 5) == batches(10, 4, 5)
    assert batches(10, 4, 5) != batches(10, 4, 5, seed=1)
    assert batches(10, 4, 5, seed=1) == batches(10, 4, 5, **{"seed": 1})
    assert [len(batch) for batch in batches(10, 4, 4, drop_last=True)] == [4] * 4
    plain = EpochBatchSampler(DefaultSampler(dataset(5), shuffle=False, seed=0), 3)
    assert list(itertools.islice(plain, 3)) == [[0, 1, 2], [3, 4], [5, 6, 7]]


@pytest.mark.parametrize("start", [0, 1, 3, 7])
def test_a_stream_can_begin_anywhere(start: int) -> None:
    sampler = EpochBatchSampler(DefaultSampler(dataset(10), seed=0), 4)
    sampler.start_at(start)
    assert list(itertools.islice(sampler, 4)) == batches(10, 4, start + 4)[start:]


def test_wrong_sizes_and_data_sets() -> None:
    with pytest.raises(ConfigError, match="make no batch of 4"):
        batches(3, 4, 1, drop_last=True)
    with pytest.raises(ConfigError, match="batch_size=0"):
        batches(3, 0, 1)
    with pytest.raises(ConfigError, match="serves LabelledDataset, not list"):
        EpochBatchSampler(DefaultSampler([1, 2, 3], seed=0), 2)


def loader(workers: int, **options: Any) -> Any:
    config = {
        "dataset": dataset(10),
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "batch_sampler": {"type": EpochBatchSampler},
        "batch_size": 4,
        "num_workers": workers,
        "collate_fn": Collate(ImageTransform((8, 8), (0, 0, 0), (1, 1, 1), "bilinear")),
        **options,
    }
    return Runner.build_dataloader(config, seed=7)


def test_mmengine_builds_it_and_worker_processes_change_nothing() -> None:
    alone, helped = loader(0), loader(2)
    assert len(alone) == 3  # an epoch, as mmengine counts it
    pairs = itertools.islice(zip(alone, helped, strict=False), 5)
    for one, other in pairs:
        torch.manual_seed(len(one["labels"]))  # the main process's generator has no say either
        assert torch.equal(one["inputs"]["image"], other["inputs"]["image"])
        assert torch.equal(one["labels"], other["labels"])


def test_a_data_set_shortened_by_mmengine() -> None:
    shortened = loader(0, num_batch_per_epoch=2)
    assert len(shortened) == 2
    labels = [batch["labels"] for batch in itertools.islice(shortened, 4)]
    assert sum(map(len, labels)) == 16


def test_validation_uses_mmengines_own_sampler() -> None:
    validation = loader(
        0,
        dataset=dataset(10, train=False),
        sampler={"type": "DefaultSampler", "shuffle": False},
        batch_sampler=None,
    )
    assert torch.cat([batch["labels"] for batch in validation]).tolist() == [0, 1] * 5


WORKER = """
import itertools, json, sys
import torch.distributed as dist
from mmengine.dataset import DefaultSampler
from mdpd_plugins.data import EpochBatchSampler, LabelledDataset, Source

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
found = {}
for count, batch_size in ((16, 4), (13, 3), (13, 4)):
    source = Source([""] * count, [0] * count, ("a", "b"), "text", "")
    sampler = EpochBatchSampler(DefaultSampler(LabelledDataset(source, train=True), seed=0), batch_size)
    found[f"{count}/{batch_size}"] = [len(sampler), list(itertools.islice(sampler, 6))]
print(json.dumps(found))
"""


def test_two_processes_share_each_batch_of_one(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WORKER]
    ranks = [
        subprocess.Popen([*command, str(r), str(tmp_path / "store")], stdout=subprocess.PIPE, env=environment)
        for r in range(2)
    ]
    first, second = (json.loads(process.communicate(timeout=60)[0]) for process in ranks)
    for count, batch_size in ((16, 4), (13, 3)):
        (length, mine), (_, theirs) = first[f"{count}/{batch_size}"], second[f"{count}/{batch_size}"]
        alone = batches(count, 2 * batch_size, 6)
        assert length == -(-count // (2 * batch_size))
        for k in range(6):
            # 13 examples in batches of 6: the third holds one, and both ranks see it rather than one none.
            assert mine[k] + theirs[k] == (alone[k] if len(alone[k]) > 1 else alone[k] * 2)
            assert abs(len(mine[k]) - len(theirs[k])) <= 1
    assert [len(batch) for batch in first["13/4"][1]] == [4, 2, 4, 2, 4, 2]
    assert [len(batch) for batch in second["13/4"][1]] == [4, 3, 4, 3, 4, 3]
