"""run.json: what a run was made of. It can be repeated from there, and what differs then is said.

It also names the run, and so does every checkpoint that it writes. A checkpoint of another run is refused by that name,
even where the sums of all files were copied along.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.utils import import_modules_from_strings

from mdpd_plugins.adapters.storage.fingerprint import fingerprint as weights_fingerprint
from mdpd_plugins.data.fingerprint import fingerprint as data_fingerprint
from mdpd_plugins.files import read_signed, write_signed
from mdpd_plugins.registry.errors import CheckpointError, ConfigError, MDPDError
from mdpd_plugins.training.config import RUN_CONFIG, complete_config, load_config
from mdpd_plugins.versions import installed_versions, revisions

if TYPE_CHECKING:
    from mdpd_plugins.training.experiment import Experiment, Parts

RUN_FILE = "run.json"
COACH_FOLDER = "coach"  # in a work directory: what the first stage of its run keeps
COACH_FOLDERS = (COACH_FOLDER, "coach_2")  # of each coach, where several teach together
COMPARED = ("versions", "revisions", "machine", "config", "seeds", "data", "weights")
PLACES = ("config.work_dir", "config.export_dir")  # where a run lies does not change what it finds
SHOWN = 80  # characters of a value in a message


def record_now(config: Config, parts: Parts) -> dict[str, Any]:
    """What a run is made of. Nothing has been trained or loaded yet.

    Returns:
        "config"; "versions" of libraries; "revisions" of git, where there are any; "machine"; "seeds"; "data" and
        "weights": SHA-256 fingerprints of all splits and of the backbone at the start.
    """
    sources = {"train": parts.train, config.data.eval_split: parts.evaluated, "unlabelled": parts.unlabelled}
    if parts.watched is not parts.evaluated:
        sources["val"] = parts.watched
    return {
        # PyTorch's own word for itself names the build, too.
        "versions": {**installed_versions(), "torch": torch.__version__, "python": platform.python_version()},
        "revisions": revisions(),
        "machine": {
            "system": platform.platform(),
            "device": torch.cuda.get_device_name() if get_device() == "cuda" else get_device(),
            "threads": torch.get_num_threads(),
            "processes": get_world_size(),
        },
        "config": _written(config.to_dict()),
        "seeds": {"train": config.train.seed, "splits": config.data.source.get("split_seed", 0)},
        "data": {split: data_fingerprint(source) for split, source in sources.items() if source is not None},
        "weights": {
            "origin": parts.adapter.origin,
            "sha256": weights_fingerprint(parts.adapter.model.state_dict()),
        },
    }


def begin_record(config: Config, parts: Parts, checkpoint: Path | None, *, resume: bool) -> dict[str, Any]:
    """Write run.json of a run that begins in its work directory, or goes on there.

    Args:
        checkpoint: that it goes on from; None also of a run that was ended while its coach learned.

    Returns:
        What `record_now` does, and "run", the run's name; where it went on with something else, "resumed" holds the
        same of each such time.
    """
    path, record = Path(config.work_dir) / RUN_FILE, record_now(config, parts)
    if not resume:
        record = {"run": secrets.token_hex(8), **record}
    elif path.exists():
        now, record = record, read_run(path)
        record.pop("result", None)  # it has not ended any more
        if differences(record, now):
            record["resumed"] = [*record.get("resumed", []), now]
    else:  # removed; or it began before runs had names, and goes on without one
        meta = meta_of(checkpoint) if checkpoint else {}
        record = {"run": meta.get("run") or "", **record}
    write_signed(path, record)
    return record


def meta_of(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself besides what it learned. Its tensors are not read."""
    meta: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["meta"]
    return meta


def end_record(work_dir: Path, record: dict[str, Any], experiment: Experiment, summary: Mapping[str, Any]) -> None:
    """Add what came out of it: "result", with the steps, the metrics and a fingerprint of the faded backbone."""
    result = {
        "steps": summary["steps"],
        "metrics": dict(summary["metrics"]),
        "sha256": weights_fingerprint(experiment.adapter.model.state_dict()),
    }
    write_signed(work_dir / RUN_FILE, {**record, "result": result})


