"""Metrics of an exported model, loaded by its zoo's own loader, on the data of a configuration."""

from __future__ import annotations

import argparse
from pathlib import Path

from mdpd_plugins.registry import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("export", metavar="EXPORT", help="a folder that training exported, such as WORK_DIR/export")
    parser.add_argument("config", metavar="CONFIG", help="whose data is used, such as WORK_DIR/config.py")
    parser.add_argument("--split", choices=["val", "test"], help="default: the split that CONFIG evaluates on")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that lies in EXPORT, if its zoo wants it"
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the metrics here too")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of CONFIG's keys")


def run(args: argparse.Namespace) -> int:
    from mdpd_plugins.exports import check_out, evaluate_export, load_export
    from mdpd_plugins.files import write_json
    from mdpd_plugins.training import load_config, read_overrides

    for option in args.cfg_options:
        if "=" not in option:
            raise ConfigError(f"--cfg-options takes KEY=VALUE pairs, such as data.eval_batch_size=8, and not {option}")
    options = read_overrides(args.cfg_options)
    check_out(args.json)
    config = load_config(args.config, options)
    exported = load_export(args.export, args.device, trust_remote_code=args.trust_remote_code)
    split = args.split or config.data.eval_split
    metrics = evaluate_export(exported, config, split)
    found = {"export": args.export, "config": args.config, "split": split, "metrics": metrics}
    if args.json:
        write_json(args.json, found)
    for name, value in metrics.items():
        print(f"{name} ({split}): {value:.4f}")
    return 0
