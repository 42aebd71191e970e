"""The kit on many backbones: each in a process of its own, with limits on time and memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from mdpd_plugins.files import write_text
from mdpd_plugins.registry import ConfigError, MDPDError, MissingDependencyError, Registered, load_catalogue

PASS, FAIL, UNAVAILABLE = "pass", "fail", "unavailable"

# What some models import and the package index cannot supply for every machine.
NOT_ON_INDEX = {
    "detectron2": "detectron2, which is built from source for one CUDA and torch",
    "mmcv._ext": "the full mmcv, whose compiled operators no longer build",
    "mmcv.ops": "the full mmcv, whose compiled operators no longer build",
    "ModifiedResNet": "mmpretrain[multimodal], which cannot be imported beside transformers 5",
    "natten": "natten, which is built for one CUDA and torch",
}


@dataclass(frozen=True)
class Limits:
    """What one backbone may use: seconds of wall time, and bytes of memory it allocates."""

    seconds: float = 300.0
    memory: int = 4 << 30


def verify(
    backbones: Iterable[Registered],
    *,
    limits: Limits,
    jobs: int = 1,
    preload: Iterable[str] = (),
) -> Iterator[dict[str, Any]]:
    """Check each backbone in its own process and yield a row for each as it ends.

    Args:
        preload: modules that are imported once and shared by all processes, such as the zoos' frameworks.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # weights are random: nothing is to be fetched
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mdpd_plugins.testing", "mdpd_plugins.testing.many", *preload])
    waiting, running = deque(backbones), {}
    if waiting:
        # The first process waits for the imports that all share: no backbone is charged with them.
        first = context.Process(target=_nothing)
        first.start()
        first.join()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                job = _Job(waiting.popleft(), context, limits)
                running[job.process.sentinel] = job
            first_end = min(job.deadline for job in running.values())
            ended = wait(list(running), timeout=max(0.0, first_end - time.monotonic()))
            now = time.monotonic()
            for key in [k for k, job in running.items() if k in ended or now >= job.deadline]:
                yield running.pop(key).row()
    finally:
        for job in running.values():
            job.process.kill()
            job.process.join()


def _nothing() -> None:
    pass


