"""One run in a work directory at a time, and none is kept out by a process that is dead."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import signal
import time

import pytest

from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.training import lock as module
from mdpd_plugins.training.lock import HOLDER, LOCK, locked

FORKS = multiprocessing.get_context("fork")


def hold(work_dir, seconds, child=False):
    with locked(work_dir):
        if child and os.fork() == 0:
            time.sleep(seconds)
            os._exit(0)
        (work_dir / "held").touch()
        time.sleep(seconds)


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the lock."""
    started = []

    def begin(**options):
        process = FORKS.Process(target=hold, args=(tmp_path / "run", 60), kwargs=options)
        process.start()
        started.append(process)
        while not (tmp_path / "run" / "held").exists():
            time.sleep(0.01)
        return process

    yield begin
    for process in started:
        process.kill()
        process.join()


def test_a_second_run_is_refused_with_the_firsts_host_and_process(tmp_path, holder):
    process = holder()
    with pytest.raises(ConfigError) as error, locked(tmp_path / "run"):
        pass
    assert f"is in use by process {process.pid} on {platform.node()}, since 20" in str(error.value)
    assert "give another --work-dir" in str(error.value)
    with locked(tmp_path / "other"):
        pass


def test_it_is_free_when_the_first_has_ended_or_died(tmp_path, holder):
    process = holder()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert json.loads((tmp_path / "run" / HOLDER).read_text())["process"] == process.pid
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / HOLDER).read_text())["process"] == os.getpid()
    assert not (tmp_path / "run" / HOLDER).exists()
    with locked(tmp_path / "run"):
        pass


def test_data_loaders_that_outlive_a_killed_run_do_not_keep_it(tmp_path, holder):
    process = holder(child=True)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with locked(tmp_path / "run"):
        pass


def test_it_is_free_after_an_error_and_can_be_taken_again(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run"):
        1 / 0  # noqa: B018
    with locked(tmp_path / "run"):
        pass
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) in ([LOCK], [])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "x"}', '{"host": 3, "process": "many", "since": 0}'])
def test_a_damaged_note_of_the_holder_costs_its_name_only(tmp_path, holder, text):
    holder()
    (tmp_path / "run" / HOLDER).write_text(text)
    with pytest.raises(ConfigError, match="in use by another process"), locked(tmp_path / "run"):
        pass


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog):
    def refuse(self, *_, **__):
        raise NotImplementedError("no flock here")

    monkeypatch.setattr(module.FileLock, "acquire", refuse)
    with locked(tmp_path / "run"):
        pass
    (note,) = [record.message for record in caplog.records]
    assert note.startswith(f"note: {tmp_path / 'run'} cannot be locked (no flock here)")
