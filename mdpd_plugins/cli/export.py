"""Write the faded model of a work directory in its zoo's native format."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("work_dir", metavar="WORK_DIR", help="the work directory of a training run")
    parser.add_argument("--checkpoint", metavar="FILE", help="one of its files (default: what the run itself exports)")
    parser.add_argument(
        "--keep-side",
        action="store_true",
        help="the backbone together with its side network, or its coach: --format says in which kind of file",
    )
    parser.add_argument(
        "--format",
        choices=("zoo", "onnx", "torch"),
        help="besides the zoo's own files: network.onnx, or PyTorch's exported program network.pt2 (default: zoo, and "
        "onnx with --keep-side)",
    )
    parser.add_argument("out", metavar="OUT", help="the folder to write; must not exist, or be empty")


def run(args: argparse.Namespace) -> int:
    from mdpd_plugins.registry import ConfigError
    from mdpd_plugins.training import export_network, export_work_dir

    kind = args.format or ("onnx" if args.keep_side else "zoo")
    if args.keep_side and kind == "zoo":
        raise ConfigError("no zoo has a format for a side network: give --format onnx or --format torch")
    if kind == "zoo":
        export_work_dir(args.work_dir, args.out, checkpoint=args.checkpoint)
    else:
        export_network(args.work_dir, args.out, kind=kind, keep_side=args.keep_side, checkpoint=args.checkpoint)
    print(f"exported to {args.out}")
    return 0