class _Job:
    """One process."""

    def __init__(self, registered: Registered, context: Any, limits: Limits):
        self.registered, self.limits = registered, limits
        handle, path = tempfile.mkstemp(suffix=".json")
        os.close(handle)
        self.file = Path(path)
        self.start = time.monotonic()
        self.deadline = self.start + limits.seconds
        self.process = context.Process(target=_work, args=(registered.name, path, limits.memory))
        self.process.start()

    def row(self) -> dict[str, Any]:
        """What it found, or how it ended without finding anything."""
        late = self.process.is_alive()
        if late:
            self.process.kill()
        self.process.join()
        known = {"name": self.registered.name, "zoo": self.registered.zoo, "provided_by": self.registered.origin}
        row: dict[str, Any] = {**known, "status": FAIL}
        try:
            row.update(json.loads(self.file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            code = self.process.exitcode
            ended = f"the process ended with {'signal ' + str(-code) if code and code < 0 else 'status ' + str(code)}"
            row["reason"] = f"no end within {self.limits.seconds:.0f} s" if late else ended
            row["checks"] = {}
        finally:
            self.file.unlink(missing_ok=True)
        row["seconds"] = round(time.monotonic() - self.start, 1)
        return row


def _work(name: str, path: str, memory: int) -> None:
    """What a process does: check one backbone and leave the result in a file."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    result = check_registered(name)
    # Linux counts in KiB.
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    Path(path).write_text(json.dumps(result, default=str), encoding="utf-8")


def check_registered(name: str) -> dict[str, Any]:
    """Status, reason, checks and classes of a registered backbone in its small form, in this process."""
    from mdpd_plugins.testing.kit import check_backbone

    checks: dict[str, Any] = {}
    reasons: list[str] = []
    forms: dict[str, Any] = {}
    classes: dict[str, list[str]] = {}
    try:
        forms = load_catalogue().get(name).small_options()
        for label, options in forms.items():
            report = check_backbone(name, **options)
            classes[label] = report.architecture
            prefix = f"{label}/" if label else ""
            checks.update({f"{prefix}{k}": v for k, v in report.as_dict().items()})
            reasons += [f"{prefix}{o.check}: {o.detail}" for o in report.failures]
    except Exception as error:  # a row, not the end of the sweep
        missing = next((text for key, text in NOT_ON_INDEX.items() if key in str(error)), None)
        if missing and isinstance(error, ImportError | MDPDError):
            return {"status": UNAVAILABLE, "reason": f"needs {missing}", "checks": checks, "options": forms}
        kind = "" if isinstance(error, MDPDError) else f"{type(error).__name__}: "
        first = (str(error).strip().splitlines() or [""])[0]
        hint = " (a missing dependency)" if isinstance(error, MissingDependencyError) else ""
        reasons.append(f"build: {kind}{first}{hint}")
    status = FAIL if reasons else PASS
    found = {"status": status, "reason": "; ".join(reasons), "checks": checks}
    return {**found, "architecture": classes, "options": forms}


class Results:
    """Rows of a sweep, kept in a JSON file so that a sweep that was stopped goes on where it was.

    Args:
        versions: distribution -> version of what results depend on.

    Raises:
        ConfigError: the file exists and is not one of ours, or holds what was found with other versions of libraries,
            which says nothing about these.
    """

    def __init__(self, path: str | Path | None, versions: dict[str, str]):
        self.path = Path(path) if path else None
        self.versions = versions
        self.rows: dict[str, dict[str, Any]] = {}
        if self.path is not None and self.path.is_file():
            try:
                stored = json.loads(self.path.read_text(encoding="utf-8"))
                rows = {row["name"]: row for row in stored["results"]}
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{str(self.path)!r} holds no results of `mdpd verify`: name another file") from error
            self._check_versions(stored.get("versions") or {})
            self.rows = rows

    def _check_versions(self, then: dict[str, str]) -> None:
        known = {name: (then.get(name), self.versions.get(name)) for name in sorted({*then, *self.versions})}
        changed = [
            f"{name} {old or 'absent'} then, {new or 'absent'} now" for name, (old, new) in known.items() if old != new
        ]
        if changed:
            raise ConfigError(
                f"{str(self.path)!r} holds what was found with other versions ({'; '.join(changed)}): name another "
                f"file, or remove it"
            )

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, and write the file."""
        self.rows[row["name"]] = row
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(self.as_dict(), indent=1, default=str) + "\n")

    def as_dict(self) -> dict[str, Any]:
        """Plain data: results, totals and versions."""
        rows = [self.rows[name] for name in sorted(self.rows)]
        return {"results": rows, "totals": dict(Counter(r["status"] for r in rows)), "versions": self.versions}


def matrix(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Lines of a table: zoos across, statuses and checks down, counts of passed of applicable in the cells."""
    rows = list(rows)
    zoos = sorted({r["zoo"] for r in rows})
    names = list(dict.fromkeys(c.rpartition("/")[2] for r in rows for c in r["checks"]))

    def cell(zoo: str, check: str) -> str:
        outcomes = [item for r in rows if r["zoo"] == zoo for item in r["checks"].items()]
        found = Counter(v["status"] for k, v in outcomes if k.rpartition("/")[2] == check)
        return f"{found['pass']}/{found['pass'] + found['fail']}"

    def count(zoo: str, status: str) -> str:
        return str(sum(r["zoo"] == zoo and r["status"] == status for r in rows))

    table = [["", *zoos]]
    table += [[status, *(count(z, status) for z in zoos)] for status in (PASS, FAIL, UNAVAILABLE)]
    table += [[name, *(cell(z, name) for z in zoos)] for name in names]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table]


__all__ = ["FAIL", "PASS", "UNAVAILABLE", "Limits", "Results", "check_registered", "matrix", "verify"]
