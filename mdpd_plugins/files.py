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


__all__ = ["LEFTOVERS", "fresh_file", "fresh_folder", "sha256", "without_home", "write_json", "write_text"]
