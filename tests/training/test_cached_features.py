"""Features of a frozen backbone over whole runs: same result, and refused where the data changes."""

from __future__ import annotations

import gc
import json

import pytest
from running import forget, image_folder, run, same, trained, weights, write_config

from mdpd_plugins.registry import ConfigError
from mdpd_plugins.registry.errors import OutOfMemory
from mdpd_plugins.training import dry_run, load_config
from mdpd_plugins.training.experiment import build_experiment

STEPS = 9  # three epochs


def config(folder, cache_features, **sections):
    distill = {"method": "mdpd_head", "reduction": 4, "bottleneck": 8, "backbone_every": 2, "warmup": 0.0}
    source = {"type": "packaged", "name": "digits", "train_size": 20, "val_size": 8}
    given = {"data": {"source": source}, "train": {"max_steps": STEPS}, **sections}
    return write_config(folder, distill={**distill, "cache_features": cache_features}, **given)


def test_a_run_and_a_resumed_run_on_kept_features_end_where_a_plain_one_does(tmp_path):
    log = tmp_path / "log"
    ends = {}
    for name, cache in (("plain", 0), ("cached", 64)):
        path = config(tmp_path / name, cache, train={"max_steps": STEPS, "checkpoint_every": 4})
        assert run([path, "--work-dir", tmp_path / f"{name}_run"], log) == 0, log.read_text()
        ends[name] = weights(tmp_path / f"{name}_run", STEPS)
    assert same(ends["plain"], ends["cached"])
    metrics = [json.loads((tmp_path / f"{n}_run" / "summary.json").read_text())["metrics"] for n in ends]
    assert metrics[0] == metrics[1] != {}
    # From the middle of an epoch, with nothing kept yet.
    forget(tmp_path / "cached_run", STEPS)
    assert run([tmp_path / "cached" / "config.py", "--work-dir", tmp_path / "cached_run", "--resume"], log) == 0
    assert same(weights(tmp_path / "cached_run", STEPS), ends["plain"])


def test_each_epoch_after_the_first_runs_the_backbone_on_nothing(tmp_path):
    experiment = build_experiment(load_config(config(tmp_path, 64)))
    batches, computed = iter(experiment.train_loader), []
    for _ in range(3):
        for _ in range(experiment.steps_per_epoch):
            experiment.distiller.train_step(next(batches), experiment.optim)
        computed.append(experiment.distiller.cache.computed)
    assert computed == [20] * 3


def test_augmented_data_is_refused_with_the_way_out(tmp_path):
    data = {"data_root": str(image_folder(tmp_path / "pictures")), "data": {"batch_size": 8}}
    with pytest.raises(ConfigError, match=r"data\.augment='auto' changes them .*: set data\.augment='none', or"):
        build_experiment(load_config(config(tmp_path, 64, **data)))
    data["data"]["augment"] = "none"
    assert build_experiment(load_config(config(tmp_path, 64, **data))).distiller.cache is not None


def test_each_view_of_each_picture_is_kept_and_the_first_is_the_picture_itself(tmp_path):
    data = {"data_root": str(image_folder(tmp_path / "pictures")), "data": {"batch_size": 8, "augment": "crop"}}

    def built(**distill):
        given = {"distill.cache_views": 3, **{f"distill.{k}": v for k, v in distill.items()}}
        return build_experiment(load_config(config(tmp_path, 64, **data), given))

    experiment = built()
    dataset, size = experiment.train_loader.dataset, len(experiment.parts.train)
    batches, computed, views = iter(experiment.train_loader), [], []
    for _ in range(7):
        for _ in range(experiment.steps_per_epoch):
            experiment.distiller.train_step(next(batches), experiment.optim)
        computed.append(experiment.distiller.cache.computed)
    assert computed == [size, 2 * size, *[3 * size] * 5]
    for epoch in range(7):
        (picture, _), number = dataset[epoch * size + 1]
        assert number == epoch % 3 * size + 1
        views.append(picture.tobytes())
    assert views[0] == experiment.parts.train[1][0].tobytes() and len(set(views)) == 3
    assert views == [views[n % 3] for n in range(7)]
    assert [number for _, number in dataset.all_views()] == list(range(3 * size))
    with pytest.raises(ConfigError, match="cache_views=3 is of hidden states that are kept, and none are"):
        built(cache_features=0)
    data["data"]["augment"] = "none"
    with pytest.raises(ConfigError, match="keeps augmented views of each picture, but data.augment='none' comes to no"):
        built()


def test_a_run_that_failed_and_a_dry_run_let_go_of_the_file(tmp_path):
    """In one process, as in a notebook."""
    cache = {"distill": {"method": "linear", "cache_folder": str(tmp_path / "kept")}, "train": {"max_steps": 2}}
    hooks = {"custom_imports": {"imports": ["kill_hook"]}, "custom_hooks": [{"type": "LimitHook", "step": 2}]}
    hooks["custom_hooks"][0]["moment"] = "memory"
    gc.disable()  # which would let go of it, too, at some time
    try:
        with pytest.raises(OutOfMemory):
            trained(write_config(tmp_path / "fails", **cache, **hooks), tmp_path / "first")
        plain = write_config(tmp_path / "plain", **cache)
        dry_run(load_config(plain))
        assert trained(plain, tmp_path / "second")["steps"] == 2
    finally:
        gc.enable()
