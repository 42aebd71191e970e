"""A sweep that ends leaves no process behind, and two on one file lose no line."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from running import processes, write_config

from tools.compare.methods import Method
from tools.compare.result_lines import append_run, read_runs
from tools.compare.sweep import Run, Sweep

ROOT = Path(__file__).parents[3]


def as_in_a_terminal() -> None:
    """A script's background command ignores SIGINT, and its children do."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_process_is_left(tmp_path, number, status):
    config = write_config(tmp_path, train={"max_steps": 100000})
    arguments = [config, "--methods", "norm", "--seeds", "0", "1", "--jobs", "2", "--out", tmp_path / "runs.jsonl"]
    command = [sys.executable, "-m", "tools.compare", "sweep", *map(str, arguments)]
    with tempfile.TemporaryDirectory(prefix="t") as short, open(tmp_path / "log", "w") as log:
        temporary = Path(short)  # sockets lie there, and the path of one may have 108 characters
        env = {**os.environ, "TMPDIR": str(temporary)}
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True, preexec_fn=as_in_a_terminal
        )
        deadline = time.monotonic() + 120
        while len(list(temporary.glob("mdpd_run_*/work/2*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(processes(process.pid)) > 2, (tmp_path / "log").read_text()
        process.send_signal(number)
        assert process.wait(60) == status, (tmp_path / "log").read_text()
        deadline = time.monotonic() + 20
        while processes(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not processes(process.pid)
    if number != signal.SIGKILL:
        assert not list(temporary.glob("mdpd_run_*"))
        assert "the same command goes on from here" in (tmp_path / "log").read_text()


def append(path, writer, count):
    for i in range(count):
        append_run(path, {"writer": writer, "line": i, "text": "x" * 500})


def test_two_sweeps_on_one_file_lose_no_line(tmp_path):
    path, context = tmp_path / "runs.jsonl", multiprocessing.get_context("fork")
    started = [context.Process(target=append, args=(path, writer, 60)) for writer in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    found = [(run["writer"], run["line"]) for run in read_runs(path)]
    assert sorted(found) == [(writer, line) for writer in range(4) for line in range(60)]


def test_two_sweeps_on_one_file_share_the_runs(tmp_path):
    """Each run is made by one of them, and both know all of them at their end."""
    config, out = write_config(tmp_path, train={"max_steps": 2}), tmp_path / "runs.jsonl"
    runs = [Run(str(config), Method("norm", ("distill.method=norm",)), (), (), seed, "val") for seed in range(3)]
    sweeps = [Sweep(out), Sweep(out)]
    threads = [threading.Thread(target=one.run, args=(runs,)) for one in sweeps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run["seed"] for run in read_runs(out)) == [0, 1, 2]
    assert all(set(one.done) == set(runs) and not one.failures for one in sweeps)
    assert not list(tmp_path.glob(".*.claim"))
