"""python -m tools.compare COMMAND ...: comparison studies, from the root of a checkout.

    sweep          methods x tasks x seeds, one line of JSON a run, resumable
    results        tables and plots of docs/results.md, from the lines of tools/compare/few_labels.sh
    memory         tables of the memory page, from the JSON of `mdpd bench`, `growth` and `cached-epochs`
    growth         how training memory grows with one setting
    cached-epochs  seconds of each epoch on cached features
    outside        our methods beside peft's LoRA and QLoRA in transformers' Trainer
    outside-page   tables of the memory page, from the JSON of `outside`

`python -m tools.compare COMMAND --help` shows the options of each.
"""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "sweep": "sweep_command",
    "results": "results_page",
    "memory": "memory_page",
    "growth": "memory_growth",
    "cached-epochs": "cached_epochs",
    "outside": "outside.command",
    "outside-page": "outside.page",
}


def main(arguments: list[str]) -> int:
    """Run one command; its exit status, 2 where there is none of that name."""
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__, file=sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    sys.argv = [f"{sys.argv[0]} {arguments[0]}", *arguments[1:]]
    return int(import_module(f"tools.compare.{COMMANDS[arguments[0]]}").main())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
