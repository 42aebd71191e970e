"""A fingerprint of labelled data: whether two runs saw the same examples."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mdpd_plugins.data.source import Source
from mdpd_plugins.files import sha256

# Examples that are read. More would take longer than some trainings; of more, evenly spaced ones are (our choice).
MOST = 4096


def fingerprint(source: Source) -> dict[str, Any]:
    """What tells a source from another one, wherever its files lie.

    Returns:
        {"examples": how many there are, "read": of how many the input was read, "sha256": of all labels and class
        names, and of the inputs that were read; of a file, its content}.
    """
    step = max(1, math.ceil(len(source) / MOST))
    read = range(0, len(source), step)
    digest = hashlib.sha256()
    about = [source.modality, source.label_kind, list(source.classes), [_plain(label) for label in source.labels]]
    digest.update(json.dumps(about).encode())
    files: dict[str, str] = {}
    for index in read:
        _add(digest, source.inputs[index], picture=source.modality != "text", files=files)
    return {"examples": len(source), "read": len(read), "sha256": digest.hexdigest()}


def _plain(label: Any) -> Any:
    return [_plain(part) for part in label] if isinstance(label, (list, tuple)) else float(label)


def _add(digest: Any, raw: Any, *, picture: bool, files: dict[str, str]) -> None:
    """Put one input into the digest, with its kind and length before it: no two inputs run into one another.

    Args:
        picture: whether a text is the path of one. files: sums of the files that were met, which many examples share.
    """
    if isinstance(raw, (list, tuple)):
        digest.update(f"parts {len(raw)}\n".encode())
        for number, part in enumerate(raw):
            _add(digest, part, picture=picture and number == 0, files=files)
        return
    if isinstance(raw, dict) and raw.get("bytes") is not None:
        raw = raw["bytes"]
    elif isinstance(raw, dict):
        raw = raw.get("path")
    kind, content = type(raw).__name__, b""
    if picture and isinstance(raw, (str, os.PathLike)):
        kind, content = "file", _file(os.fspath(raw), files).encode()
    elif isinstance(raw, str):
        content = raw.encode("utf-8", "surrogatepass")
    elif isinstance(raw, bytes):
        content = raw
    elif isinstance(raw, Image.Image):
        kind, content = f"{raw.mode} {raw.size}", raw.tobytes()
    elif isinstance(raw, np.ndarray):
        kind, content = f"{raw.dtype} {raw.shape}", np.ascontiguousarray(raw).tobytes()
    digest.update(f"{kind} {len(content)}\n".encode())
    digest.update(content)


def _file(path: str, files: dict[str, str]) -> str:
    if path not in files:
        try:
            files[path] = sha256(Path(path))
        except (OSError, ValueError):  # with verify=False it may be missing until it is read
            files[path] = "unreadable"
    return files[path]


__all__ = ["MOST", "fingerprint"]
