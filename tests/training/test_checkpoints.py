"""A work directory goes on from what its run wrote, and from nothing else."""

from __future__ import annotations

import json
import logging
import random
import shutil

import pytest
from running import forget, main, trained, write_config

from mdpd_plugins.cli.main import main as mdpd
from mdpd_plugins.files import sha256
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.training.checkpoints import SUMS, clear_leftovers, latest_checkpoint, read_summary, refuse_last


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two work directories of the same configuration and other seeds, with checkpoints of steps 2 and 4."""
    base = tmp_path_factory.mktemp("runs")
    config = write_config(base, train={"max_steps": 4, "checkpoint_every": 2})
    for seed in (0, 1):
        trained(config, base / str(seed), **{"train.seed": seed})
    return base


@pytest.fixture
def work_dir(runs, tmp_path):
    return shutil.copytree(runs / "0", tmp_path / "run")


def test_a_run_signs_what_it_keeps(work_dir):
    sums = json.loads((work_dir / SUMS).read_text())
    assert sums == {name: sha256(work_dir / name) for name in ("iter_2.pth", "iter_4.pth")}
    assert latest_checkpoint(work_dir) == work_dir / "iter_4.pth"
    assert not list(work_dir.glob(".*"))


@pytest.mark.parametrize("command", ["resume", "export", "report"])
def test_another_runs_weights_are_refused_by_name(runs, work_dir, tmp_path, capsys, command):
    shutil.copy(runs / "1" / "iter_4.pth", work_dir)
    before = {p: p.stat().st_mtime_ns for p in work_dir.rglob("*")}
    if command == "resume":
        status = main([runs / "config.py", "--work-dir", work_dir, "--resume"])
    else:
        status = mdpd([command, str(work_dir), *([str(tmp_path / "out")] if command == "export" else [])])
    error = capsys.readouterr().err
    assert status == 2 and "iter_4.pth' is not what this run wrote" in error and "Traceback" not in error
    assert {p: p.stat().st_mtime_ns for p in work_dir.rglob("*")} == before and not (tmp_path / "out").exists()


def test_every_bit_counts(work_dir):
    path, rng = work_dir / "iter_4.pth", random.Random(0)
    content = path.read_bytes()
    for _ in range(20):
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match=r"iter_4\.pth' is not what this run wrote"):
            latest_checkpoint(work_dir)
    path.write_bytes(content)
    assert latest_checkpoint(work_dir) == path


def test_the_one_before_does_not_stand_in_for_the_newest_in_silence(work_dir, tmp_path, capsys):
    (work_dir / "iter_4.pth").unlink()
    with pytest.raises(CheckpointError, match=r"newest checkpoint, .*iter_4\.pth', is missing: put it back, or remove"):
        latest_checkpoint(work_dir)
    assert mdpd(["export", str(work_dir), str(tmp_path / "out")]) == 2
    assert "iter_4.pth' is missing" in " ".join(capsys.readouterr().err.split()).replace(",", "")
    (work_dir / SUMS).unlink()  # what the message says
    assert latest_checkpoint(work_dir) == work_dir / "iter_2.pth"


def test_a_checkpoint_from_elsewhere_is_not_taken_for_the_newest(runs, work_dir):
    shutil.copy(runs / "1" / "iter_4.pth", work_dir / "iter_9.pth")
    with pytest.raises(CheckpointError, match=r"iter_9\.pth' was not written by this run"):
        latest_checkpoint(work_dir)


def test_a_kill_between_the_sum_and_the_name_loses_nothing(work_dir):
    content = (work_dir / "iter_4.pth").read_bytes()
    (work_dir / "iter_4.pth").rename(work_dir / ".iter_4.0123abcd.part.pth")
    (work_dir / ".iter_4.ffffffff.part.pth").write_bytes(content[:-1])
    assert latest_checkpoint(work_dir).read_bytes() == content
    clear_leftovers(work_dir, keep_checkpoints=True)
    assert not list(work_dir.glob(".*")) and latest_checkpoint(work_dir) == work_dir / "iter_4.pth"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"iter_4.pth": 3}', '{"../iter_4.pth": "a"}', '{"iter_x.pth": "a"}']
)
def test_damaged_sums_are_named_with_the_way_out(work_dir, text):
    (work_dir / SUMS).write_text(text)
    with pytest.raises(CheckpointError, match=rf"{SUMS}' is damaged .*put it back, or remove it"):
        latest_checkpoint(work_dir)


def test_a_work_directory_from_before_there_were_sums_goes_on_with_one_line(runs, work_dir, caplog):
    (work_dir / SUMS).unlink()
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(work_dir) == work_dir / "iter_4.pth"
    (note,) = [r.message for r in caplog.records if "signed" in r.message]
    assert note.startswith(f"note: {work_dir} ")
    arguments = [runs / "config.py", "--work-dir", work_dir, "--resume", "--cfg-options", "train.max_steps=6"]
    assert main(arguments) == 0
    assert set(json.loads((work_dir / SUMS).read_text())) == {"iter_4.pth", "iter_6.pth"}


def test_what_is_set_aside_takes_its_sum_along(work_dir):
    assert "iter_2.pth" in refuse_last(work_dir, 4)
    assert latest_checkpoint(work_dir) == work_dir / "iter_2.pth"
    clear_leftovers(work_dir, keep_checkpoints=False)
    assert not (work_dir / SUMS).exists()
    assert latest_checkpoint(work_dir / "previous") == work_dir / "previous" / "iter_2.pth"


def test_a_run_that_lost_its_last_step_ends_the_same(runs, work_dir):
    forget(work_dir, 4)
    assert main([runs / "config.py", "--work-dir", work_dir, "--resume", "--cfg-options", "train.seed=0"]) == 0
    exports = [(w / "export" / "model.safetensors").read_bytes() for w in (work_dir, runs / "0")]
    assert exports[0] == exports[1]


@pytest.mark.parametrize("text", ["{", "[]", '{"memory": 3}', "\x00"])
def test_a_damaged_summary_is_named(work_dir, text, capsys):
    (work_dir / "summary.json").write_text(text)
    with pytest.raises(ConfigError, match=r"summary\.json' is damaged .*remove it"):
        read_summary(work_dir)
    assert mdpd(["report", str(work_dir)]) == 2
    assert "summary.json' is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["summary.json", "iter_3.pth", "config.py", "last_checkpoint"])
def test_a_folder_where_a_file_is_written_is_named_before_anything_is_trained(name, tmp_path, capsys):
    config = write_config(tmp_path)
    (tmp_path / "run" / name).mkdir(parents=True)
    assert main([config, "--work-dir", tmp_path / "run"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{name}' is a folder, and a run writes a file of that name: move it away" in said
    assert [p.name for p in (tmp_path / "run").iterdir()] == [name]
