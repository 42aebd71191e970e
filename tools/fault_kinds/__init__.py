"""The kinds of faults that tools/faults.py tries. They build on the tests' helpers, so they need a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))
