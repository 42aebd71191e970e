"""transformers' Trainer over a distillation: arguments, callbacks, data sets, evaluation and resume as a Trainer's."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback, TrainingArguments

import mdpd_plugins as mdpd
from mdpd_plugins.integrations.transformers import STUDENT_FILE, DistillTrainer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SETTINGS = {"reduction": 4, "bottleneck": 8}


def model() -> BertForSequenceClassification:
    torch.manual_seed(3)
    return BertForSequenceClassification(BertConfig(**SIZES, vocab_size=60, num_labels=2))


def data(count: int = 24) -> Dataset:
    """Texts of six tokens; the label says whether their first token is below 30."""
    ids = torch.randint(5, 60, (count, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    labels = (ids[:, 0] < 30).long()
    return Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": mask.tolist(), "labels": labels.tolist()})


class Seen(TrainerCallback):
    def __init__(self):
        self.losses, self.stops_at = [], 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.losses += [logs["loss"]] if "loss" in logs else []

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.stops_at:
            control.should_training_stop = control.should_save = True


def trainer(folder, *, stops_at: int = 0, **arguments) -> tuple[DistillTrainer, Seen]:
    seen = Seen()
    seen.stops_at = stops_at
    defaults = {"max_steps": 6, "per_device_train_batch_size": 4, "logging_steps": 1, "report_to": "none"}
    args = TrainingArguments(str(folder), **{**defaults, "use_cpu": True, "disable_tqdm": True, **arguments})
    accuracy = {"compute_metrics": lambda p: {"accuracy": float((p.predictions.argmax(1) == p.label_ids).mean())}}
    made = DistillTrainer(
        model(),
        args,
        settings=SETTINGS,
        train_dataset=data(),
        eval_dataset=data(8),
        callbacks=[seen],
        **accuracy,
    )
    return made, seen


def test_a_run_ends_with_the_plain_model_that_came_in(tmp_path):
    made, seen = trainer(tmp_path, gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=3)
    came_in, before = made.model, {k: v.clone() for k, v in made.model.state_dict().items()}
    made.train()
    assert made.model is came_in and made.student is None
    assert made.model.state_dict().keys() == before.keys() and made.fading.merged
    assert any(not torch.equal(v, before[k]) for k, v in made.model.state_dict().items())
    assert len(seen.losses) == 6 and all(torch.isfinite(torch.tensor(seen.losses)))
    assert [log["eval_accuracy"] for log in made.state.log_history if "eval_accuracy" in log]
    made.save_model(str(tmp_path / "plain"))
    again = BertForSequenceClassification.from_pretrained(tmp_path / "plain")
    ids = torch.tensor(data(8)["input_ids"])
    with torch.no_grad():
        assert torch.equal(again.eval()(ids).logits, made.model.eval()(ids).logits)
    assert made.predict(data(8)).predictions.shape == (8, 2)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    whole, _ = trainer(tmp_path / "whole")
    whole.train()
    first, _ = trainer(tmp_path / "parts", stops_at=3)
    first.train()
    assert (tmp_path / "parts" / "checkpoint-3" / STUDENT_FILE).is_file()
    rest, _ = trainer(tmp_path / "parts")
    rest.train(resume_from_checkpoint=True)
    found, wanted = rest.model.state_dict(), whole.model.state_dict()
    assert not [k for k in wanted if not torch.equal(found[k], wanted[k])]


def test_the_best_checkpoint_is_what_is_faded(tmp_path):
    every = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    made, _ = trainer(tmp_path, **every, load_best_model_at_end=True, metric_for_best_model="eval_loss")
    made.train()
    best = min(log["eval_loss"] for log in made.state.log_history if "eval_loss" in log)
    assert made.evaluate()["eval_loss"] == pytest.approx(best, abs=1e-6)


def test_a_checkpoint_of_another_training_is_refused_by_name(tmp_path):
    made, _ = trainer(tmp_path, stops_at=2)
    made.train()
    other, _ = trainer(tmp_path)
    other._recipe["reduction"] = 8
    with pytest.raises(mdpd.MDPDError, match=f"{STUDENT_FILE}.*is no checkpoint of this training"):
        other.train(resume_from_checkpoint=True)


def test_a_batch_without_labels_is_an_error_that_says_so(tmp_path):
    made, _ = trainer(tmp_path)
    made.train_dataset = made.train_dataset.remove_columns("labels")
    with pytest.raises(mdpd.MDPDError, match="has no labels: it holds input_ids, attention_mask"):
        made.train()


def test_the_arguments_label_smoothing_and_class_weights_reach_the_loss(tmp_path):
    losses = []
    for folder, smoothing in (("plain", 0.0), ("smooth", 0.4)):
        made, seen = trainer(tmp_path / folder, label_smoothing_factor=smoothing, max_steps=1)
        made.train()
        losses.append(seen.losses[0])
    assert losses[0] != losses[1]
    weighted = DistillTrainer(
        model(), made.args, class_weights=[1.0, 3.0], settings=SETTINGS, train_dataset=data(), callbacks=[Seen()]
    )
    weighted.train()
    assert weighted.state.log_history[0]["loss"] not in losses


class Published(TrainerCallback):
    """Whether the model that the Trainer would evaluate holds what the optimiser made of it."""

    def __init__(self):
        self.found, self.trainer = [], None

    def on_step_end(self, args, state, control, **kwargs):
        pairs = list(self.trainer.student.masters.pairs())
        self.found.append(bool(pairs) and all(torch.equal(p, m.to(p.dtype)) for p, m in pairs))


def test_a_narrow_model_is_evaluated_as_its_last_step_left_it_and_stays_in_its_type(tmp_path):
    args = TrainingArguments(
        str(tmp_path), max_steps=3, per_device_train_batch_size=4, report_to="none", use_cpu=True, disable_tqdm=True
    )
    seen = Published()
    made = DistillTrainer(
        model().to(torch.bfloat16), args, settings=SETTINGS, train_dataset=data(), callbacks=[seen], rates={"scale": 10}
    )
    seen.trainer = made
    made.train()
    assert seen.found == [True] * 3
    assert {p.dtype for p in made.model.parameters()} == {torch.bfloat16} and made.fading.exported_in == "bfloat16"