def read_run(path: str | Path) -> dict[str, Any]:
    """A run.json.

    Raises:
        ConfigError: it does not exist, or is damaged.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RUN_FILE
    if not path.is_file():
        raise ConfigError(
            f"{str(path)!r} does not exist: give the {RUN_FILE} that training wrote in its work directory"
        )
    try:
        found = read_signed(path)
        if not isinstance(found["run"], str) or not isinstance(found["config"], dict):
            raise ValueError("it holds no run")
        if not all(isinstance(found.get(key, {}), dict) for key in (*COMPARED, "result")):
            raise ValueError("a part of it is no section")
        if not all(isinstance(one["config"], dict) for one in found.get("resumed", [])):
            raise ValueError("'resumed' holds no configuration")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{str(path)!r} is damaged ({error}): put it back; or remove it, and nothing tells then which run the "
            f"checkpoints beside it are of"
        ) from error
    return found


def config_of_run(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """The complete configuration of a run.json, for a run beside the first one: into WORK_DIR-again by default.

    Args:
        options: as in `load_config`.

    Raises:
        ConfigError: the file is missing or damaged, or a key that no part of the project reads.
    """
    given = _read(read_run(path)["config"], str(path))
    first = given.get("work_dir")
    given |= {"work_dir": f"{first}-again" if first else None, "export_dir": None}
    try:
        import_modules_from_strings(**(given.get("custom_imports") or {"imports": []}))
    except (ImportError, TypeError) as error:
        raise ConfigError(f"{str(path)!r}: its custom_imports cannot be imported ({error})") from error
    return complete_config(Config(given), path, options)


def config_of_work_dir(work_dir: Path) -> Config:
    """The configuration that lies in a work directory, as its run wrote it.

    Raises:
        ConfigError: there is none; it cannot be read; or it is not the run's any more: with other values, the same
            weights may make another model.
    """
    path = work_dir / RUN_CONFIG
    if not path.is_file():
        raise ConfigError(
            f"{str(work_dir)!r} holds no {RUN_CONFIG}: it is not a work directory of a training run. Give the folder "
            f"that holds config.py and iter_N.pth (by default work_dirs/<config name>)"
        )
    try:
        config = load_config(path)
    except MDPDError as error:  # which is of a value, and does not say where that is
        if str(path) in str(error):
            raise
        raise type(error)(f"{str(path)!r}: {error}") from error
    if not (work_dir / RUN_FILE).exists():
        return config
    record = read_run(work_dir / RUN_FILE)
    now = {"config": _written(config.to_dict())}
    # A kill may have come between the one file and the other: any configuration that the run went on with is its own.
    found = [differences({"config": one["config"]}, now) for one in [record, *record.get("resumed", [])]]
    if all(found):
        raise ConfigError(
            f"{str(path)!r} is not what this run wrote ({found[-1][0]}): put it back; or, if it was changed on "
            f"purpose, remove {str(work_dir / RUN_FILE)!r}"
        )
    return config


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two records say differently, a line each: "versions.torch: '2.6.0' then, '2.7.0' now"."""
    was, is_ = ({path: v for key in COMPARED for path, v in _leaves(record.get(key), key)} for record in (then, now))
    lines = []
    for path in sorted(was.keys() | is_.keys()):
        if path in PLACES or was.get(path) == is_.get(path):
            continue
        before, after = (_short(values[path]) if path in values else "nothing" for values in (was, is_))
        lines.append(f"{path}: {before} then, {after} now")
    return lines


def repetition(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What to say when a run is repeated: lines for the screen."""
    found = differences(then, now)
    if not found:
        return [f"repeats run {then['run']}: versions, configuration, data and weights are the same"]
    return [f"repeats run {then['run']}, but {len(found)} things differ:", *(f"  {line}" for line in found)]


def came_out(then: Mapping[str, Any], work_dir: Path) -> str:
    """Whether the end of a repeated run is that of the first one, in a line."""
    result, own = then.get("result") or {}, read_run(work_dir / RUN_FILE)["result"]
    if not result:
        return f"run {then['run']} had not ended, so there is nothing to compare the end with"
    same = result.get("sha256") == own["sha256"]
    return f"the exported weights are {'those' if same else 'not those'} of run {then['run']}, bit for bit"


def run_name(work_dir: Path) -> str | None:
    """The name of the run that a work directory, or a coach's folder in one, belongs to; None where it has none.

    Raises:
        ConfigError: its run.json is damaged.
    """
    path = work_dir / RUN_FILE
    if work_dir.name in COACH_FOLDERS and not path.exists():
        path = work_dir.parent / RUN_FILE
    return (read_run(path)["run"] or None) if path.exists() else None


def check_run(work_dir: Path, file: Path, name: Any) -> None:
    """Compare the run that a file says it is of with that of a work directory. Nothing is compared without a run.json.

    Args:
        name: what the file says; None if it says nothing.

    Raises:
        CheckpointError: it was written by another run, or before files named theirs.
        ConfigError: the work directory's run.json is damaged.
    """
    own = run_name(work_dir)
    if own is not None and name != own:
        whose = f"by run {name}" if isinstance(name, str) else "by no run that gave its name"
        raise CheckpointError(
            f"{str(file)!r} was written {whose}, and {str(work_dir)!r} belongs to run {own}: put this run's own file "
            f"back, or go on in the work directory that the file is from"
        )


# --- a configuration as JSON, which knows neither tuples nor keys that are no text ------------------------------


def _written(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"(tuple)": [_written(v) for v in value]}
    if isinstance(value, list):
        return [_written(v) for v in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _written(v) for key, v in value.items()}
        return {"(dict)": [[_written(key), _written(v)] for key, v in value.items()]}
    if value is None or type(value) in (str, int, float, bool):
        return value
    return {"(other)": repr(value)}


def _read(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return [_read(v, where) for v in value]
    if not isinstance(value, dict):
        return value
    try:
        if "(tuple)" in value:
            return tuple(_read(v, where) for v in value["(tuple)"])
        if "(dict)" in value:
            return {_read(key, where): _read(v, where) for key, v in value["(dict)"]}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where!r} is damaged: its configuration cannot be read ({error})") from error
    if "(other)" in value:
        raise ConfigError(
            f"{where!r} cannot be repeated: {value['(other)']} in its configuration is no plain value; train from the "
            f"config file instead"
        )
    return {key: _read(v, where) for key, v in value.items()}


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value and not any(key.startswith("(") for key in value):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif value is not None or "." in path:
        yield path, value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


__all__ = [
    "COACH_FOLDER",
    "COACH_FOLDERS",
    "RUN_FILE",
    "begin_record",
    "came_out",
    "check_run",
    "config_of_run",
    "config_of_work_dir",
    "differences",
    "end_record",
    "meta_of",
    "read_run",
    "record_now",
    "repetition",
    "run_name",
]
