"""mmengine without transformers and bitsandbytes, which treble the time until a run begins.

Importing `mmengine.optim` tries to import transformers, and with it peft, and bitsandbytes, for optimisers that nothing
here uses (Adafactor, those of 8 bits), and does without where that fails. Where a program has loaded them already,
nothing changes; a backbone that needs them loads them later.
"""

from __future__ import annotations

import sys

HEAVY = ("transformers", "bitsandbytes")


def _load() -> None:
    absent = [name for name in HEAVY if name not in sys.modules]
    # Python's own way to say that a module is not there; whoever asks later gets it.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        import mmengine.optim  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]


_load()
