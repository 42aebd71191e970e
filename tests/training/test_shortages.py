"""A full disk, a folder that must not be written, too little memory: one line says so, and what was whole stays."""

from __future__ import annotations

import errno
import resource

import pytest
import torch
from running import main, same, trained, weights, write_config
from safetensors.torch import save_file

from mdpd_plugins.cli.main import main as mdpd
from mdpd_plugins.shortages import shortage
from mdpd_plugins.training.checkpoints import latest_checkpoint

HOOKS = {"imports": ["kill_hook"]}
STEPS = {"max_steps": 4, "checkpoint_every": 2}
SMALL = 60_000  # bytes that a file may have: less than a checkpoint and an export's weights, more than a log


@pytest.fixture
def limit():
    """Put a limit on the size of files, as `ulimit -f` does, which needs no rights. The old one comes back."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untouched")
    trained(write_config(folder, train=STEPS), folder / "run")
    return folder / "run"


@pytest.mark.parametrize("moment", ["checkpoint", "export"])
def test_a_disk_that_fills_leaves_what_was_whole(tmp_path, untouched, capsys, limit, moment):
    hook = {"type": "LimitHook", "step": 4, "moment": moment, "size": SMALL}
    config = write_config(tmp_path, train=STEPS, custom_imports=HOOKS, custom_hooks=[hook])
    plain = write_config(tmp_path / "plain", train=STEPS)
    assert main([config, "--work-dir", tmp_path / "run"]) == 2
    limit(resource.RLIM_INFINITY)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "the disk, a quota or a limit on file sizes is full" in line and "make room" in line
    newest = 2 if moment == "checkpoint" else 4
    assert latest_checkpoint(tmp_path / "run").name == f"iter_{newest}.pth"
    assert same(weights(tmp_path / "run", 2), weights(untouched, 2))
    left = [p.name for p in (tmp_path / "run").iterdir() if p.name.startswith((".", "export", "iter_"))]
    assert sorted(left) == [f"iter_{step}.pth" for step in range(2, newest + 1, 2)]
    assert main([plain, "--work-dir", tmp_path / "run", "--resume"]) == 0
    assert same(weights(tmp_path / "run", 4), weights(untouched, 4))
    names = [w / "export" / "model.safetensors" for w in (tmp_path / "run", untouched)]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_an_export_that_does_not_fit_leaves_no_folder(tmp_path, untouched, capsys, limit):
    limit(SMALL)
    assert mdpd(["export", str(untouched), str(tmp_path / "out")]) == 2
    assert "make room" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_ends_with_what_was_planned_and_what_to_lower(tmp_path, capsys):
    hook = {"type": "LimitHook", "step": 3, "moment": "memory"}
    config = write_config(tmp_path, train=STEPS, custom_imports=HOOKS, custom_hooks=[hook])
    assert main([config, "--work-dir", tmp_path / "run"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: there is not enough memory. A step was planned to hold ") and "MiB" in line
    assert "distill.sub_batch=4, which changes no result, data.batch_size (now 8)" in line
    assert latest_checkpoint(tmp_path / "run").name == "iter_2.pth"


@pytest.mark.parametrize("size", [1000, None])
def test_what_libraries_say_of_it_is_understood(tmp_path, limit, size):
    """The real errors of each writer, and none of another fault."""
    tensor = {"a": torch.zeros(20_000)}
    found = []
    limit(size or resource.RLIM_INFINITY)
    for write in (
        lambda: save_file(tensor, tmp_path / "a.safetensors"),
        lambda: torch.save(tensor, tmp_path / "a.pth"),
        lambda: (tmp_path / "a").write_bytes(b"x" * 2000),
    ):
        try:
            write()
        except Exception as error:
            found.append(shortage(error))
    limit(resource.RLIM_INFINITY)
    assert len(found) == (3 if size else 0) and all(said and "make room" in said for said in found)
    with pytest.raises(RuntimeError) as large:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert "not enough memory" in shortage(large.value)
    assert "change its rights" in shortage(PermissionError(errno.EACCES, "Permission denied", "/x"))
    assert shortage(RuntimeError("shape mismatch")) is None and shortage(FileNotFoundError(2, "no", "x")) is None
