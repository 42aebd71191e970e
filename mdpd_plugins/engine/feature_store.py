"""Where kept hidden states lie: in main memory, or in a file that later runs read, too."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from zlib import crc32

import numpy as np
import torch
from filelock import FileLock, Timeout

from mdpd_plugins.registry.errors import ConfigError

Row = dict[int, torch.Tensor]  # layer -> (T, D), real tokens only


class Rows(Protocol):
    """Rows by key."""

    held: int
    """Bytes that are kept."""

    def get(self, key: Hashable) -> Row | None:
        """The row of a key, if it is kept."""

    def put(self, key: Hashable, row: Row) -> bool:
        """Keep a row; False where there is no room for it."""

    def close(self) -> None:
        """Nothing is asked for any more."""


class RowsInMemory:
    """Rows in main memory.

    Args:
        budget: bytes that may be kept.
    """

    def __init__(self, budget: int):
        self.budget, self.held = budget, 0
        self._rows: dict[Hashable, Row] = {}

    def get(self, key: Hashable) -> Row | None:
        """As `Rows`."""
        return self._rows.get(key)

    def put(self, key: Hashable, row: Row) -> bool:
        """As `Rows`."""
        size = sum(t.nbytes for t in row.values())
        if self.held + size > self.budget:
            return False
        self._rows[key] = row
        self.held += size
        return True

    def expected(self, examples: int) -> int:
        """Bytes that so many examples will take, if they are like those that are there."""
        return min(self.budget, self.held * examples // max(1, len(self._rows)))

    def close(self) -> None:
        """As `Rows`."""
        self._rows.clear()


class RowsInFile:
    """Rows in a file, one behind the other, and a line in a second file for each that is whole.

    A row is read with one read of consecutive bytes, whatever the order of samples, and nothing of it stays in main
    memory. After a kill, what was written up to then is there. A row that is not what was written is none.

    Args:
        folder: is made if it is not there. name: tells these rows from those of other weights. dtype: "float32" or
            "bfloat16", in which they lie; they are read as float32.

    Raises:
        ConfigError: the folder cannot be written, or another run writes there.
    """

    def __init__(self, folder: str | Path, name: str, dtype: str):
        base = Path(folder).expanduser()
        self.dtype = getattr(torch, dtype)
        stem = base / f"features_{name}_{dtype}"
        try:
            base.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(f"{stem}.lock")
            self._lock.acquire(blocking=False)
            self._data = open(f"{stem}.bin", "a+b")  # noqa: SIM115 (open as long as the run is)
            self._index = open(f"{stem}.jsonl", "a+", encoding="utf-8")  # noqa: SIM115
        except Timeout:
            raise ConfigError(
                f"another run keeps features in {str(stem)!r}: wait for it, or give another folder"
            ) from None
        except OSError as error:
            raise ConfigError(f"features cannot be kept in {str(base)!r} ({error}): give another folder") from error
        self._places: dict[str, tuple[int, list[tuple[int, int, int]], int | None]] = {}
        end = self._read_index()
        self._data.truncate(end)  # what a kill left half written
        self.held = end

    def get(self, key: Hashable) -> Row | None:
        """As `Rows`."""
        found = self._places.get(str(key))
        if found is None:
            return None
        offset, shapes, known = found
        size = torch.empty((), dtype=self.dtype).element_size()
        raw = os.pread(self._data.fileno(), size * sum(t * d for _, t, d in shapes), offset)
        if known is not None and _sum(str(key), offset, shapes, raw) != known:  # damaged since
            del self._places[str(key)]
            return None
        values = torch.from_numpy(np.frombuffer(raw, dtype=np.uint8).copy()).view(self.dtype).float()
        row, start = {}, 0
        for layer, tokens, width in shapes:
            row[layer] = values[start : start + tokens * width].view(tokens, width)
            start += tokens * width
        return row

    def put(self, key: Hashable, row: Row) -> bool:
        """As `Rows`.

        Raises:
            ConfigError: the disk is full.
        """
        values = torch.cat([t.to(self.dtype).flatten() for t in row.values()])
        raw = values.view(torch.uint8).numpy().tobytes()
        shapes = [(layer, *t.shape) for layer, t in row.items()]
        known = _sum(str(key), self.held, shapes, raw)
        try:
            self._data.write(raw)
            self._data.flush()
            self._index.write(json.dumps([str(key), self.held, shapes, known]) + "\n")
            self._index.flush()
        except OSError as error:
            raise ConfigError(
                f"features cannot be kept in {self._data.name!r} ({error.strerror}): make room, give another folder "
                f"with distill.cache_folder, or store half of the bytes with distill.cache_dtype='bfloat16'"
            ) from error
        self._places[str(key)] = self.held, shapes, known
        self.held += len(raw)
        return True

    def close(self) -> None:
        """As `Rows`: another run may write."""
        for file in (self._data, self._index):
            with suppress(OSError):  # on a full disk, what could not be written
                file.close()
        self._lock.release()

    def _read_index(self) -> int:
        """Read what is whole; the number of bytes that belongs to it."""
        size, end, whole = os.fstat(self._data.fileno()).st_size, 0, 0
        one = torch.empty((), dtype=self.dtype).element_size()
        self._index.seek(0)
        while line := self._index.readline():
            try:
                key, offset, shapes, *rest = json.loads(line)  # files from before have no sums
                stop = offset + one * sum(t * d for _, t, d in shapes)
            except (ValueError, TypeError):
                break
            if offset != end or stop > size or not line.endswith("\n"):
                break
            self._places[key] = offset, [tuple(s) for s in shapes], rest[0] if rest else None
            end, whole = stop, self._index.tell()
        self._index.seek(0, os.SEEK_END)
        if self._index.tell() > whole:
            self._index.truncate(whole)
        return end


def _sum(key: str, offset: int, shapes: list[tuple[int, int, int]], raw: bytes) -> int:
    return crc32(raw, crc32(json.dumps([key, offset, shapes]).encode()))


__all__ = ["Row", "Rows", "RowsInFile", "RowsInMemory"]
