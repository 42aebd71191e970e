"""Seconds of each epoch where only the output layer is trained and features are cached.

python -m tools.compare cached-epochs zoo_configs/mmpretrain/vit_b.py --method mdpd_head --epochs 3 --json OUT.json
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import islice
from pathlib import Path

from mdpd_plugins.engine import METHODS
from mdpd_plugins.files import write_json
from mdpd_plugins.registry import MDPDError
from mdpd_plugins.training.config import load_config, read_overrides
from mdpd_plugins.training.experiment import build_experiment


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("config", type=Path)
    p.add_argument("--method", choices=list(METHODS), default="mdpd_head")
    p.add_argument("--cache", type=int, default=8192, metavar="MIB", help="main memory for the features")
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--json", type=Path, metavar="OUT")
    p.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    args = p.parse_args()
    overrides = {"distill.method": args.method, "distill.cache_features": args.cache}
    try:
        options = read_overrides(args.cfg_options)
        experiment = build_experiment(load_config(args.config, {**options, **overrides}))
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    batches, seconds = iter(experiment.train_loader), []
    for epoch in range(args.epochs):
        start = time.perf_counter()
        for data in islice(batches, experiment.steps_per_epoch):
            experiment.distiller.train_step(data, experiment.optim)
        seconds.append(time.perf_counter() - start)
        print(f"epoch {epoch + 1}: {seconds[-1]:.2f} s, {seconds[0] / seconds[-1]:.1f} times as fast as the first")
    if args.json:
        found = {"config": str(args.config), "options": options, "method": args.method}
        write_json(args.json, {**found, "batch_size": experiment.config.data.batch_size, "epoch_seconds": seconds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
