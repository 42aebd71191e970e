"""What ran out when something failed: space, memory, or a place to write. Libraries say it in many ways."""

from __future__ import annotations

import errno

FULL = {errno.ENOSPC, errno.EFBIG, *(getattr(errno, name) for name in ("EDQUOT",) if hasattr(errno, name))}
DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}
# safetensors keeps the number only in its text. PyTorch's writer keeps none: it finds that the file did not grow.
_FULL_TEXTS = (*(f"os error {number}" for number in sorted(FULL)), "PytorchStreamWriter failed", "unexpected pos")
_DENIED_TEXTS = tuple(f"os error {number}" for number in sorted(DENIED))
# PyTorch's allocators on CPU (Linux, Windows) and GPU.
_MEMORY_TEXTS = ("can't allocate memory", "not enough memory", "out of memory")


def shortage(error: BaseException) -> str | None:
    """What ran out, in a sentence with the way out, if that is why something failed; None for any other error."""
    text = str(error)
    if out_of_memory(error):
        return f"there is not enough memory ({_first_line(text) or 'MemoryError'}): give smaller batches"
    number = error.errno if isinstance(error, OSError) else None
    kept = "; what had been written whole before is untouched"
    if number in FULL or any(words in text for words in _FULL_TEXTS):
        return f"the disk, a quota or a limit on file sizes is full ({_first_line(text)}): make room{kept}"
    if number in DENIED or any(words in text for words in _DENIED_TEXTS):
        return f"a file or folder must not be written or read ({_first_line(text)}): change its rights{kept}"
    if number in (errno.EISDIR, errno.ENOTDIR):
        return f"a folder lies where a file is to be, or the other way round ({_first_line(text)}): move it away{kept}"
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the CPU or a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_TEXTS)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


__all__ = ["out_of_memory", "shortage"]
