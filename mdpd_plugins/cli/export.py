"""Write the faded model of a work directory in its zoo's native format."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("work_dir", metavar="WORK_DIR", help="the work directory of a training run")
    parser.add_argument("--checkpoint", metavar="FILE", help="one of its files (default: what the run itself exports)")
    parser.add_argument("out", metavar="OUT", help="the folder to write; must not exist, or be empty")


def run(args: argparse.Namespace) -> int:
    from mdpd_plugins.training import export_work_dir

    export_work_dir(args.work_dir, args.out, checkpoint=args.checkpoint)
    print(f"exported to {args.out}")
    return 0
