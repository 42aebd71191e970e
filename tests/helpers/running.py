"""Runs of the trainer: small configurations, and processes that start quickly and can be killed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from PIL import Image
from small_zoo import BACKBONES

from mdpd_plugins.cli.main import main as mdpd
from mdpd_plugins.files import read_signed, write_signed
from mdpd_plugins.training import load_config, train

WORDS = ("red", "green", "round", "fast", "cold", "late", "small", "new")


def main(arguments: Sequence[object]) -> int:
    """The command line of training, in this process; its exit status."""
    return mdpd(["train", *map(str, arguments)])


# A server that has imported once what a run imports; each process is forked off it and has a state of its own.
_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = ["mdpd_plugins.training", "transformers.models.vit.modeling_vit", "matplotlib.pyplot"]
_PRELOADED += ["mpl_toolkits.mplot3d", "setuptools", "sklearn.metrics", "mdpd_plugins.zoos.huggingface.encoder"]
_PRELOADED += ["mdpd_plugins.data.sources.image_folder", "PIL.PngImagePlugin", "mmpretrain.models", "open_clip"]
_FORKS.set_forkserver_preload(_PRELOADED)


def preload(*modules: str) -> None:
    """Let the server import these, too. Before the first process."""
    _FORKS.set_forkserver_preload([*_PRELOADED, *modules])


def write_config(folder: Path, small_backbone: str = "hf-vit", /, **sections: Any) -> Path:
    """A config file on a small backbone of `small_zoo`, with ten steps on packaged digits unless said otherwise."""
    name, options = BACKBONES[small_backbone]
    config: dict[str, Any] = {
        "backbone": {"name": name, "pretrained": None, "options": options},
        "data": {"source": {"type": "packaged", "name": "digits", "train_size": 40, "val_size": 16}, "batch_size": 8},
        "distill": {"reduction": 4, "bottleneck": 8},
        "train": {"max_steps": 10},
    }
    for key, value in sections.items():
        both = isinstance(value, dict) and isinstance(config.get(key), dict)
        config[key] = {**config[key], **value} if both else value
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.py"
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in config.items()))
    return path


def image_folder(root: Path, count: int = 10, classes: Sequence[str] = ("bright", "dark", "striped")) -> Path:
    """Random colour pictures of changing size, `count` of each class."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(count):
            picture = rng.integers(0, 80, (36 + i, 44, 3)) + 80 * (number == 0)
            picture[:: number + 1] += 60
            Image.fromarray(picture.astype(np.uint8)).save(folder / f"{i:02}.png")
    return root


def text_table(path: Path, rows: int = 44) -> Path:
    """A CSV of short texts of changing length in two classes."""
    rng = np.random.default_rng(0)
    lines = ["text,label"]
    for i in range(rows):
        words = rng.choice(WORDS, size=2 + int(rng.integers(0, 9)))
        lines.append(f"{' '.join(words)},{'ab'[i % 2]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def trained(config: Path, work_dir: Path, **options: Any) -> dict[str, Any]:
    """Train in this process and return the summary."""
    loaded = load_config(config, options)
    loaded.work_dir = str(work_dir)
    return train(loaded)


def start(arguments: Sequence[object], log: Path, env: dict[str, str] | None = None) -> multiprocessing.Process:
    """Start the trainer's command line in a process of its own.

    What it prints is appended to `log`, and what it prints to stderr also to the file beside it that ends in .err.
    """
    process = _FORKS.Process(target=_run, args=([str(a) for a in arguments], log, env or {}))
    process.start()
    return process


def run(arguments: Sequence[object], log: Path, env: dict[str, str] | None = None) -> int:
    """Run the trainer's command line in a process of its own; its exit status, negative for a signal."""
    process = start(arguments, log, env)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def run_together(arguments: Sequence[object], log: Path, processes: int = 2) -> list[int]:
    """Run the command line in several processes with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        start(arguments, log, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(processes)
    ]
    for process in started:
        process.join()
    return [int(process.exitcode or 0) for process in started]


class _Both:
    """A stream into two files."""

    def __init__(self, *files: TextIO):
        self.files = files

    def write(self, text: str) -> int:
        return max(file.write(text) for file in self.files)

    def flush(self) -> None:
        for file in self.files:
            file.flush()


def _run(arguments: list[str], log: Path, env: dict[str, str]) -> None:
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in a script's background
    torch.set_num_threads(1)
    with open(log, "a", buffering=1) as out, open(Path(f"{log}.err"), "a", buffering=1) as err:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(_Both(out, err)):  # type: ignore[type-var]
            try:
                status = main(arguments)
            except BaseException:
                traceback.print_exc()
                status = 1
    sys.exit(status)


def forget(work_dir: Path, step: int) -> None:
    """Leave a work directory as if its run had been killed before that checkpoint was written."""
    (work_dir / f"iter_{step}.pth").unlink()
    sums = json.loads((work_dir / "checkpoints.json").read_text())
    del sums[f"iter_{step}.pth"]
    (work_dir / "checkpoints.json").write_text(json.dumps(sums))
    (work_dir / "summary.json").unlink(missing_ok=True)
    if (work_dir / "run.json").exists():  # a coach's folder has none
        record = read_signed(work_dir / "run.json")
        record.pop("result", None)
        write_signed(work_dir / "run.json", record)


def weights(work_dir: Path, step: int) -> dict[str, torch.Tensor]:
    """Everything that a run had learned at a step: the state dict in its checkpoint."""
    return torch.load(work_dir / f"iter_{step}.pth", weights_only=True)["state_dict"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def assert_learned_alike(alone: Path, together: Path, step: int) -> None:
    """Two runs came to the same weights, to 1e-6, and the same metrics."""
    ours, theirs = weights(together, step), weights(alone, step)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if key.endswith("qkv.bias"):
            # Softmax does not see a bias of all keys: its gradient is rounding noise, which Adam blows up.
            queries, _, values = ours[key].chunk(3)
            ours[key], value = torch.cat([queries, values]), torch.cat([value.chunk(3)[0], value.chunk(3)[2]])
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")
    metrics = [json.loads((w / "summary.json").read_text())["metrics"] for w in (alone, together)]
    assert metrics[0] == metrics[1] != {}


def processes(session: int) -> list[int]:
    """Those of a session that are alive."""
    found = subprocess.run(["ps", "-eo", "pid=,sess=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in found.splitlines()]
    return [int(pid) for pid, own, state in rows if int(own) == session and not state.startswith("Z")]
