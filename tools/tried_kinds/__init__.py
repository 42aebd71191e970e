"""The cases that tools/tried_cases.py tries, one module a subject. They build on the tests' helpers."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))
