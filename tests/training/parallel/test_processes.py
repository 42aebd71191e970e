"""Two processes learn what one learns, and are resumed as one is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import (
    assert_learned_alike,
    image_folder,
    run,
    run_together,
    same,
    text_table,
    weights,
    write_config,
)

TRAIN = Path(__file__).parents[3] / "tools" / "train.py"
STEPS = 20
LAUNCHER = ["--launcher", "pytorch"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    # 21 pictures and 33 texts are left for training: with batches of eight, each epoch ends with an odd rest.
    return str(image_folder(folder / "pictures")), str(text_table(folder / "texts.csv", rows=41))


# Every zoo, and every way in which what the processes do could differ.
BACKBONES = {
    "texts and accumulation": "hf-minilm",
    "automatic split": "mm-vit",
    "local gradients and accumulation": "oc-image",
    "pictures": "hf-vit",
}


def sections(data, scenario):
    pictures, texts = data
    given = {"data_root": pictures, "optim": {"side_lr": 3e-4}, "train": {"max_steps": STEPS, "checkpoint_every": 5}}
    given["distill"] = {"reduction": 4, "bottleneck": 8, "backbone_every": 2}
    if scenario == "texts and accumulation":
        given["optim"] |= {"accumulate": 3}
        # Padded to the longest of the own part: token counts and masks differ between the processes.
        source = {"type": "table", "path": texts, "text_column": "text", "label_column": "label"}
        return {**given, "data_root": None, "data": {"source": source}}
    if scenario == "automatic split":
        given["distill"] |= {"shallow": "auto", "deep": "auto", "warmup": 0.2, "auto_batches": 3}
    if scenario == "local gradients and accumulation":
        given["distill"] |= {"norm_gradient": "local"}
        given["optim"] |= {"accumulate": 3, "clip_grad": 0.5}
    return given


def config(folder, data, scenario, batch_size, **more):
    given = {**sections(data, scenario), **more}
    given["data"] = {**given.get("data", {}), "batch_size": batch_size}
    return write_config(folder, BACKBONES[scenario], **given)


@pytest.mark.parametrize("scenario", [s for s in BACKBONES if s != "pictures"])
def test_two_processes_give_the_weights_of_one(tmp_path, data, scenario):
    alone, together, log = tmp_path / "alone", tmp_path / "together", tmp_path / "log"
    assert run([config(tmp_path / "one", data, scenario, 8), "--work-dir", alone], log) == 0, log.read_text()
    shared = config(tmp_path / "two", data, scenario, 4)
    assert run_together([shared, "--work-dir", together, *LAUNCHER], log) == [0, 0], log.read_text()
    assert_learned_alike(alone, together, STEPS)


def test_torchrun_trains_with_two_processes_on_cpu(tmp_path, data):
    alone, together, log = tmp_path / "alone", tmp_path / "together", tmp_path / "log"
    assert run([config(tmp_path / "one", data, "pictures", 8), "--work-dir", alone], log) == 0, log.read_text()
    shared = config(tmp_path / "two", data, "pictures", 4)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, TRAIN, shared, "--work-dir", together, *LAUNCHER],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RANDOM WEIGHTS") == 1, "only the first process speaks"
    assert done.stdout.count("exported to") == 1
    assert_learned_alike(alone, together, STEPS)


def test_two_killed_processes_resume_to_the_same_end(tmp_path, data):
    scenario, log = "local gradients and accumulation", tmp_path / "log"
    plain = config(tmp_path / "plain", data, scenario, 4)
    hooks = [{"type": "KillHook", "step": 12, "moment": "before step"}]
    hooked = config(
        tmp_path / "hooked", data, scenario, 4, custom_hooks=hooks, custom_imports={"imports": ["kill_hook"]}
    )
    run_dir, untouched = tmp_path / "run", tmp_path / "untouched"
    assert run_together([plain, "--work-dir", untouched, *LAUNCHER], log) == [0, 0], log.read_text()
    assert -signal.SIGKILL in run_together([hooked, "--work-dir", run_dir, *LAUNCHER], log)
    # The checkpoint of step 10 holds gradients of one batch that wait for two more.
    assert run_together([plain, "--work-dir", run_dir, "--resume", *LAUNCHER], log) == [0, 0], log.read_text()
    assert same(weights(run_dir, STEPS), weights(untouched, STEPS))


def test_the_launcher_without_torchrun_says_how_to_start(tmp_path, data):
    log = tmp_path / "log"
    arguments = [config(tmp_path / "one", data, "pictures", 8), "--work-dir", tmp_path / "run", *LAUNCHER]
    assert run(arguments, log) == 2
    assert "torchrun --nproc-per-node 2 tools/train.py" in log.read_text()
    assert not (tmp_path / "run").exists()
