"""One run in a work directory at a time."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mdpd_plugins.files import write_json
from mdpd_plugins.registry.errors import ConfigError

LOCK = "run.lock"
HOLDER = "run.lock.json"  # who has it: the lock itself holds nothing
# Seconds that a lock is waited for whose holder is dead: its data loaders, which inherited it, notice that within five
# (torch.utils.data's MP_STATUS_CHECK_INTERVAL).
ORPHANS = 15.0


@contextmanager
def locked(work_dir: Path) -> Iterator[None]:
    """Inside, no other run begins in `work_dir`. A process that dies, however it does, leaves no lock behind.

    Args:
        work_dir: is made if it is not there.

    Raises:
        ConfigError: another run is going on there; it is named by host and process.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work_dir / LOCK)
    try:
        _acquire(lock, work_dir)
    except (NotImplementedError, OSError) as error:
        # Some network file systems know no locks. Better unprotected than not at all.
        logging.getLogger(__name__).warning(f"note: {work_dir} cannot be locked ({error}): start no second run in it")
        yield
        return
    try:
        with suppress(OSError):
            write_json(work_dir / HOLDER, {"host": platform.node(), "process": os.getpid(), "since": time.time()})
        yield
    finally:
        with suppress(OSError):
            (work_dir / HOLDER).unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, work_dir: Path) -> None:
    end = time.monotonic() + ORPHANS
    while True:
        try:
            lock.acquire(blocking=False)
            return
        except Timeout:
            holder = _holder(work_dir)
            gone = holder.get("host") == platform.node() and not _alive(holder["process"])
            if not gone or time.monotonic() > end:
                raise _in_use(work_dir, holder) from None
            time.sleep(0.2)


def _holder(work_dir: Path) -> dict[str, Any]:
    try:
        found = json.loads((work_dir / HOLDER).read_text(encoding="utf-8"))
        return {"host": str(found["host"]), "process": int(found["process"]), "since": float(found["since"])}
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or just ended
        return {}


def _in_use(work_dir: Path, holder: dict[str, Any]) -> ConfigError:
    who = "another process"
    if holder:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        who = f"process {holder['process']} on {holder['host']}, since {since}"
    return ConfigError(
        f"work directory {str(work_dir)!r} is in use by {who}: wait for that run, end it, or give another --work-dir"
    )


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


__all__ = ["locked"]
