"""Train from a config, exactly as tools/train.py does (`mdpd train --help` shows its options)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="an mmengine config, see zoo_configs/")


def run(arguments: Sequence[str]) -> int:
    """Hand all arguments to the trainer, whose exit status it returns."""
    from mdpd_plugins import training

    return int(training.main(list(arguments)) or 0)
