"""python tools/train.py CONFIG [--work-dir D] [--resume] [--amp] [--cfg-options k=v ...] [--launcher pytorch]"""

import sys

from mdpd_plugins.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
