"""A moving average of what trains (`train.ema`): evaluated, saved as weights, and exported in place of the last step's.

And the other half of the same promise: what was measured is what is exported, whatever hooks a user installs.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mdpd_plugins.engine import Distiller
from mdpd_plugins.engine.learned import held
from mdpd_plugins.registry.errors import ConfigError

RAW = "raw_weights"  # key of a checkpoint: what goes on training, where "state_dict" holds averages


class AverageHook(Hook):
    """Keeps an exponential moving average of both paths' trained parameters, by PyTorch's `swa_utils`.

    average = d average + (1 - d) weight after each optimiser step, with d = min(decay, (1 + n) / (10 + n)) after n
    batches: so that the beginning does not count for most of a short run (TensorFlow's ExponentialMovingAverage with
    num_updates). It begins as the weights before the first step. Training itself never sees it.

    During evaluations the averages stand in the model, from the end of the run on for good. A checkpoint's "state_dict"
    holds them too, so whoever reads one gets what was measured; a resume puts the raw weights back.

    Args:
        distiller: what trains. decay: of the average. accumulate: batches per optimiser step.
    """

    # After the hook that saves the best evaluation's weights, before the one that writes checkpoints.
    priority = 80

    def __init__(self, distiller: Distiller, decay: float, accumulate: int):
        self.distiller, self.decay, self.accumulate = distiller, decay, accumulate
        trained = {id(p) for own in distiller.trained_by_path().values() for p in own}
        self.keys: dict[int, list[str]] = {}  # id of a parameter -> its keys, of which a tied one has several
        for key, p in distiller.named_parameters(remove_duplicate=False):
            if id(p) in trained:
                self.keys.setdefault(id(p), []).append(key)
        for key, p in held(distiller).items():  # as a checkpoint calls what trains in a backbone
            if id(p) in trained and key not in self.keys[id(p)]:
                self.keys[id(p)].append(key)
        self.parameters: list[nn.Parameter] = [p for p in distiller.parameters() if id(p) in self.keys]
        self.averages: list[torch.Tensor] = []
        self.swapped = self.at_the_end = False

    def before_run(self, runner) -> None:
        """Begin as the weights, which are where they will train by now."""
        self.averages = [p.detach().clone() for p in self.parameters]

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count what the step made of the weights."""
        done = int(self.distiller.step)
        if done % self.accumulate and done < self.distiller.max_steps:
            return
        update = get_ema_multi_avg_fn(min(self.decay, (1 + done) / (10 + done)))
        update(self.averages, [p.detach() for p in self.parameters], done)

    def before_val_epoch(self, runner) -> None:
        """Evaluate the averages."""
        if not self.at_the_end:
            self._swap()

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Go on training the weights."""
        if not self.at_the_end:
            self._swap()

    def after_run(self, runner) -> None:
        """What is faded and exported are the averages."""
        self._swap()
        self.at_the_end = True

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Averages as the checkpoint's weights, raw ones beside them, also in the midst of an evaluation."""
        state, raw = checkpoint["state_dict"], {}
        for p, other in zip(self.parameters, self.averages, strict=True):
            for key in (k for k in self.keys[id(p)] if k in state):
                raw[key] = state[key]
                state[key] = other.detach().cpu().clone()
        if self.swapped:
            raw, averages = {key: state[key] for key in raw}, raw
            state.update(averages)
        checkpoint[RAW] = raw

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """The other way round."""
        state = checkpoint["state_dict"]
        for p, average in zip(self.parameters, self.averages, strict=True):
            for key in (k for k in self.keys[id(p)] if k in state):
                average.copy_(state[key])
                state[key] = checkpoint[RAW][key]

    @torch.no_grad()
    def _swap(self) -> None:
        self.swapped = not self.swapped
        for p, average in zip(self.parameters, self.averages, strict=True):
            kept = p.detach().clone()
            p.copy_(average)
            average.copy_(kept)
        self.distiller.masters.publish()


class MeasuredHook(Hook):
    """Remembers which weights an evaluation measured, before any hook puts others in their place."""

    priority = "HIGHEST"

    def __init__(self, distiller: Distiller):
        self.distiller = distiller
        self.measured: list[float] = []

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Look at the weights that were just evaluated."""
        self.measured = fingerprint(self.distiller)


@torch.no_grad()
def fingerprint(distiller: Distiller) -> list[float]:
    """Two sums over each trained parameter: others than before when the weights are others."""
    trained = (p.detach().double() for own in distiller.trained_by_path().values() for p in own)  # one at a time
    sums = [s for p in trained for s in (p.sum(), p.square().sum())]
    return torch.stack(sums).tolist() if sums else []


def check_hooks(config: Config) -> None:
    """Refuse a hook whose averages would be measured while the plain weights are exported.

    Raises:
        ConfigError: mmengine's EMAHook, or one made of it, among the custom hooks.
    """
    for hook in config.custom_hooks:
        name = hook.get("type") if isinstance(hook, dict) else type(hook)
        kind = HOOKS.get(name) if isinstance(name, str) else name
        if isinstance(kind, type) and issubclass(kind, EMAHook):
            raise ConfigError(
                f"custom_hooks has {kind.__name__}: its averages would be measured, and the plain weights exported. "
                f"Remove it, and set train.ema=0.999 for an average that is measured and exported"
            )


__all__ = ["RAW", "AverageHook", "MeasuredHook", "check_hooks", "fingerprint"]
