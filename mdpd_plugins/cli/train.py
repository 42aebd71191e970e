"""Train, fade and export one configuration; `tools/train.py` is this command."""

from __future__ import annotations

import argparse
import os
import sys

INTERRUPTED = "interrupted; --resume goes on from the newest checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options as MMPretrain's tools/train.py has them, and `--dry-run`."""
    parser.add_argument("config", nargs="?", help="a file under zoo_configs/, or your own")
    parser.add_argument(
        "--from-run",
        metavar="RUN.JSON",
        help="instead of CONFIG: repeat the run that wrote this file, in another work directory, and say what differs",
    )
    parser.add_argument(
        "--work-dir", help="where checkpoints, logs and the export go (default: work_dirs/<config name>)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the work directory")
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast, on CPU and GPU")
    parser.add_argument("--dry-run", action="store_true", help="build all, one step of each phase, report memory, stop")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override config keys: train.max_epochs=5 data_root=/my/images distill.backbone_every=1",
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Train, or with --dry-run build and measure."""
    if args.launcher != "none":
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if os.environ.get("RANK", "0") == "0":
        # The libraries take seconds to load, and longer from a cold disk.
        print(f"building {args.config} ...", file=sys.stderr, flush=True)
    # Imported here, so that --help answers at once.
    from mdpd_plugins.registry import ConfigError
    from mdpd_plugins.training import config_of_run, dry_run, load_config, read_overrides, read_run, train

    if (args.config is None) == (args.from_run is None):
        raise ConfigError("give a CONFIG to train, or --from-run WORK_DIR/run.json to repeat a run: one of the two")
    options = read_overrides(args.cfg_options)
    repeats = read_run(args.from_run) if args.from_run else None
    config = config_of_run(args.from_run, options) if args.from_run else load_config(args.config, options)
    if args.work_dir:
        config.work_dir = args.work_dir
    if args.amp:
        config.train.amp = True
    if args.dry_run:
        dry_run(config, repeats=repeats)
    else:
        train(config, resume=args.resume, launcher=args.launcher, repeats=repeats)
    return 0
