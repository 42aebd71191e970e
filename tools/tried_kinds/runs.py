"""Whole runs: resuming, the best evaluation, processes that read data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from running import forget, image_folder, main, same, trained, weights, write_config
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from mdpd_plugins.integrations.transformers import DistillTrainer
from mdpd_plugins.training import build_experiment, load_config
from tools.tried_kinds.case import case

_BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def _trainer(folder: Path, **arguments: Any) -> DistillTrainer:
    ids = torch.randint(5, 60, (24, 6), generator=torch.Generator().manual_seed(1))
    labels = (ids[:, 0] < 30).long().tolist()
    rows = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": [[1] * 6] * 24, "labels": labels})
    torch.manual_seed(3)
    model = BertForSequenceClassification(BertConfig(**_BERT, vocab_size=60, num_labels=2))
    quiet = {"report_to": "none", "use_cpu": True, "disable_tqdm": True}
    args = TrainingArguments(str(folder), **{"per_device_train_batch_size": 4, "max_steps": 6, **quiet, **arguments})
    settings = {"reduction": 4, "bottleneck": 8, "backbone_every": 1}
    return DistillTrainer(
        model, args, settings=settings, rates={"scale": 10.0}, train_dataset=rows, eval_dataset=rows.select(range(8))
    )


@case(
    "The best evaluation is asked for at the end, and the last weights are kept.",
    "transformers 28539",
    "the model at the end has the least loss of all evaluations",
)
def the_best_at_the_end(folder: Path) -> str:
    every = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = _trainer(folder, load_best_model_at_end=True, **every)
    trainer.train()
    losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    last = trainer.evaluate()["eval_loss"]
    if losses[-1] == min(losses):
        return f"the last evaluation was the best, so this shows nothing: {losses}"
    right = abs(last - min(losses)) <= 1e-4 * min(losses)
    return "the model at the end has the least loss of all evaluations" if right else f"{last} of {losses}"


@case(
    "A stopped run goes on with another batch size, and its number of steps is worked out from the old one.",
    "transformers 43708",
    "six steps in all, and the new batch size is said",
)
def another_batch_size(folder: Path) -> str:
    config = write_config(folder, train={"max_steps": 6, "checkpoint_every": 2})
    trained(config, folder / "run")
    forget(folder / "run", 6)
    status = main([config, "--work-dir", folder / "run", "--resume", "--cfg-options", "data.batch_size=4"])
    record = json.loads((folder / "run" / "run.json").read_text())
    said = "batch_size" in json.dumps(record.get("resumed", ""))
    ended = (folder / "run" / "iter_6.pth").exists()
    return "six steps in all, and the new batch size is said" if status == 0 and said and ended else f"{status}, {said}"


@case(
    "Each process that reads data draws the same random numbers.",
    "torch 5059",
    "batches are those that are read without such processes, bit for bit, and no two crops are alike",
)
def processes_that_read(folder: Path) -> str:
    root = image_folder(folder / "pictures", classes=("bright", "dark"))
    found = []
    for workers in (0, 2):
        data = {"source": {"type": "image_folder", "root": str(root)}, "num_workers": workers, "batch_size": 4}
        experiment = build_experiment(
            load_config(write_config(folder / str(workers), data={**data, "augment": "crop"}))
        )
        found.append([batch["inputs"]["image"] for batch, _ in zip(experiment.train_loader, range(4), strict=False)])
    pictures = torch.cat(found[0])
    alike = len({picture.numpy().tobytes() for picture in pictures}) < len(pictures)
    if alike or not all(torch.equal(a, b) for a, b in zip(*found, strict=True)):
        return f"two alike: {alike}"
    return "batches are those that are read without such processes, bit for bit, and no two crops are alike"


@case(
    "A run that is resumed within an epoch reads its beginning again.",
    "transformers 25956",
    "the weights are those of a run that nobody stopped, bit for bit",
)
def resumed_within_an_epoch(folder: Path) -> str:
    config = write_config(folder, train={"max_steps": 4, "checkpoint_every": 1})
    trained(config, folder / "whole")
    trained(config, folder / "stopped")
    forget(folder / "stopped", 4)
    main([config, "--work-dir", folder / "stopped", "--resume"])
    equal = same(weights(folder / "stopped", 4), weights(folder / "whole", 4))
    return "the weights are those of a run that nobody stopped, bit for bit" if equal else "others"
