"""One of our methods in a process of its own: a benchmark's worker that also trains, and says what it learned."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch

from mdpd_plugins.benchmark.process import serve
from mdpd_plugins.benchmark.worker import Worker
from mdpd_plugins.training.running import build_runner, run_to_the_end
from mdpd_plugins.training.step_memory import weight_bytes
from tools.compare.outside.measured import held, write_outputs


class Ours(Worker):
    """Answers "build", "train", "outputs", "held", "memory", "cycle"."""

    def build(self, config: str, options: dict[str, Any], device: str) -> dict[str, Any]:
        """Build the method; answers its parameter counts and the bytes of the backbone's weights."""
        built = super().build(config, options, device)
        assert self.experiment is not None
        return {**built, "weight_bytes": weight_bytes(self.experiment)}

    def train(self) -> dict[str, Any]:
        """The whole run: all steps, one evaluation and one checkpoint at the end, as a run of the command is."""
        assert self.experiment is not None
        with tempfile.TemporaryDirectory() as folder:
            given = self.experiment.config
            given.work_dir = folder
            given.train.val_every = given.train.checkpoint_every = self.experiment.max_steps
            runner = build_runner(self.experiment, None)
            start = time.perf_counter()
            run_to_the_end(runner)
            return {"train_seconds": time.perf_counter() - start}

    def outputs(self, file: str) -> dict[str, Any]:
        """What is deployed, on the validation batches."""
        assert self.experiment is not None
        distiller, loader = self.experiment.distiller, self.experiment.val_loader
        path = "side" if distiller.settings.backbone_update == "none" else "backbone"
        distiller.eval()
        with torch.no_grad():
            seen = [
                (distiller.forward(batch["inputs"])[path], batch["labels"])
                for batch in (distiller.data_preprocessor(data, False) for data in loader)
            ]
        return write_outputs(seen, file)

    def held(self) -> dict[str, Any]:
        """What the process held so far."""
        return held()


if __name__ == "__main__":
    serve(Ours())
