"""Files and folders that appear whole or not at all, and what tells one content from another.

Everything here is the standard library's: listing backbones loads it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LEFTOVERS = ".*.part*"  # what a killed process may leave of `fresh_file`, as a pattern of names


@contextmanager
def fresh_file(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` for the body to write, which takes its place when the body succeeds.

    It ends as `path` does, for writers that go by that. Otherwise it vanishes, and what `path` held stays.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem[:150]}.{secrets.token_hex(4)}.part{target.suffix[:50]}")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """`text` as a UTF-8 file, whole or not at all."""
    with fresh_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """`data` as a JSON file, whole or not at all."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_signed(path: str | Path, data: dict[str, Any]) -> None:
    """`data` as a JSON file that also holds the SHA-256 of itself, whole or not at all."""
    data = json.loads(json.dumps(data))  # as it will be read: tuples are lists then, and keys are texts
    data.pop("digest", None)  # of what was read and changed
    write_json(path, {**data, "digest": _digest(data)})


def read_signed(path: str | Path, *, since: str | None = None) -> dict[str, Any]:
    """What `write_signed` was given. A file that holds no SHA-256 of itself is older than that, and is not compared.

    Args:
        since: an entry that no older file has. Where it is, the SHA-256 must be, too.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON object, or not what was written.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object")
    if ("digest" in data or since in data) and data.pop("digest", None) != _digest(data):
        raise ValueError("it is not what was written")
    return data


def _digest(data: dict[str, Any]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def without_home(text: str) -> str:
    """`text` with "~" for the user's home folder: what leaves this machine need not say whose it was."""
    for home in {os.path.expanduser("~"), os.path.realpath(os.path.expanduser("~"))} - {"/", "~"}:
        text = re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w.-])", "~", text)
    return text


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def fresh_folder(folder: str | Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the body succeeds, and vanishes otherwise."""
    target = Path(folder)
    if target.exists() and any(target.iterdir()):
        old = target
    else:
        old = None
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        for file in temporary.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes for the owner alone
        if old is not None:
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.rename(aside / "x")
            temporary.rename(target)
            shutil.rmtree(aside)
        else:
            if target.exists():
                target.rmdir()
            temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


__all__ = [
    "LEFTOVERS",
    "fresh_file",
    "fresh_folder",
    "read_signed",
    "sha256",
    "without_home",
    "write_json",
    "write_signed",
    "write_text",
]
