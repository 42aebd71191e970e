"""Run configurations: mmengine config files, checked key by key against the defaults below."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from mdpd_plugins.adapters.transform import RESIZE
from mdpd_plugins.registry.errors import ConfigError, closest

# Every key a config may have, with its default. None of these is repeated in zoo_configs.
DEFAULTS: dict[str, Any] = {
    "backbone": {"name": None, "pretrained": "auto", "options": {}},
    "text_backbone": {"name": None, "pretrained": "auto", "options": {}},  # a second tower, for images with texts
    "task": {
        "kind": None,  # None: what the data's labels are (single, multi, float, pair); or language
        "width": 256,  # outputs of each of two towers, which are then joined or compared
    },
    "data": {
        "source": {},
        "batch_size": 16,
        "eval_batch_size": 64,
        "num_workers": 0,
        "input_size": None,  # pixels; None: the backbone's own
        "resize": "auto",  # pictures of another shape: as the backbone's zoo does it; or stretch
        "max_length": 128,  # tokens
        "augment": "auto",  # none, crop, crop+flip, or what the data says is safe
        "eval_split": "val",  # which split is evaluated on: val while tuning, test for final numbers
    },
    "data_root": None,  # an image folder instead of data.source
    "distill": {},
    "optim": {
        "scale": 1.0,  # times every learning rate below: one number to tune, whatever a method trains
        "side_lr": 1e-3,
        "side_weight_decay": 0.05,
        "norm_lr": 3e-3,
        "head_lr": 3e-3,
        "low_rank_lr": 1e-3,
        "weight_lr": 1e-4,  # of everything else in the backbone, in full fine-tuning
        "head_weight_decay": 0.05,
        "clip_grad": None,  # largest gradient norm, per path
        "accumulate": 1,  # batches per optimiser step
    },
    "train": {
        "max_epochs": 3,
        "max_steps": None,  # wins over max_epochs
        "val_every": None,  # steps; None: once an epoch
        "checkpoint_every": None,  # steps; None: once an epoch
        "log_every": 10,
        "seed": 0,
        "amp": False,  # True or "bfloat16": forwards under autocast; "float16" with loss scaling
        "compile": None,  # a backend of torch.compile, such as "inductor", for the blocks
    },
    "parallel": {"shard": False},  # several processes: share out the frozen weights, block by block
    "work_dir": None,
    "export_dir": None,  # None: WORK_DIR/export
    "visualizer": None,  # mmengine visualiser config, such as TensorBoard's
    "custom_hooks": [],  # mmengine hook configs
    "custom_imports": None,  # mmengine's: modules to import first, that register such hooks
}
# The complete configuration of a run, as it lies in its work directory.
RUN_CONFIG = "config.py"
# Sections whose keys are checked by whoever reads them.
OPEN_SECTIONS = ("options", "source", "distill", "visualizer", "custom_imports")
NUMBER = (int, float)
# What a value may be where its default cannot tell.
TYPES: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "pretrained": (str, type(None)),
    "kind": str,
    "input_size": int,
    "data_root": str,
    "clip_grad": NUMBER,
    "max_epochs": NUMBER,  # half an epoch may well be meant
    "max_steps": int,
    "compile": str,
    "amp": (bool, str),
    "val_every": int,
    "checkpoint_every": int,
    "work_dir": str,
    "export_dir": str,
}
# Counts of which there must be at least one.
COUNTS = (
    *("batch_size", "eval_batch_size", "input_size", "max_length", "accumulate", "max_epochs", "max_steps"),
    *("val_every", "checkpoint_every", "log_every", "width"),
)
# Words of which a value must be one.
CHOICES = {"eval_split": ("val", "test"), "resize": RESIZE}


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
    complete = Config(_merge(DEFAULTS, config.to_dict(), ""))
    # The name under which mmengine's Runner will write it to the work directory.
    object.__setattr__(complete, "_filename", RUN_CONFIG)
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


def _merge(defaults: Mapping[str, Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    merged = copy.deepcopy(dict(defaults))
    for key, value in given.items():
        if key not in defaults:
            raise ConfigError(f"config key {where}{key} is not known: {closest(key, defaults)}")
        default = defaults[key]
        if isinstance(default, dict) and key not in OPEN_SECTIONS:
            if not isinstance(value, Mapping):
                raise ConfigError(f"config key {where}{key} is a section, but {value!r} was given")
            merged[key] = _merge(default, value, f"{where}{key}.")
        else:
            if key not in OPEN_SECTIONS:
                _check_value(f"{where}{key}", key, default, value)
            merged[key] = copy.deepcopy(value)
    return merged


def _check_value(path: str, key: str, default: Any, value: Any) -> None:
    wanted = TYPES.get(key, NUMBER if isinstance(default, float) else type(default))
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    # Exactly: True is an int to isinstance.
    if type(value) not in kinds and not (value is None and default is None):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError(f"config key {path}={value!r}: {names} is meant, and the default is {default!r}")
    if key in CHOICES and value not in CHOICES[key]:
        raise ConfigError(f"config key {path}={value!r} does not exist: {closest(value, CHOICES[key])}")
    # Adam divides a rate by 0.1 in its first step, and float32 ends at 3e38.
    if isinstance(value, float) and not abs(value) < 1e37:
        raise ConfigError(f"config key {path}={value!r}: it must be finite, and below 1e37")
    if key in COUNTS and value is not None and value <= 0:
        raise ConfigError(f"config key {path}={value!r}: it must be positive")
    # Whatever else `optim` holds are rates, of which 0 stands for "not at all". torch's optimisers refuse a negative
    # one without saying where it came from, and only if the method trains with it.
    if path.startswith("optim.") and value is not None and value < 0:
        raise ConfigError(f"config key {path}={value!r}: it must not be negative")


__all__ = ["DEFAULTS", "RUN_CONFIG", "load_config", "read_overrides"]
