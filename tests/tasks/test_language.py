"""Next-token prediction: the loss is transformers' own, perplexity is over all tokens, distillation is KL a token."""

import math

import pytest
import torch
from language import blocks, decoder

from mdpd_plugins.engine import Settings
from mdpd_plugins.engine.logits_distillation import kl
from mdpd_plugins.tasks import Language, make_task
from mdpd_plugins.tasks.language import IGNORED


@pytest.mark.parametrize("key", ["gpt2", "llama"])
def test_loss_is_that_of_transformers(key):
    adapter = decoder(key)
    batch = blocks()
    labels = batch["labels"].clone()
    labels[0, 5:] = IGNORED
    logits = adapter.forward(batch["inputs"])
    theirs = adapter.model(**batch["inputs"], labels=labels).loss
    torch.testing.assert_close(Language().loss(logits, labels), theirs)


@pytest.mark.parametrize("taught_by", ["side", "mean"])
def test_gradients_of_the_losses_are_those_of_the_plain_formulas(taught_by):
    labels, task, settings = blocks(3, 6, 20)["labels"], Language(), Settings(teacher=taught_by, kl_temperature=3.0)
    teacher = torch.randn(3, 6, 20)
    ours, plain = (torch.randn(3, 6, 20, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    for logits in (ours, plain):
        logits.requires_grad_()
    (task.loss(ours, labels) + task.distillation(ours, teacher, labels, settings)).backward()
    rows = plain[:, :-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(rows, labels[:, 1:].flatten())
    taught = teacher if taught_by == "side" else (teacher + plain.detach()) / 2
    (loss + kl(rows, taught[:, :-1].flatten(0, 1), 3.0)).backward()
    torch.testing.assert_close(ours.grad, plain.grad)


def test_perplexity_is_over_all_tokens_and_not_over_samples():
    task, logits, labels = make_task("language", (), width=1), torch.randn(2, 5, 9), torch.randint(9, (2, 5))
    labels[1, 2:] = IGNORED  # four tokens count in the first sample, one in the second
    scores = task.scored(logits, labels)
    assert scores.shape == (2, 2) and scores[:, 1].tolist() == [4.0, 1.0]
    found = task.metrics(scores, labels)
    mean = float(task.loss(logits, labels))
    assert found["nll"] == pytest.approx(mean) and found["perplexity"] == pytest.approx(math.exp(mean))


def test_a_perplexity_beyond_all_numbers_is_infinite_and_a_diverged_one_is_not_a_number():
    assert Language().metrics(torch.tensor([[1e5, 1.0]]), torch.zeros(1, 2))["perplexity"] == math.inf
    assert math.isnan(Language().metrics(torch.tensor([[math.nan, 1.0]]), torch.zeros(1, 2))["perplexity"])


def test_samples_without_a_counted_token_teach_nothing():
    labels = torch.full((2, 4), IGNORED)
    logits = torch.randn(2, 4, 7)
    assert Language().loss(logits, labels) == 0
    assert Language().distillation(logits, torch.randn(2, 4, 7), labels, Settings()) == 0
