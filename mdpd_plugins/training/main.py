"""The command line of training: `tools/train.py` and `mdpd train` are this."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mmengine.config import DictAction

from mdpd_plugins.registry.errors import MDPDError


class _Overrides(DictAction):
    """mmengine's KEY=VALUE reader, with an error that says what was wrong."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError):
            parser.error(f"--cfg-options takes KEY=VALUE pairs, such as train.max_epochs=5, and not {values}")


def parser() -> argparse.ArgumentParser:
    """Options as MMPretrain's tools/train.py has them, and `--dry-run`."""
    p = argparse.ArgumentParser(prog="train.py", description="Train, fade and export one configuration")
    p.add_argument("config", help="a file under zoo_configs/, or your own")
    p.add_argument("--work-dir", help="where checkpoints, logs and the export go (default: work_dirs/<config name>)")
    p.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the work directory")
    p.add_argument("--amp", action="store_true", help="bfloat16 autocast, on CPU and GPU")
    p.add_argument("--dry-run", action="store_true", help="build all, one step of each phase, report memory, stop")
    p.add_argument(
        "--cfg-options",
        nargs="+",
        action=_Overrides,
        metavar="KEY=VALUE",
        help="override config keys: train.max_epochs=5 data_root=/my/images distill.backbone_every=1",
    )
    p.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    p.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if it worked, 2 for an error the user can mend, 130 if interrupted."""
    args = parser().parse_args(argv)
    if args.launcher != "none":
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    # Imported here, so that --help answers at once.
    from mdpd_plugins.training.config import load_config
    from mdpd_plugins.training.run import dry_run, train

    try:
        config = load_config(args.config, args.cfg_options)
        if args.work_dir:
            config.work_dir = args.work_dir
        if args.amp:
            config.train.amp = True
        if args.dry_run:
            dry_run(config)
        else:
            train(config, resume=args.resume, launcher=args.launcher)
    except MDPDError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; --resume goes on from the newest checkpoint", file=sys.stderr)
        return 130
    return 0


def _one_line(error: MDPDError) -> str:
    # A data loader's worker sends its whole traceback as the message; what it says stands in the last line.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].partition(": ")[2] if lines[0].startswith("Caught ") else " ".join(lines)


__all__ = ["main", "parser"]
