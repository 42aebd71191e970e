"""A grid of configurations, methods and seeds: one process a run, one line of JSON a result.

With tuning, every method first runs with each value of the same small grid on the validation split; its seeds then
run with its best value on the test split, which no choice has seen.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mdpd_plugins.registry.errors import ConfigError
from tools.compare.fixmatch import METHOD
from tools.compare.methods import Method
from tools.compare.result_lines import TUNING_SEED, append_run, main_metric, read_runs, score
from tools.compare.worker import RESULT, work

# A few lines of a failed run's output are enough to see why.
SHOWN = 15
GRACE = 10.0  # seconds for a run to end when the sweep does: several steps of what a sweep trains
# What runs import, as far as it is installed. The server that the processes are forked off does it once.
PRELOADED = ["tools.compare.worker", "mdpd_plugins.zoos.huggingface.encoder", "matplotlib.pyplot"]
PRELOADED += ["sklearn.metrics", "setuptools"]


@dataclass(frozen=True)
class Run:
    """One run of the grid.

    Attributes:
        config: a config file. options: `--cfg-options` of the whole sweep. tuned: those of the tuning grid.
        split: what it is evaluated on, "val" or "test". measure: count what a step holds; it is not part of the key.
    """

    config: str
    method: Method
    options: tuple[str, ...]
    tuned: tuple[str, ...]
    seed: int
    split: str
    measure: bool = field(default=False, compare=False)

    @property
    def overrides(self) -> list[str]:
        """All `--cfg-options`; what comes later wins."""
        own = [f"train.seed={self.seed}", f"data.eval_split={self.split}"]
        return [*self.options, *self.method.overrides, *self.tuned, *own]

    @property
    def line(self) -> dict[str, Any]:
        """What the run is, as its line in the file says it."""
        return {
            "config": self.config,
            "method": self.method.label,
            "overrides": list(self.method.overrides),
            "options": list(self.options),
            "tuned": list(self.tuned),
            "seed": self.seed,
            "split": self.split,
        }

    @property
    def command(self) -> str:
        """What runs it alone."""
        if METHOD not in self.method.overrides:
            return f"python tools/train.py {self.config} --cfg-options {shlex.join(self.overrides)}"
        given = [self.config, "--methods", self.method.text, "--seeds", str(self.seed), "--split", self.split]
        more = ["--out", "alone.jsonl", "--cfg-options", *self.options, *self.tuned]
        return f"python -m tools.compare sweep {shlex.join([*given, *more])}"

    @property
    def name(self) -> str:
        """A line for the screen."""
        where = f"seed {self.seed} on {self.split}"
        return " ".join([Path(self.config).stem, self.method.label, *self.tuned, where])


def run_of(line: Mapping[str, Any]) -> Run:
    """The run that a line of the file is of.

    Raises:
        ConfigError: the line lacks a key.
    """
    try:
        method = Method(line["method"], tuple(line["overrides"]))
        options, tuned = tuple(line["options"]), tuple(line["tuned"])
        return Run(line["config"], method, options, tuned, line["seed"], line["split"])
    except KeyError as error:
        raise ConfigError(f"a line has no {error}: no sweep of this version wrote it; give another file") from error


class Sweep:
    """Runs what a file of lines does not hold yet.

    Several sweeps may share `out`: each run is claimed by one of them, and the others take its line.

    Args:
        out: JSON lines, one a finished run. What failed in this sweep is told in a file beside it, OUT.failed, and
            is tried again by the next one.
        jobs: processes side by side, of one thread each; results do not depend on it.
    """

    def __init__(self, out: Path, jobs: int = 1):
        self.out, self.jobs = out, jobs
        self.failed = out.with_name(f"{out.name}.failed")
        self.failures = 0
        self.running: set[Any] = set()
        self.ending = False
        self.done = {run_of(line): line for line in read_runs(out)}
        self.failed.unlink(missing_ok=True)

    def run(self, runs: Sequence[Run]) -> None:
        """Run those that are not done, and append each as it ends."""
        left = [run for run in runs if run not in self.done]
        total, count = len(left), 0
        # What another sweep is at comes last: then its line is there, or it was ended and the run is free.
        for wait in (False, True):
            todo, left = left, []
            with ThreadPoolExecutor(self.jobs) as pool:
                started = {pool.submit(self._claimed, run, wait): run for run in todo}
                try:
                    for future in as_completed(started):
                        found = future.result()
                        if found is None:
                            left.append(started[future])
                            continue
                        count += 1
                        self._tell(started[future], found, f"[{count}/{total}]")
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    self._end_all()
                    raise

    def _claimed(self, run: Run, wait: bool) -> dict[str, Any] | None:
        """Run it where no other sweep does, and write its line; None if one does and it is not to be waited for."""
        name = hashlib.sha256(json.dumps(run.line, sort_keys=True).encode()).hexdigest()[:16]
        # Beside the results and not in a folder of its own, which could not be removed while others use it.
        path = self.out.with_name(f".{self.out.name}.{name}.claim")
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = FileLock(path)
        while True:
            try:
                claim.acquire(blocking=False)
                break
            except Timeout:
                if not wait or self.ending:
                    return None
                time.sleep(0.5)
        try:
            known = {run_of(line): line for line in read_runs(self.out)}
            if run in known:
                return known[run]
            line = {**run.line, **self._in_a_process(run)}
            append_run(self.failed if "error" in line else self.out, line)
            return line
        finally:
            with suppress(OSError):  # before it is let go: whoever waits for it finds the line
                path.unlink(missing_ok=True)
            claim.release()

    def _end_all(self) -> None:
        """Leave no process behind: each is asked to end, and killed if it does not."""
        self.ending = True
        for process in list(self.running):
            process.terminate()
        end = time.monotonic() + GRACE
        for process in list(self.running):
            process.join(max(0.0, end - time.monotonic()))
            process.kill()

    def _in_a_process(self, run: Run) -> dict[str, Any]:
        """What the run found, or {"error", "command"}."""
        with tempfile.TemporaryDirectory(prefix="mdpd_run_", ignore_cleanup_errors=True) as folder:
            log = Path(folder) / "log.txt"
            arguments = (run.config, run.overrides, run.measure, str(Path(folder) / "work"), str(log))
            Path(arguments[3]).mkdir()
            process = _CONTEXT.Process(target=work, args=arguments)
            process.start()
            self.running.add(process)
            if self.ending:
                process.kill()
            process.join()
            self.running.discard(process)
            if process.exitcode == 0:
                return json.loads((Path(folder) / "work" / RESULT).read_text())
            said = log.read_text(errors="replace").strip() if log.is_file() else ""
        killed = [f"killed by signal {-process.exitcode}"] if process.exitcode < 0 else []
        lines = [*said.splitlines()[-SHOWN:], *killed]
        return {"error": "\n".join(lines) or f"exit status {process.exitcode}", "command": run.command}

    def _tell(self, run: Run, line: dict[str, Any], count: str) -> None:
        if "error" in line:
            self.failures += 1
            said = f"FAILED, see {self.failed}: {line['error'].splitlines()[-1]}"
        else:
            self.done[run] = line
            key = main_metric(line)
            said = f"{key} {line['metrics'][key]:.4f}, {line['seconds']:.0f} s of training"
        print(f"{count} {run.name}: {said}", file=sys.stderr, flush=True)

    def best(self, runs: Sequence[Run]) -> Run | None:
        """The one with the best score of those that are done; of equals the one given first. None: none is done."""
        done = [run for run in runs if run in self.done]
        return max(done, key=lambda run: score(self.done[run])) if done else None


def sweep(
    configs: Sequence[str],
    methods: Sequence[Method],
    seeds: Sequence[int],
    out: Path,
    *,
    options: Sequence[str] = (),
    tune: Mapping[str, Sequence[str]] | None = None,
    split: str = "test",
    jobs: int = 1,
) -> bool:
    """Run every method with every seed on every configuration; see the module.

    Args:
        configs: config files. options: `--cfg-options` KEY=VALUE of every run.
        tune: key -> values. Every method tries each combination, so the budget is the same for all.
        split: what the seeds are evaluated on.

    Returns:
        Whether every run is there.

    Raises:
        ConfigError: `out` holds something else.
    """
    values = (tune or {}).values()
    grid = [tuple(f"{k}={v}" for k, v in zip(tune or {}, chosen, strict=True)) for chosen in product(*values)]
    pairs = [(config, method) for config in configs for method in methods]
    sweeper = Sweep(out, jobs)

    def tuning(config: str, method: Method) -> list[Run]:
        return [Run(config, method, tuple(options), tuned, TUNING_SEED, "val") for tuned in grid]

    if tune:
        # Value by value, so that the first results are of every method.
        sweeper.run([run for same in zip(*(tuning(*pair) for pair in pairs), strict=True) for run in same])
    chosen = {}
    for pair in pairs:
        best = sweeper.best(tuning(*pair)) if tune else None
        if best or not tune:
            chosen[pair] = best.tuned if best else ()
    sweeper.run(
        [
            Run(config, method, tuple(options), tuned, seed, split, measure=seed == seeds[0])
            for seed in seeds
            for (config, method), tuned in chosen.items()
        ]
    )
    return not sweeper.failures


# Forked off a server that has imported once what a run imports, which takes seconds; Windows has no fork.
_CONTEXT: Any = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
)
if hasattr(_CONTEXT, "set_forkserver_preload"):
    _CONTEXT.set_forkserver_preload(PRELOADED)

__all__ = ["Run", "Sweep", "run_of", "sweep"]
