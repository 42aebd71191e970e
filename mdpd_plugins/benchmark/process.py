"""A worker in a process of its own that is told over a pipe what to do: one JSON request a line, one answer a line."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any

from mdpd_plugins.registry.errors import MDPDError


class Process:
    """One worker; `ask` sends a request and waits for its answer.

    Args:
        name: what errors call it. module: what `python -m` runs there; it calls `serve`.
        environment: variables of the process, besides those of this one.
    """

    def __init__(
        self,
        name: str,
        module: str = "mdpd_plugins.benchmark.worker",
        environment: Mapping[str, str] | None = None,
    ):
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **(environment or {})},
            text=True,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The worker's answer.

        Args:
            do: name of its method. request: its arguments, plain data.

        Raises:
            MDPDError: what the worker refused, or with its output if it failed.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.wait()
            self.errors.seek(0)
            raise MDPDError(f"benchmark of {self.name} failed at {do!r}:\n{self.errors.read()[-2000:]}")
        found = json.loads(answer)
        if "error" in found:
            raise MDPDError(found["error"])
        return found

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def serve(worker: Any) -> None:
    """Answer requests by the worker's methods, until the pipe closes or the process that asks is gone."""
    end_with_parent()
    # Whatever a library prints must not end up between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except MDPDError as error:
            answer = {"error": str(error)}  # the user's to mend, so without a traceback
        _give_back()
        print(json.dumps(answer), file=answers, flush=True)


def end_with_parent() -> None:
    """Ask this process to end once its parent is gone: what is at work does not notice that the pipe has closed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _give_back() -> None:
    """Freed memory back to the system: a dozen processes wait side by side, and the C library keeps what it had."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


__all__ = ["Process", "end_with_parent", "serve"]
