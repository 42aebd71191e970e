"""Entry point of the command `mdpd`."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from mdpd_plugins.cli import (
    bench,
    config,
    doctor,
    evaluate,
    export,
    fit,
    list_backbones,
    new_config,
    new_plugin,
    predict,
    report,
    show,
    train,
    verify,
)
from mdpd_plugins.registry import DataWarning, MDPDError
from mdpd_plugins.shortages import shortage

COMMANDS = {
    "list-backbones": list_backbones,
    "show": show,
    "verify": verify,
    "new-config": new_config,
    "new-plugin": new_plugin,
    "doctor": doctor,
    "config": config,
    "train": train,
    "bench": bench,
    "fit": fit,
    "export": export,
    "predict": predict,
    "eval": evaluate,
    "report": report,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0: done; 1: `doctor` found a problem; 2: an error that its message explains; 130: interrupted; 143: training was
    ended by SIGTERM, with everything saved.
    """
    for stream in (sys.stdout, sys.stderr):
        # What plugins and files are called need not fit a terminal's encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("MDPD_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        # The libraries' own switches, which they read when they are imported.
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
            os.environ[name] = "1"
        os.environ.setdefault("WANDB_MODE", "offline")
    args = _parser().parse_args(argv)
    command = COMMANDS[args.command]
    warnings.formatwarning = _format
    try:
        return command.run(args)
    except MDPDError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(str(error) or getattr(command, "INTERRUPTED", "interrupted"), file=sys.stderr)
        return 128 + getattr(error, "signal", signal.SIGINT)
    except BrokenPipeError:
        # The reader went away (`mdpd list-backbones | head`). Python flushes stdout once more at exit, so
        # give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if (said := shortage(error)) is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        return 2


def _format(message: Warning | str, category: type[Warning], *where: Any, **line: Any) -> str:
    # Ours say what they mean, and the line of code that said it helps nobody.
    return (
        f"warning: {message}\n" if issubclass(category, DataWarning) else _formatted(message, category, *where, **line)
    )


_formatted = warnings.formatwarning


def _one_line(error: MDPDError) -> str:
    # A data loader's worker sends its whole traceback as the message; what it says stands in the last line.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].partition(": ")[2] if lines[0].startswith("Caught ") else " ".join(lines)


class _Version(argparse.Action):
    """`--version`, which reads the installed metadata only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from mdpd_plugins import __version__

        print(f"mdpd-plugins {__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mdpd", description="Masked Dual Path Distillation for the backbones of any model zoo."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").strip().splitlines()[0]
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
