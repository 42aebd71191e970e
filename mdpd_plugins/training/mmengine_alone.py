"""mmengine without transformers, which doubles the time until a run begins.

Importing `mmengine.optim` tries to import transformers, and with it peft, for one optimiser that nothing here uses
(Adafactor), and does without where that fails. Where a program has loaded transformers already, nothing changes; a
backbone that needs it loads it later.
"""

from __future__ import annotations

import sys


def _load() -> None:
    if "transformers" in sys.modules:
        return
    # Python's own way to say that a module is not there; whoever asks later gets it.
    sys.modules["transformers"] = None  # type: ignore[assignment]
    try:
        import mmengine.optim  # noqa: F401
    finally:
        del sys.modules["transformers"]


_load()
