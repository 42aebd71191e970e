"""Run configurations: mmengine config files, checked key by key against `sections`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from importlib import resources
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

    Args:
        path: a file, or the name of a configuration that is installed with the package, such as
            "huggingface/minilm_bbc_topics".

    Raises:
        ConfigError: the file does not exist or cannot be read, or a key that no part of the project reads.
    """
    path = _config_file(Path(path))
    try:
        config = Config.fromfile(str(path))
    except Exception as error:  # a config file is Python: anything can be raised inside it
        raise ConfigError(f"config file {str(path)!r} cannot be read: {type(error).__name__}: {error}") from error
    return complete_config(config, path, options)


def complete_config(config: Config, path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """A configuration as it was read from `path`, with `--cfg-options`, checked and completed by the defaults.

    Raises:
        ConfigError: a key that no part of the project reads, or a value that it cannot have.
    """
    path = Path(path)
    try:
        config.merge_from_dict(dict(options or {}))
    except (TypeError, KeyError, AssertionError, ValueError, AttributeError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in (options or {}).items())
        raise ConfigError(f"{path} has no place for {given}: a part of the key is no section ({error})") from error
    complete = Config(completed(RunSections, config.to_dict()))
    # The name under which mmengine's Runner will write it to the work directory.
    object.__setattr__(complete, "_filename", RUN_CONFIG)
    settings_of(complete)
    if complete.data_root:
        complete.data.source = {"type": "image_folder", "root": complete.data_root}
    if not complete.backbone.name:
        raise ConfigError(f"{path} names no backbone: set backbone = dict(name='<zoo>/<model>')")
    if not complete.data.source:
        raise ConfigError(f"{path} names no data: set data.source, or data_root to an image folder")
    if not complete.work_dir:
        complete.work_dir = str(Path("work_dirs") / path.stem)
    return complete


def settings_of(config: Config) -> Settings:
    """The method's settings in a configuration, complete or not.

    Raises:
        ConfigError: an unknown key, method or value.
    """
    return Settings.from_dict(config.distill.to_dict())


def without_feature_file(config: Config) -> Config:
    """A copy that keeps no features in a file, for whoever wants to know what a step holds and leaves nothing behind.

    A step is the same: what lies in a file is not in memory. Where features are kept, a MiB of memory is for them.
    """
    changed = copy.deepcopy(config)
    if changed.distill.pop("cache_folder", None) is not None:
        changed.coach.memory = 1
        if settings_of(changed).frozen_blocks:
            changed.distill.cache_features = 1
    return changed


def any_method(config: Config) -> Config:
    """A copy that any method can be put into: without the inputs that only a coach teaches on, and without views and a
    file that only kept features have.

    A step of a method is the same with them, and other methods refuse them.
    """
    changed = without_feature_file(config)
    changed.data.unlabelled = {}
    if not settings_of(changed).takes_views:
        changed.distill.pop("cache_views", None)
    return changed


def installed_configs() -> dict[str, Path]:
    """Name -> file of the configurations that are installed with the package."""
    folder = resources.files("mdpd_plugins") / "zoo_configs"
    if not folder.is_dir():  # a checkout, installed for editing: they lie beside the package
        folder = resources.files("mdpd_plugins").parent / "zoo_configs"  # type: ignore[attr-defined]
    files = sorted(Path(str(folder)).glob("*/*.py"))
    return {f"{file.parent.name}/{file.stem}": file for file in files if not file.parent.name.startswith("_")}


def _config_file(path: Path) -> Path:
    if path.is_file():
        return path
    installed = installed_configs()
    if (name := str(path).removesuffix(".py")) in installed:
        return installed[name]
    folder = path.parent if path.parent.is_dir() else Path(".")
    known = [*(str(p) for p in folder.glob("*.py")), *installed]
    raise ConfigError(f"config file {str(path)!r} does not exist: {closest(str(path), known)}")


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


__all__ = [
    "DEFAULTS",
    "RUN_CONFIG",
    "any_method",
    "complete_config",
    "installed_configs",
    "load_config",
    "read_overrides",
    "settings_of",
    "without_feature_file",
]
