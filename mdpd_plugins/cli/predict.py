"""Predict images or texts with an exported model, loaded by its zoo's own loader."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

FORMATS = ("table", "json", "jsonl", "csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("export", metavar="EXPORT", help="a folder that training exported, such as WORK_DIR/export")
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image files and folders of them, texts, tables (.csv, .tsv, .jsonl, .parquet, .xlsx), or - for lines of "
        "standard input",
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="inputs at a time (default 32)")
    parser.add_argument("--top-k", type=int, metavar="K", help="the K most probable labels (default 1)")
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that lies in EXPORT, if its zoo wants it"
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument("--skip-broken", action="store_true", help="leave out broken images and empty texts")
    parser.add_argument("--text-column", metavar="C", help="of tables: the text (default: as in training, text)")
    parser.add_argument("--text-pair-column", metavar="C", help="of tables: a second text that belongs to the first")
    parser.add_argument(
        "--image-column", metavar="C", help="of tables: the image's path (default: as in training, image)"
    )


def run(args: argparse.Namespace) -> int:
    from mdpd_plugins.exports import TableColumns, check_out, load_export, predict, read_inputs, write_rows

    check_out(args.out)
    exported = load_export(args.export, args.device, trust_remote_code=args.trust_remote_code)
    record = exported.record
    columns = TableColumns(args.text_column, args.text_pair_column, args.image_column, record.columns)
    inputs = read_inputs(args.inputs, record.modality, columns, sys.stdin, skip_broken=args.skip_broken)
    rows = predict(exported, inputs, batch_size=args.batch_size, top_k=args.top_k)
    write_rows(list(_shown(rows, len(inputs))), args.format, args.out)
    return 0


def _shown(rows, total: int):
    """The rows, with a bar on a terminal's standard error that is gone when they are there."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(rows, "predicting", total=total, console=console, transient=True, disable=not console.is_terminal)
