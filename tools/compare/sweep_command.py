"""Compare methods on several tasks over several seeds: one line of JSON a run, resumable.

    python -m tools.compare sweep CONFIG... --methods linear norm norm_checkpointed lora_checkpointed ladder mdpd \\
        --seeds 0 1 2 3 4 --tune optim.scale=1,0.3,3 --jobs 2 --out RUNS.jsonl

Every run is a process of one thread; the lines do not depend on --jobs. The same command again goes on where it was
stopped. A run that fails is told in RUNS.jsonl.failed, the sweep goes on, and the exit status is 1.

A method is a name (`mdpd`, `lora_checkpointed`, ...) or a recipe under a label of yours:

    --methods mdpd "every1:method=mdpd,distill.backbone_every=1,optim.norm_lr=1e-3"

--tune: every method runs with each value (of two keys: each pair) and seed 1000 on the validation split; the best by
the main metric of what it deploys (the side path of a ladder, otherwise the backbone) is taken, of equals the first;
only then do the seeds run, on the test split. `optim.scale` multiplies all learning rates: one grid fits all methods.

A seed draws the initial weights, the order of batches, masks and augmentation. Which examples are for training,
validation and test is the same for all seeds; `--cfg-options data.source.split_seed=1` draws another division.
Accuracy over training time: repeat the command with other `--cfg-options train.max_epochs=N` and the same --out.
Tables and plots of the lines: tools/compare/results_page.py.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from mdpd_plugins.registry import MDPDError


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("configs", nargs="+", metavar="CONFIG")
    p.add_argument("--methods", nargs="+", default=["linear", "norm", "mdpd"], metavar="METHOD")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--tune", nargs="+", type=_grid, default=[], metavar="KEY=V1,V2", help="one or two keys")
    p.add_argument("--split", choices=["val", "test"], default="test", help="what the seeds are evaluated on")
    p.add_argument("--jobs", type=int, default=1, help="processes side by side")
    p.add_argument("--out", type=Path, default=Path("work_dirs/sweep.jsonl"))
    p.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="of every run")
    args = p.parse_args()
    if len(args.tune) > 2:
        p.error("--tune takes one key or two: the budget is their product, for every method")
    if args.jobs < 1:
        p.error("--jobs must be at least 1")
    # Imported here, so that --help answers at once.
    from tools.compare.methods import read_methods
    from tools.compare.sweep import sweep

    before = signal.signal(signal.SIGTERM, _end)
    try:
        methods = read_methods(args.methods)
        whole = sweep(
            *(args.configs, methods, args.seeds, args.out),
            options=args.cfg_options,
            tune=dict(args.tune),
            split=args.split,
            jobs=args.jobs,
        )
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0 if whole else 1


def _end(number: int, _: Any) -> None:
    print("ended by SIGTERM; the same command goes on from here", file=sys.stderr)
    sys.exit(128 + number)


def _grid(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    if not (key and equals and all(values.split(","))):
        raise argparse.ArgumentTypeError(f"{text!r}: KEY=VALUE,VALUE is meant, such as optim.scale=1,0.3,3")
    return key, values.split(",")


if __name__ == "__main__":
    sys.exit(main())
