"""Keeping transformers, which the OpenCLIP zoo uses as well, from running code that lies with a model.

Every call of a `from_pretrained` gets `trust_remote_code=remote_code_trusted()`, and stands inside `own_code_only`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdpd_plugins.adapters.storage.trust import SETTING, refused, remote_code_trusted, unattended
from mdpd_plugins.registry.errors import MDPDError


@contextmanager
def own_code_only(source: str | Path) -> Iterator[None]:
    """Inside, nobody answers transformers' question, and its refusal becomes ours, which names the file and the flag.

    Args:
        source: the folder, or the hub's id, whose files are read.

    Raises:
        CheckpointError: its files want code of theirs to run.
    """
    try:
        with unattended():
            yield
    except (ValueError, OSError) as error:
        if isinstance(error, MDPDError) or SETTING not in str(error):
            raise
        file, code = _asking(Path(source))
        raise refused(file, f"wants {code} to run") from error


def check_attention(config: Any, source: str | Path) -> None:
    """Refuse a configuration whose attention is a program of the hub ("owner/kernel"), which transformers would fetch.

    Args:
        config: a `PretrainedConfig`.

    Raises:
        CheckpointError: it names one.
    """
    if remote_code_trusted():
        return
    parts = [config, *(vars(config).get(key) for key in getattr(config, "sub_configs", {}))]
    for name in (getattr(part, "_attn_implementation", None) for part in parts):
        if isinstance(name, str) and "/" in name:
            raise refused(Path(source) / "config.json", f"wants the program {name!r} to run")


def _asking(folder: Path) -> tuple[Path, str]:
    """The file of a folder that names code for transformers to run, and that code."""
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            named = json.loads(file.read_text(encoding="utf-8"))["auto_map"]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        first: Any = next(iter(named.values()), None) if isinstance(named, dict) else named
        return file, str(next((n for n in first if n), None) if isinstance(first, list) else first)
    return folder, "code of its own"


__all__ = ["check_attention", "own_code_only"]
