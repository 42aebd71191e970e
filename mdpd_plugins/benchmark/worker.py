"""One method of a benchmark in a process of its own (`process.serve`): "build", then "memory", "cycle", "inference"."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from mdpd_plugins.adapters.quantized import NONE
from mdpd_plugins.adapters.storage.precision import cast
from mdpd_plugins.benchmark.process import serve
from mdpd_plugins.engine import fade
from mdpd_plugins.engine.fading import timed
from mdpd_plugins.training.config import any_method, load_config
from mdpd_plugins.training.experiment import Experiment, build_experiment
from mdpd_plugins.training.step_memory import measure_step
from mdpd_plugins.training.towers import build_towers

INFERENCE_PAIRS = 3
INFERENCE_BATCH = 8  # latency is of a few samples, and a ratio needs no more


class Worker:
    """State between requests: the experiment and one fixed batch."""

    def __init__(self) -> None:
        self.experiment: Experiment | None = None
        self.batch: dict[str, Any] = {}

    def build(self, config: str, options: dict[str, Any], device: str) -> dict[str, Any]:
        """Build the method; answers its parameter counts."""
        experiment = build_experiment(any_method(load_config(config, options)))
        experiment.distiller.to(device)
        self.experiment = experiment
        self.batch = next(iter(experiment.train_loader))
        trainable = sum(p.numel() for p in experiment.distiller.trainable.values())
        side = sum(p.numel() for p in experiment.distiller.side_parameters())
        return {"trainable_parameters": trainable + side, "batch_size": len(self.batch["labels"])}

    def memory(self) -> dict[str, Any]:
        """Bytes of a step in which both phases take their turn (and PyTorch's own peak on a GPU)."""
        assert self.experiment is not None
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        held = measure_step(self.experiment, self.batch).as_dict()
        if torch.cuda.is_available():
            held["cuda_peak"] = torch.cuda.max_memory_allocated()
        return held

    def cycle(self) -> dict[str, Any]:
        """Seconds per step, averaged over one whole cycle of phases (a backbone step every k side steps)."""
        assert self.experiment is not None
        distiller, optim = self.experiment.distiller, self.experiment.optim
        steps = distiller.phases.cycle
        # Past the warm-up, at the start of a cycle.
        distiller.step.fill_(steps * (1 + self.experiment.max_steps // steps))
        seconds = timed(lambda: [distiller.train_step(self.batch, optim) for _ in range(steps)])
        return {"seconds": seconds / steps}

    def inference(self) -> dict[str, Any]:
        """Latency of what would be deployed over that of a freshly built plain backbone, the median of pairs."""
        assert self.experiment is not None
        experiment, config = self.experiment, self.experiment.config
        device = experiment.adapter.device
        inputs = {k: v[:INFERENCE_BATCH].to(device) for k, v in self.batch["inputs"].items()}
        distiller = experiment.distiller
        # What fades is quantised no more.
        held = {"quantization": NONE} if distiller.trainable else {}
        plain = build_towers(config, experiment.task, pretrained=None, **held)
        plain.model.to(device)
        # Ladder side-tuning deploys the backbone with its side network; everything else fades first.
        deployed: Callable[[], Any]
        if distiller.trainable:
            _, report = fade(distiller, inputs, repeats=1)
            keys_equal = report.keys_equal
            deployed = partial(experiment.adapter.forward, inputs)
        else:
            keys_equal = False
            deployed = partial(distiller.forward, inputs)
        if plain.dtype != experiment.adapter.dtype:  # what fades goes back to the checkpoint's type
            cast(plain.model, experiment.adapter.dtype)
        ratios = []
        with torch.no_grad():
            for _ in range(INFERENCE_PAIRS + 1):
                alone = timed(partial(plain.forward, inputs))
                ratios.append(timed(deployed) / alone)
        # The first pair warms caches up.
        spread = {"min": min(ratios[1:]), "max": max(ratios[1:])}
        ratio = statistics.median(ratios[1:])
        return {"inference_ratio_to_plain": ratio, "inference_ratio_spread": spread, "plain_state_dict": keys_equal}


if __name__ == "__main__":
    serve(Worker())
