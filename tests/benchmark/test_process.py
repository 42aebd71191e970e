"""A worker of a benchmark ends with the process that asks it, also in the middle of its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from running import processes

WORKER = """
import time
from mdpd_plugins.benchmark.process import serve

class Busy:
    def work(self):
        open("pid", "w").close()
        time.sleep(600)

serve(Busy())
"""
ASKING = "from mdpd_plugins.benchmark.process import Process; Process('busy', 'busy').ask('work')"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_busy_worker_ends_when_the_one_who_asked_is_gone(tmp_path, number):
    (tmp_path / "busy.py").write_text(WORKER)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    asking = subprocess.Popen([sys.executable, "-c", ASKING], cwd=tmp_path, env=env, start_new_session=True)
    pid = tmp_path / "pid"
    while not pid.exists():
        assert asking.poll() is None
        time.sleep(0.05)
    assert len(processes(asking.pid)) == 2
    asking.send_signal(number)
    asking.wait()
    deadline = time.monotonic() + 60
    while processes(asking.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes(asking.pid)
