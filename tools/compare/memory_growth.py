"""How training memory grows with one setting.

    python -m tools.compare growth zoo_configs/huggingface/vit_b.py --setting backbone.options.num_hidden_layers \
        --values 6 12 24 48 --methods mdpd lora full --json OUT.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mdpd_plugins.benchmark.growth import scaling
from mdpd_plugins.benchmark.report import markdown
from mdpd_plugins.engine import METHODS
from mdpd_plugins.files import write_json
from mdpd_plugins.registry import MDPDError
from mdpd_plugins.training.config import read_overrides


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("config", type=Path)
    p.add_argument("--setting", required=True, metavar="KEY", help="dotted key of the configuration")
    p.add_argument("--values", required=True, nargs="+", type=int)
    p.add_argument("--methods", nargs="+", choices=list(METHODS), default=["mdpd", "lora", "full"])
    p.add_argument("--json", type=Path, metavar="OUT")
    p.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    args = p.parse_args()
    try:
        found = scaling(args.config, args.setting, args.values, args.methods, read_overrides(args.cfg_options))
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        write_json(args.json, found)
    rows = [(r["method"], str(r["value"]), f"{r['training_state_bytes'] / 2**20:.1f}") for r in found["results"]]
    print(markdown(("method", args.setting, "training state (MiB)"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
