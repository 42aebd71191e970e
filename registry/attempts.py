"""Loads of plugins that never came back: a mark in the user's cache folder that is removed when a load ends.

A plugin that ends the interpreter, crashes it, or loops for ever at import cannot be stopped the first time. The mark
is what is left of it, and the next process sets that plugin aside.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RETRY = "MDPD_RETRY_PLUGINS"
# Seconds in which a load that another process has begun is taken for one that will end (our choice: several times what
# importing a framework takes).
PATIENCE = 20.0


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/mdpd``, by default ``~/.cache/mdpd``."""
    # The specification says that a relative path there is to be ignored.
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if os.path.isabs(root) else Path(os.path.expanduser("~/.cache"))) / "mdpd"


class Attempts:
    """The marks, read once. A cache folder that cannot be read or written costs the protection and nothing else."""

    def __init__(self) -> None:
        self._folder = cache_folder() / "loading"
        self._marks: dict[str, list[Path]] = {}
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.iterdir()):
                self._marks.setdefault(path.name.rpartition("@")[0], []).append(path)

    def unfinished(self, *about: str) -> str:
        """Why a plugin should not be loaded now, or "".

        Args:
            about: what tells this plugin, in this version and place, from others.
        """
        marks = self._marks.get(_name(about), [])
        if retry():
            for path in marks:
                with contextlib.suppress(OSError):
                    path.unlink()
            return ""
        for path in marks:
            try:
                seconds = time.time() - path.stat().st_mtime
            except OSError:  # it has come back meanwhile
                continue
            process, host = _read(path)
            if seconds < PATIENCE and (host != platform.node() or _alive(process)):
                continue
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - seconds))
            return (
                f"its load that began at {when} in process {process} on {host} never came back, as if it had ended, "
                f"crashed or hung Python; {RETRY}=1 loads it again, and `mdpd doctor` tries it in a process of its own"
            )
        return ""

    @contextlib.contextmanager
    def loading(self, *about: str) -> Iterator[None]:
        """Inside, the mark is there. An interrupt (Ctrl-C) after a long wait leaves it: somebody had to end a hang."""
        mark = self._folder / f"{_name(about)}@{os.getpid()}"
        start = time.monotonic()
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            mark.write_text(json.dumps({"process": os.getpid(), "host": platform.node()}), encoding="utf-8")
        hung = False
        try:
            yield
        except KeyboardInterrupt:
            hung = time.monotonic() - start > PATIENCE
            raise
        finally:
            if not hung:
                with contextlib.suppress(OSError):
                    mark.unlink()


def retry() -> bool:
    """Whether MDPD_RETRY_PLUGINS asks for what was set aside to be loaded again."""
    return os.environ.get(RETRY, "").strip().lower() in {"1", "true", "yes", "on"}


def _name(about: tuple[str, ...]) -> str:
    full = "\0".join(about)
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", "-".join(about[:3]))[:80]
    return f"{readable}-{zlib.crc32(full.encode('utf-8', 'surrogatepass')):08x}"


def _read(path: Path) -> tuple[Any, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return int(found["process"]), str(found["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return "?", "?"


def _alive(process: Any) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, TypeError):
        return False
    return True
