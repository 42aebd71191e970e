"""Run configurations: mmengine config files, checked key by key against `sections`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from mdpd_plugins.checked import completed, defaults
from mdpd_plugins.engine import Settings
from mdpd_plugins.registry.errors import ConfigError, closest
from mdpd_plugins.training.sections import RunSections

# The complete configuration of a run, as it lies in its work directory.
RUN_CONFIG = "config.py"
DEFAULTS: dict[str, Any] = defaults(RunSections)


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """A complete configuration from a file and `--cfg-options`.

    Raises:
        ConfigError: the file does not exist or cannot be read, or a key that no part of the project reads.
    """
    path = Path(path)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path(".")
        known = [str(p) for p in folder.glob("*.py")]
        raise ConfigError(f"config file {str(path)!r} does not exist: {closest(str(path), known)}")
    try:
        config = Config.fromfile(str(path))
    except Exception as error:  # a config file is Python: anything can be raised inside it
        raise ConfigError(f"config file {str(path)!r} cannot be read: {type(error).__name__}: {error}") from error
    if options:
        config.merge_from_dict(dict(options))
    complete = Config(completed(RunSections, config.to_dict()))
    # The name under which mmengine's Runner will write it to the work directory.
    object.__setattr__(complete, "_filename", RUN_CONFIG)
    Settings.from_dict(complete.distill.to_dict())
    if complete.data_root:
        complete.data.source = {"type": "image_folder", "root": complete.data_root}
    if not complete.backbone.name:
        raise ConfigError(f"{path} names no backbone: set backbone = dict(name='<zoo>/<model>')")
    if not complete.data.source:
        raise ConfigError(f"{path} names no data: set data.source, or data_root to an image folder")
    if not complete.work_dir:
        complete.work_dir = str(Path("work_dirs") / path.stem)
    return complete


def read_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """`--cfg-options`: KEY=VALUE texts as dotted key -> value, read as mmengine reads them.

    Raises:
        ConfigError: a text that is no KEY=VALUE, or whose brackets do not match.
    """
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        try:
            if not (key and equals):
                raise ValueError
            found[key] = DictAction._parse_iterable(value)
        except (ValueError, AssertionError):
            raise ConfigError(
                f"--cfg-options takes KEY=VALUE pairs, such as train.max_epochs=5, and not {pair!r}"
            ) from None
    return found


__all__ = ["DEFAULTS", "RUN_CONFIG", "load_config", "read_overrides"]
