"""Frozen weights that several processes share out, block by block: PyTorch's FSDP2 (`fully_shard`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_dist_info, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from mdpd_plugins.adapters.inspection.recompute import patched_forward
from mdpd_plugins.engine import Distiller
from mdpd_plugins.engine.learned import fingerprint, learned
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.training.model import RunnerModel


def shared_out(distiller: Distiller) -> list[nn.Parameter]:
    """What `shard` shares out: the frozen parameters of the backbone's blocks.

    Raises:
        ConfigError: there are none.
    """
    trained = {id(p) for p in distiller.trainable.values()}
    frozen = [p for block in distiller.adapter.blocks() for p in block.parameters() if id(p) not in trained]
    if not frozen:
        raise ConfigError(
            "parallel.shard shares out frozen weights, but this method trains every weight of the blocks: choose "
            "another distill.method, or remove parallel.shard"
        )
    return frozen


def place(distiller: RunnerModel, device: str) -> None:
    """Move everything but what will be shared out, which may not fit there."""
    waiting = {id(p) for p in shared_out(distiller)}
    distiller._set_device(torch.device(device))  # type: ignore[operator]  # mmengine's
    distiller._apply(lambda t: t if id(t) in waiting else t.to(device))


def shard(distiller: Distiller, device: str) -> None:
    """Leave each process its part of every block's frozen weights; a block is put together only while it runs.

    What trains is ignored by FSDP and stays whole in every process, so optimisers, gradient averaging and
    checkpoints are what they are without sharding.
    """
    shared_out(distiller)
    if not distiller.adapter.random:
        fingerprint(distiller)  # as long as each process has all of it
    mesh = init_device_mesh(torch.device(device).type, (get_dist_info()[1],))
    trained = set(distiller.trainable.values())
    for block in distiller.adapter.blocks():
        fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=trained)


def whole_state(module: Distiller) -> dict[str, torch.Tensor]:
    """What was learned (`engine.learned`) as if nothing were shared out, on the CPU.

    Every process must ask; only the first gets it.
    """
    state = learned(module)
    for name, tensor in list(state.items()):
        # One by one: all of them may not fit on one device.
        tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if is_main_process():
            state[name] = tensor.detach().cpu()
        else:
            del state[name]
    return state


@contextmanager
def whole(module: Distiller) -> Iterator[None]:
    """Inside, `module.state_dict()` is what a checkpoint holds (`whole_state`). Every process must enter."""
    state = whole_state(module)
    module.__dict__["state_dict"] = lambda *args, **kwargs: state
    try:
        yield
    finally:
        del module.__dict__["state_dict"]


class WeightWatch:
    """Bytes of the backbone's weights that this process holds at once: its parts, and blocks put together.

    Attributes:
        whole: bytes of all weights. peak: the most that were held, seen whenever a block ran.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.whole = sum(p.numel() * p.element_size() for p in model.parameters())
        self.parts = sum(p.to_local().nbytes for p in model.parameters() if isinstance(p, DTensor))
        self.peak = 0

    def wrap(self, _: int, forward):
        """For `patched_forward`: look before each forward of a block, a recomputation's too."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            together = sum(p.nbytes for p in self.model.parameters() if not isinstance(p, DTensor))
            self.peak = max(self.peak, self.parts + together)
            return forward(*args, **kwargs)

        return watched


class ShardHook(Hook):
    """Shards after a checkpoint has been loaded, and watches the first cycle of phases."""

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self.watch: WeightWatch | None = None
        self.watching = ExitStack()
        self.until = 0

    def before_train(self, runner) -> None:
        """Share the frozen weights out."""
        from mmengine.device import get_device

        distiller = runner.model
        shard(distiller, get_device())
        self.watch = WeightWatch(distiller.backbone)
        self.watching.enter_context(patched_forward(distiller.adapter.blocks(), self.watch.wrap))
        self.until = int(distiller.step) + distiller.phases.cycle

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop watching when both phases have had their turn."""
        if int(runner.model.step) >= self.until:
            self.watching.close()

    def after_train(self, runner) -> None:
        """Stop watching a run that is shorter than a cycle."""
        self.watching.close()


def weights_held(runner: Runner) -> dict[str, Any]:
    """Bytes of the backbone's weights, and the most that each process held of them. Every process must ask."""
    watches = [hook.watch for hook in runner.hooks if isinstance(hook, ShardHook) and hook.watch is not None]
    return {"weights": watches[0].whole, "weights_peak_by_process": all_gather_object(watches[0].peak)}


__all__ = [
    "ShardHook",
    "WeightWatch",
    "place",
    "shard",
    "shared_out",
    "weights_held",
    "whole",
    "whole_state",
]
