"""peft's LoRA or QLoRA in transformers' Trainer, in a process of its own; of this project it uses only the counting."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch.utils.data import DataLoader
from transformers import BitsAndBytesConfig, Trainer, TrainerCallback, TrainingArguments

from mdpd_plugins.benchmark.process import serve
from mdpd_plugins.engine.tensor_meter import TensorMeter
from tools.compare.outside.measured import held, stored_bytes, tensors_within, write_outputs
from tools.compare.outside.prepared import MODEL, TRAINING, VALIDATION, read_about

RANK = 8  # as our baseline `lora` has it, and alpha = 2 r
# Checkpointing of PyTorch's newer kind, which transformers recommends; the older one needs inputs with gradients.
CHECKPOINTING = {"use_reentrant": False}
TIMED = 2  # steps of one timed cycle, after one that warms up


class FedTrainer(Trainer):
    """A Trainer that is given whole batches."""

    def __init__(self, batches: list[dict[str, Any]], **kwargs: Any):
        super().__init__(**kwargs)
        self.batches = batches

    def get_train_dataloader(self) -> DataLoader:
        """The batches, in their order."""
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]


class AroundSteps(TrainerCallback):
    """Calls one function before each step and another after it.

    Args:
        before: gets the number of the step, from 0 on, and the optimiser. after: gets the number.
    """

    def __init__(self, before: Callable[[int, Any], None], after: Callable[[int], None]):
        self.before, self.after = before, after

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        self.before(state.global_step, optimizer)

    def on_step_end(self, args, state, control, **kwargs):
        self.after(state.global_step - 1)


class Rival:
    """Answers "build", "train", "outputs", "held", "memory", "cycle"."""

    def build(self, folder: str, rival: str, device: str) -> dict[str, Any]:
        """The prepared model with peft's updates; answers its parameter counts and the bytes of all its weights.

        Args:
            folder: of `prepared.prepare`. rival: "lora" (query and value), "lora_all" (every linear layer), "qlora"
                (every linear layer, over weights of 4 bits).
        """
        self.about, self.device = read_about(Path(folder)), device
        transformers.set_seed(self.about["seed"])
        kind, options = getattr(transformers, self.about["kind"]), {}
        if rival == "qlora":
            # QLoRA's own choices (arXiv:2305.14314, sec. 3): 4-bit NormalFloat and double quantisation.
            own = transformers.AutoConfig.from_pretrained(Path(folder, MODEL)).dtype or torch.float32
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=own,
                llm_int8_skip_modules=self.about["head"],
            )
            options["device_map"] = {"": device}
        model = kind.from_pretrained(Path(folder, MODEL), dtype="auto", **options)
        if rival == "qlora":
            model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs=CHECKPOINTING)
        query_value = rival == "lora"
        lora = LoraConfig(
            r=RANK,
            lora_alpha=2 * RANK,
            target_modules=self.about["query_value"] if query_value else "all-linear",
            exclude_modules=None if query_value else self.about["head"],
            modules_to_save=self.about["head"],
        )
        self.model = get_peft_model(model, lora)
        self.training = torch.load(Path(folder, TRAINING), weights_only=True)
        self.validation = torch.load(Path(folder, VALIDATION), weights_only=True)
        named = dict(self.model.named_parameters())
        return {
            "trainable_parameters": sum(p.numel() for p in named.values() if p.requires_grad),
            "low_rank_parameters": sum(p.numel() for n, p in named.items() if ".lora_" in n),
            "low_rank_layers": sum(".lora_A." in n for n in named),
            "batch_size": len(self.training[0]["labels"]),
            "weight_bytes": stored_bytes(self._weights()),
        }

    def _weights(self) -> list[torch.Tensor]:
        parameters = list(self.model.parameters())
        states = [t for p in parameters for t in tensors_within(getattr(p, "quant_state", None))]
        return [*parameters, *self.model.buffers(), *states]

    def _run(self, batches: list[dict[str, Any]], rate: float, *callbacks: TrainerCallback) -> FedTrainer:
        """A Trainer that has taken one step on each batch."""
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                max_steps=len(batches),
                per_device_train_batch_size=len(batches[0]["labels"]),
                learning_rate=rate,
                weight_decay=self.about["decay"],
                lr_scheduler_type=self.about["schedule"],
                seed=self.about["seed"],
                gradient_checkpointing=True,
                gradient_checkpointing_kwargs=CHECKPOINTING,
                use_cpu=self.device == "cpu",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            trainer = FedTrainer(batches, model=self.model, args=arguments, callbacks=list(callbacks))
            trainer.train()
        return trainer

    def train(self) -> dict[str, Any]:
        """The whole run."""
        start = time.perf_counter()
        self._run(self.training, self.about["rate"])
        return {"train_seconds": time.perf_counter() - start}

    def outputs(self, file: str) -> dict[str, Any]:
        """What was learned, on the validation batches."""
        self.model.eval()
        seen = []
        with torch.no_grad():
            for batch in self.validation:
                moved = {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
                labels = moved.pop("labels")
                seen.append((self.model(**moved).logits, labels))
        return write_outputs(seen, file)

    def held(self) -> dict[str, Any]:
        """What the process held so far."""
        return held()

    def memory(self) -> dict[str, Any]:
        """Bytes of a step above the weights, as `measure_step` counts ours.

        Of two steps at a rate of zero the second is counted, because the first makes the optimiser's state.
        """
        state: list[torch.Tensor] = []
        meters: list[TensorMeter] = []

        def before(step: int, optimiser: Any) -> None:
            if step == 1:
                state.extend(t for s in optimiser.state.values() for t in s.values() if isinstance(t, torch.Tensor))
                meters.append(TensorMeter([*self._weights(), *state]))
                meters[0].__enter__()

        def after(step: int) -> None:
            if step == 1:
                meters[0].__exit__(None, None, None)

        self._run([self.training[0]] * 2, 0.0, AroundSteps(before, after))
        optimiser = sum(t.nbytes for t in state)
        return {"optimiser": optimiser, "transient": meters[0].peak, "total": optimiser + meters[0].peak}

    def cycle(self) -> dict[str, Any]:
        """Seconds per step, by the mean of a few."""
        starts, ends = [], []

        def now() -> float:
            if self.device == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter()

        around = AroundSteps(lambda *_: starts.append(now()), lambda *_: ends.append(now()))
        self._run([self.training[0]] * (1 + TIMED), 0.0, around)
        return {"seconds": sum(b - a for a, b in zip(starts[1:], ends[1:], strict=True)) / TIMED}


if __name__ == "__main__":
    serve(Rival())
