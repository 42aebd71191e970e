"""Several processes: joining them before anything is built, because data and losses ask who they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import init_dist, is_distributed

from mdpd_plugins.registry.errors import ConfigError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def joined(launcher: str) -> Iterator[None]:
    """Inside, this process is one of those that `launcher` started; "none" does nothing.

    Raises:
        ConfigError: the launcher did not start this process.
    """
    if launcher == "none" or is_distributed():
        yield
        return
    missing = [v for v in TORCHRUN if v not in os.environ]
    if launcher == "pytorch" and missing:
        raise ConfigError(
            f"--launcher pytorch reads {', '.join(missing)} from the environment, where torchrun puts them: "
            f"torchrun --nproc-per-node 2 tools/train.py CONFIG --launcher pytorch"
        )
    if torch.cuda.is_available():
        init_dist(launcher, backend="nccl")
    elif launcher == "pytorch":
        # mmengine's own initialisation chooses a CUDA device first.
        torch.distributed.init_process_group("gloo")
    else:
        raise ConfigError(f"--launcher {launcher} needs GPUs; on CPUs use torchrun with --launcher pytorch")
    yield
    # Not after an error: the other processes may be waiting in a collective, and this one is about to end.
    torch.distributed.destroy_process_group()


__all__ = ["joined"]
