"""Plugins that end, crash, loop or disturb Python: each costs itself, at the latest after the first time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from hostile_plugins import CHANGING, ENDING, RAISING, good
from packages import run_mdpd, write_plugin

from tools.fault_kinds.attempt import CRASH, REFUSED, RIGHT, Case


def cases(folder: Path, numbers: range) -> Iterator[Case]:
    """Each hostile plugin of the tests beside a good one, listed three times."""
    sources = {
        **{f"ends: {name}": (name, source) for name, source in ENDING.items()},
        **{f"raises: {name}": (name, source) for name, (source, _) in RAISING.items()},
        **{f"changes: {name}": (name, f"{source}\n{good(name)}") for name, source in CHANGING.items()},
    }
    for number, (what, (name, source)) in list(enumerate(sources.items()))[numbers.start : numbers.stop]:
        site = folder / f"{number}"
        write_plugin(site, name, source)
        write_plugin(site, "zlast")
        # The first time may cost the process.
        done = [run_mdpd("list-backbones", "--json", site=site) for _ in range(2)][-1]
        outcome, said = CRASH, done.stderr[-300:]
        if done.returncode == 0:
            names = {row["name"] for row in json.loads(done.stdout)}
            if "zlast/one" in names and "Traceback" not in done.stderr:
                outcome, said = (RIGHT if f"{name}/one" in names else REFUSED), ""
        yield Case(what.partition(":")[0], number, name, outcome, said)
