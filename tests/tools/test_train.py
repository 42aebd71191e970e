"""`python tools/train.py`, `mdpd train`, `mdpd export` and `mdpd show`, run as people run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import image_folder, run, same, weights, write_config

from mdpd_plugins.cli.main import main

ROOT = Path(__file__).parents[2]


def tool(*arguments, **env):
    """tools/train.py in a process of its own."""
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "train.py", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_tool_resumes_to_the_end_of_mdpd_train_and_mdpd_export_repeats_its_export(tmp_path, capsys):
    data = {"data_root": str(image_folder(tmp_path / "pictures")), "data": {"augment": "crop+flip", "batch_size": 8}}
    train = {"max_steps": 6, "checkpoint_every": 2}
    plain = write_config(tmp_path / "plain", **data, train=train)
    hooks = [{"type": "KillHook", "step": 5, "moment": "after step"}]
    imports = {"imports": ["kill_hook"]}
    hooked = write_config(tmp_path / "hooked", **data, train=train, custom_hooks=hooks, custom_imports=imports)

    assert run([hooked, "--work-dir", tmp_path / "tool"], tmp_path / "log") == -signal.SIGKILL
    resumed = tool(plain, "--work-dir", tmp_path / "tool", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert main(["train", str(plain), "--work-dir", str(tmp_path / "mdpd")]) == 0
    assert same(weights(tmp_path / "tool", 6), weights(tmp_path / "mdpd", 6))

    assert main(["export", str(tmp_path / "mdpd"), str(tmp_path / "out")]) == 0
    assert f"exported to {tmp_path / 'out'}" in capsys.readouterr().out
    for work_dir in ("tool", "mdpd"):
        first = tmp_path / work_dir / "export"
        assert {p.name for p in first.iterdir()} == {p.name for p in (tmp_path / "out").iterdir()}
        ours, theirs = (f / "model.safetensors" for f in (tmp_path / "out", first))
        assert ours.read_bytes() == theirs.read_bytes()


def test_mdpd_train_reads_the_options_of_the_tool(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    for option in ("--work-dir", "--resume", "--amp", "--cfg-options", "--launcher", "--dry-run"):
        assert option in out
    assert main(["train", str(write_config(tmp_path / "a")), "--work-dir", str(tmp_path / "run"), "--resume"]) == 2
    err = capsys.readouterr().err
    building, error = err.splitlines()
    assert building.startswith("building ") and error.startswith("error: there is nothing to resume")
    assert not (tmp_path / "run").exists()


def test_exporting_refuses_what_it_would_overwrite_and_what_is_no_run(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.md").write_text("precious")
    work_dir = tmp_path / "run"
    assert main(["export", str(work_dir), str(tmp_path / "out")]) == 2
    assert "is not a work directory of a training run" in capsys.readouterr().err
    work_dir.mkdir()
    write_config(work_dir)
    assert main(["export", str(work_dir), str(tmp_path / "full")]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert main(["export", str(work_dir), str(tmp_path / "out")]) == 2
    assert "it holds no iter_*.pth" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.md"] and not (tmp_path / "out").exists()


def test_show_describes_a_registered_backbone(capsys):
    assert main(["show", "huggingface/minilm-l6"]) == 0
    out = capsys.readouterr().out
    assert "blocks: 6\n" in out and "norm layers: 13\n" in out and "384" in out
    assert "12 heads" in out
