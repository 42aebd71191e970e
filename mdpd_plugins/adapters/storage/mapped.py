"""Tensors that lie in a file, of which as much is in memory as is being read."""

from __future__ import annotations

import os
import tempfile

import torch


def mapped(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in a file without a name, in the system's folder for temporary ones, mapped into memory.

    So they are held as the weights of a checkpoint are: a system that needs the memory takes it back, and reads the
    file again. Whoever writes to it gets the part that is written to in memory, and the file stays. The file's space is
    free again when the tensor is gone.

    Returns:
        The tensor itself where there is no room for the file, it is not on a CPU, or the system cannot remove a file
        that is in use (Windows).
    """
    if tensor.device.type != "cpu" or os.name != "posix" or not tensor.numel():
        return tensor
    try:
        with tempfile.NamedTemporaryFile() as file:
            tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tofile(file)
            file.flush()
            found = torch.from_file(file.name, shared=False, size=tensor.numel(), dtype=tensor.dtype)
    except OSError:
        return tensor
    return found.view(tensor.shape)


__all__ = ["mapped"]
