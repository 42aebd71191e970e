"""Decoding every picture once, before anything starts: which ones are broken, and why.

A header says nothing about what follows it: a file cut short by a full disk or a broken download opens like any other,
and stops a training at the step that meets it. So all are decoded to the end. What was found is kept in the user's
cache, by path, size and time of change, so that the next run only looks at files that changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import numpy as np
import PIL

from mdpd_plugins.cache import recall, remember
from mdpd_plugins.data.images import image_fault

WORTH_KEEPING = 1.0  # seconds; a check that is over sooner is not remembered, and leaves no files behind
RULES = 1  # counted up when `to_rgb` takes or refuses other pictures
TOGETHER = 256  # pictures that are in memory, encoded, at a time
_File = tuple[str, str, int, int]  # folder, name, size, time of change


def broken_pictures(pictures: Sequence[Any], fingerprint: str | None = None) -> dict[int, str]:
    """Index -> what is wrong, of every picture that `read_image` cannot read.

    Several threads decode (Pillow lets go of the interpreter while it does); a bar shows it on a terminal.

    Args:
        pictures: what `read_image` takes. Arrays are passed over: there is nothing to decode.
        fingerprint: what tells these pictures from others, if they are not files of their own.
    """
    start = time.monotonic()
    found: dict[int, str] = {}
    memory = _Memory(None if fingerprint is None else f"pictures/{sha256(fingerprint.encode()).hexdigest()[:32]}")
    same = _Same(pictures if fingerprint is None else ())
    looked_at = [i for i in _shown(range(len(pictures)), "comparing with the last check") if same.is_first(i)]
    pending = [i for i in looked_at if memory.unknown(i, pictures, found)]
    try:
        with ThreadPoolExecutor(_threads()) as pool:
            batches = [pending[at : at + TOGETHER] for at in range(0, len(pending), TOGETHER)]
            for batch in _shown(batches, "checking pictures once"):
                # One after the other: what hands them out may not be made for threads.
                raw = [pictures[i] for i in batch]
                for index, fault in zip(batch, pool.map(image_fault, raw), strict=True):
                    memory.note(index, fault)
                    if fault is not None:
                        found[index] = fault
        memory.complete()
    finally:  # an interrupted check goes on where it was
        if time.monotonic() - start > WORTH_KEEPING:
            memory.keep()
    found |= {i: found[first] for i, first in same.later.items() if first in found}
    return dict(sorted(found.items()))


class _Same:
    """Which files come more than once: a picture has many questions, and is looked at once."""

    def __init__(self, pictures: Sequence[Any]) -> None:
        self._pictures = pictures
        self._first: dict[str, int] = {}
        self.later: dict[int, int] = {}

    def is_first(self, index: int) -> bool:
        raw = self._pictures[index] if len(self._pictures) else None
        if not isinstance(raw, (str, os.PathLike)):
            return True
        first = self._first.setdefault(os.fspath(raw), index)
        if first != index:
            self.later[index] = first
        return first == index


class _Memory:
    """What earlier checks found: for files one entry of the cache a folder, for other pictures one of the whole."""

    def __init__(self, whole: str | None) -> None:
        self._version = [RULES, PIL.__version__]
        self._folders: dict[str, dict[str, list[Any]]] = {}
        self._files: dict[int, _File] = {}
        self._changed: set[str] = set()
        self._name = whole
        self._whole: dict[str, str] = {}
        self._others = False
        entry = self._recalled(whole, "faults") if whole else None
        self._known = entry is not None
        if entry:
            self._whole = entry

    def unknown(self, index: int, pictures: Sequence[Any], found: dict[int, str]) -> bool:
        """Whether a picture must be decoded. If it is known to be broken, it is put into `found`."""
        if self._known:
            if (fault := self._whole.get(str(index))) is not None:
                found[index] = fault
            return False
        if self._name is not None:
            self._others = True
            return True
        raw = pictures[index]
        if isinstance(raw, np.ndarray):
            return False
        if not isinstance(raw, (str, os.PathLike)):
            return True
        folder, name = os.path.split(os.path.abspath(raw))
        try:
            status = os.stat(raw)
        except (OSError, ValueError):
            return True
        self._files[index] = (folder, name, status.st_size, status.st_mtime_ns)
        known = self._of(folder).get(name)
        if known is None or known[:2] != [status.st_size, status.st_mtime_ns]:
            return True
        if known[2] is not None:
            found[index] = known[2]
        return False

    def note(self, index: int, fault: str | None) -> None:
        """What decoding a picture has shown."""
        if self._others:
            if fault is not None:
                self._whole[str(index)] = fault
        elif index in self._files:
            folder, name, size, changed = self._files[index]
            self._of(folder)[name] = [size, changed, fault]
            self._changed.add(folder)

    def complete(self) -> None:
        """All were decoded: what is known of pictures without files holds for the whole."""
        self._known = True

    def keep(self) -> None:
        """Put what is new into the cache."""
        for folder in self._changed:
            remember(_entry(folder), {"version": self._version, "folder": folder, "files": self._folders[folder]})
        if self._others and self._known and self._name:
            remember(self._name, {"version": self._version, "faults": self._whole})

    def _of(self, folder: str) -> dict[str, list[Any]]:
        if folder not in self._folders:
            files = self._recalled(_entry(folder), "files") or {}
            right = all(isinstance(known, list) and len(known) == 3 for known in files.values())
            self._folders[folder] = files if right else {}
        return self._folders[folder]

    def _recalled(self, name: str, what: str) -> dict[str, Any] | None:
        entry = recall(name)
        if not isinstance(entry, dict) or entry.get("version") != self._version:
            return None
        return entry[what] if isinstance(entry.get(what), dict) else None


def _entry(folder: str) -> str:
    return f"pictures/{sha256(os.fsencode(folder)).hexdigest()[:32]}"


def _threads() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 16)


def _shown(items: Sequence[Any], what: str) -> Iterator[Any]:
    """The items, with a bar on a terminal's standard error that is gone when they are through."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal or not items
    yield from track(items, what, total=len(items), console=console, transient=True, disable=hidden)


__all__ = ["broken_pictures"]
