"""python tools/train.py CONFIG [--work-dir D] [--resume] [--amp] [--cfg-options k=v ...] [--launcher pytorch]"""

import sys

from mdpd_plugins.training import main

if __name__ == "__main__":
    sys.exit(main())
