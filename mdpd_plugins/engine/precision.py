"""What `train.amp` means."""

from __future__ import annotations

import torch

from mdpd_plugins.registry.errors import ConfigError, closest

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast_dtype(amp: bool | str) -> torch.dtype | None:
    """The type that forwards are autocast to; None for float32 throughout.

    Args:
        amp: `train.amp`: False, True (bfloat16, which has float32's range and needs no loss scaling), or the name of a
            type. float16 is for GPUs without bfloat16; its losses are scaled.

    Raises:
        ConfigError: another name.
    """
    if isinstance(amp, bool):
        return torch.bfloat16 if amp else None
    if amp not in PRECISIONS:
        raise ConfigError(f"train.amp={amp!r}: {closest(amp, PRECISIONS)}; or True for bfloat16, False for float32")
    return PRECISIONS[amp]


__all__ = ["autocast_dtype"]
