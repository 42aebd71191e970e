"""Memory that was freed, given back to the system between the phases of a run.

glibc keeps freed blocks for later. What a training step has left is of little use to an evaluation, whose tensors have
other sizes: without this both lie in memory together. It is not done within a phase, where the same sizes come again.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


def give_back() -> None:
    """Give freed memory back; nothing where the C library is not glibc."""
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # macOS, musl; Windows has no such handle
        return lambda _: None


__all__ = ["give_back"]
