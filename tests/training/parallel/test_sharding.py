"""Frozen weights shared out over two processes: the same learning, fewer bytes in each, the same export."""

from __future__ import annotations

import json
import shutil

import pytest
from running import assert_learned_alike, image_folder, run, run_together, same, text_table, weights, write_config

STEPS = 20
LAUNCHER = ["--launcher", "pytorch"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    # 21 are left for training: with batches of eight, each epoch ends with an odd rest.
    return str(image_folder(tmp_path_factory.mktemp("data") / "pictures"))


def config(folder, pictures, small_backbone, batch_size, **more):
    data = {"batch_size": batch_size}
    given = {"data_root": pictures, "optim": {"side_lr": 3e-4, "accumulate": 2}, **more}
    if small_backbone in ("hf-minilm", "oc-text"):
        source = {"type": "table", "path": str(text_table(folder.parent / f"{folder.name}.csv", rows=41))}
        data["source"] = {**source, "text_column": "text", "label_column": "label"}
        given["data_root"] = None
    distill = {"reduction": 4, "bottleneck": 8, "backbone_every": 2, **given.pop("distill", {})}
    train = {"max_steps": STEPS, "checkpoint_every": 5}
    return write_config(folder, small_backbone, data=data, distill=distill, train=train, **given)


def summary(work_dir):
    return json.loads((work_dir / "summary.json").read_text())


@pytest.mark.parametrize(
    "small_backbone, distill",
    [
        ("hf-minilm", {}),
        ("mm-vit", {"norm_gradient": "local"}),
        ("oc-image", {"method": "norm", "recompute": True}),
        ("hf-vit", {"method": "lora"}),
        ("oc-image", {"method": "lora"}),
    ],
)
def test_sharded_processes_learn_what_one_learns_and_hold_less(tmp_path, pictures, small_backbone, distill):
    alone, together, log = tmp_path / "alone", tmp_path / "together", tmp_path / "log"
    one = config(tmp_path / "one", pictures, small_backbone, 8, distill=distill)
    assert run([one, "--work-dir", alone], log) == 0, log.read_text()
    two = config(tmp_path / "two", pictures, small_backbone, 4, distill=distill, parallel={"shard": True})
    assert run_together([two, "--work-dir", together, *LAUNCHER], log) == [0, 0], log.read_text()
    assert_learned_alike(alone, together, STEPS)
    found = summary(together)
    assert found["fading"]["outputs_equal"] or found["fading"]["merged"]
    held = found["memory"]["weights_peak_by_process"]
    assert len(held) == 2 and 0 < max(held) < found["memory"]["weights"]
    assert (together / "export").is_dir()


def test_a_process_holds_its_half_of_the_blocks_and_one_whole_block(tmp_path, pictures):
    log, work_dir = tmp_path / "log", tmp_path / "run"
    deep = {"options": {"image_size": 32, "patch_size": 8, "hidden_size": 64, "num_hidden_layers": 12}}
    path = config(tmp_path / "c", pictures, "hf-vit", 4, backbone=deep, parallel={"shard": True})
    assert run_together([path, "--work-dir", work_dir, *LAUNCHER], log) == [0, 0], log.read_text()
    assert log.read_text().count("sharded weights") == 1
    memory = summary(work_dir)["memory"]
    # A half, and one block of twelve; the small rest is what stands outside the blocks and what trains.
    assert max(memory["weights_peak_by_process"]) < (1 / 2 + 1 / 12 + 0.05) * memory["weights"]


def test_sharded_processes_are_resumed_to_the_same_end_sharded_or_not(tmp_path, pictures):
    log, whole, parts = tmp_path / "log", tmp_path / "whole", tmp_path / "parts"
    path = config(tmp_path / "c", pictures, "hf-vit", 4, parallel={"shard": True})
    assert run_together([path, "--work-dir", whole, *LAUNCHER], log) == [0, 0], log.read_text()
    hooks = {"custom_hooks": [{"type": "KillHook", "step": 12, "moment": "before step"}]}
    imports = {"custom_imports": {"imports": ["kill_hook"]}}
    hooked = config(tmp_path / "hooked", pictures, "hf-vit", 4, parallel={"shard": True}, **hooks, **imports)
    run_together([hooked, "--work-dir", parts, *LAUNCHER], log)
    assert not (parts / f"iter_{STEPS}.pth").exists()
    plain, unsharded = tmp_path / "plain", config(tmp_path / "p", pictures, "hf-vit", 4)
    shutil.copytree(parts, plain)
    assert run_together([path, "--work-dir", parts, "--resume", *LAUNCHER], log) == [0, 0], log.read_text()
    assert same(weights(whole, STEPS), weights(parts, STEPS))
    assert run_together([unsharded, "--work-dir", plain, "--resume", *LAUNCHER], log) == [0, 0], log.read_text()
    assert same(weights(whole, STEPS), weights(plain, STEPS))


@pytest.mark.parametrize(
    "launcher, small_backbone, method, words",
    [
        ([], "hf-vit", "mdpd", "torchrun"),
        (LAUNCHER, "hf-vit", "full", "trains every weight"),
    ],
)
def test_what_cannot_be_sharded_says_so(tmp_path, pictures, launcher, small_backbone, method, words):
    log = tmp_path / "log"
    path = config(tmp_path / "c", pictures, small_backbone, 4, distill={"method": method}, parallel={"shard": True})
    arguments = [path, "--work-dir", tmp_path / "run", *launcher]
    assert set(run_together(arguments, log) if launcher else [run(arguments, log)]) == {2}
    assert words in log.read_text()
