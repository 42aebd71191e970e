"""Measure a whole run's peak of resident memory, above the libraries that it imports. Linux only.

    python -m tools.resident CONFIG [--cfg-options KEY=VALUE ...] [--json OUT]

The run trains, evaluates, writes checkpoints, fades and exports, in a process of its own and a folder that goes again.
Another process then imports the very modules that the run had imported; what that one holds is what is taken off.

Files that are mapped count for as long as their pages are in memory, although a system that needs them takes them
back: an export that is read again to be compared, code of the libraries. What a run cannot do without is said besides,
as "held": what is anonymous, and the backbone's weights that lie in a file. It is looked at every 20 ms, so its peak
may be a little higher.

The C library keeps memory that was freed; how much, depends on the order of sizes. With MALLOC_MMAP_THRESHOLD_=65536
and MALLOC_TRIM_THRESHOLD_=65536 in the environment it keeps next to nothing, and what is held is what tensors hold.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.benchmark.process import end_with_parent
from mdpd_plugins.files import write_json


def resident(wanted: str) -> int:
    """Bytes of this process in main memory, by the name that Linux has: "VmHWM" (at most so far, files that are mapped
    into it included), "VmRSS" (now), "RssAnon" (now, without files)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{wanted}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"this system does not say what a process holds ({wanted} in /proc/self/status)")


def in_files(adapter: Adapter) -> int:
    """Bytes of a backbone's weights that lie in a mapped file, and not in memory of this process's own."""
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith((".safetensors", ".bin", ".pth", ".pt")):
            begin, _, end = line.split()[0].partition("-")
            ranges.append((int(begin, 16), int(end, 16)))
    tensors = [*adapter.model.parameters(), *adapter.model.buffers()]
    return sum(t.nbytes for t in tensors if any(begin <= t.data_ptr() < end for begin, end in ranges))


@contextmanager
def watched() -> Iterator[list[int]]:
    """Inside, a list whose only number is the most bytes that were held: anonymous, and of weights in files."""
    most, done, adapters = [0], threading.Event(), []
    original = Adapter.__init__

    def remembered(self: Adapter, *args: Any, **kwargs: Any) -> None:
        adapters.append(weakref.ref(self))
        original(self, *args, **kwargs)

    def look() -> None:
        mapped: dict[int, int] = {}
        while not done.wait(0.02):
            there = [adapter for reference in adapters if (adapter := reference()) is not None]
            with suppress(RuntimeError, AttributeError):  # it is being built, or changed just now
                mapped = {id(adapter): in_files(adapter) for adapter in there}
            most[0] = max(most[0], resident("RssAnon") + max(mapped.values(), default=0))

    looking = threading.Thread(target=look, daemon=True)
    with patch.object(Adapter, "__init__", remembered):
        looking.start()
        try:
            yield most
        finally:
            done.set()
            looking.join()


def run(config: str, options: list[str], work_dir: str) -> dict[str, Any]:
    """Train; bytes at most, and what was imported."""
    from mdpd_plugins.training import load_config, read_overrides, train

    loaded = load_config(config, read_overrides(options))
    loaded.work_dir = work_dir
    with watched() as held:
        summary = train(loaded)
    files = {p.name: p.stat().st_size for p in Path(work_dir).glob("*.pth")}
    files["export"] = sum(p.stat().st_size for p in Path(work_dir, "export").rglob("*") if p.is_file())
    return {
        "peak": resident("VmHWM"),
        "held": held[0],
        "modules": sorted(sys.modules),
        "seconds": summary["seconds"],
        "steps": summary["steps"],
        "files": files,
    }


def libraries(names: list[str]) -> dict[str, int]:
    """Bytes of a process that has imported these modules, in all and anonymous."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # some can be imported only by the package that they belong to
            continue
    return {"all": resident("VmRSS"), "anonymous": resident("RssAnon")}


def measure(config: Path, options: list[str]) -> dict[str, Any]:
    """Bytes of the run and of its libraries, and their difference; sizes of its files; seconds and steps."""
    with tempfile.TemporaryDirectory() as folder:
        asked = {"config": str(config), "options": options, "work_dir": f"{folder}/run"}
        found = _child({"run": asked}, Path(folder))
    base = alone(found.pop("modules"))
    return {
        **found,
        "libraries": base["all"],
        "above": found["peak"] - base["all"],
        "held_above": found["held"] - base["anonymous"],
        "config": str(config),
        "options": options,
    }


def alone(names: list[str]) -> dict[str, int]:
    """Bytes of a process of its own that has imported these modules and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        return _child({"libraries": names}, Path(folder))


def _child(request: dict[str, Any], folder: Path) -> Any:
    answer = folder / "answer.json"
    command = [sys.executable, "-m", "tools.resident", "--child", str(answer)]
    subprocess.run(command, input=json.dumps(request), text=True, check=True, stdout=2)
    return json.loads(answer.read_text())


def main(arguments: list[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("config", metavar="CONFIG", type=Path, nargs="?")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        end_with_parent()
        request = json.load(sys.stdin)
        asked = request.get("run")
        found = run(**asked) if asked else libraries(request["libraries"])
        write_json(args.child, found)
        return 0
    if args.config is None:
        parser.error("CONFIG is needed")
    found = measure(args.config, args.cfg_options)
    if args.json:
        write_json(args.json, found)
    for name in ("peak", "libraries", "above", "held_above"):
        print(f"{name}: {found[name] / 2**20:,.1f} MiB")
    for name, size in sorted(found["files"].items()):
        print(f"{name}: {size / 2**20:,.1f} MiB")
    print(f"{found['seconds']:.1f} s in {found['steps']} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
