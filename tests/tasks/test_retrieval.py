"""Retrieval: the contrastive loss, distillation between similarities, and recall."""

import math

import pytest
import torch
import torch.nn.functional as F

from mdpd_plugins.engine import Settings
from mdpd_plugins.tasks import Prediction, Retrieval, make_task

TASK = Retrieval(8)


def features(count: int, seed: int = 0, scale: float = 10.0, width: int = 8) -> torch.Tensor:
    drawn = F.normalize(torch.randn(count, 2, width, generator=torch.Generator().manual_seed(seed)), dim=2)
    return drawn * torch.tensor([scale, 1.0])[None, :, None]


def by_hand(found: torch.Tensor, labels: list[int]) -> float:
    """CLIP's loss, one term at a time, without the other members of an item."""
    count, total = len(labels), 0.0
    similar = [[float(found[i, 0] @ found[j, 1]) for j in range(count)] for i in range(count)]
    for i in range(count):
        rivals = [j for j in range(count) if j == i or labels[j] != labels[i]]
        total -= similar[i][i] - math.log(sum(math.exp(similar[i][j]) for j in rivals))
        total -= similar[i][i] - math.log(sum(math.exp(similar[j][i]) for j in rivals))
    return total / (2 * count)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 1], [7, 7, 7, 3, 3]])
def test_the_loss_is_clips_with_members_of_one_item_left_out(labels):
    found = features(5)
    assert float(TASK.loss(found, torch.tensor(labels))) == pytest.approx(by_hand(found, labels), rel=1e-5)


def test_a_batch_of_one_item_has_nothing_to_learn_from_and_no_bad_gradient():
    found = features(4).requires_grad_()
    loss = TASK.loss(found, torch.zeros(4, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(loss, found)
    assert float(loss.detach()) == 0 and not gradient.any()


def test_members_of_an_item_do_not_push_each_other_away():
    labels = torch.tensor([0, 0, 1])
    found = features(3)
    nearer = found.clone()
    nearer[1, 1] = found[0, 1]  # the second text of the item becomes the first one
    one, other = (f.clone().requires_grad_() for f in (found, nearer))
    for f in (one, other):
        TASK.loss(f, labels).backward()
    # The first picture's own gradient does not depend on the other text of its item.
    assert torch.equal(one.grad[0, 0], other.grad[0, 0])


def test_distillation_is_zero_between_equals_and_detaches_the_teacher():
    student, teacher = features(5).requires_grad_(), features(5, seed=1).requires_grad_()
    settings, labels = Settings(), torch.arange(5)
    assert float(TASK.distillation(student.detach(), student, labels, settings).detach()) == pytest.approx(0, abs=1e-6)
    loss = TASK.distillation(student, teacher, labels, settings)
    loss.backward()
    assert loss > 0 and student.grad.abs().max() > 0 and teacher.grad is None


def test_distillation_compares_rows_and_columns():
    student, teacher = features(4), features(4, seed=1)
    settings = Settings(teacher="side")
    t = settings.kl_temperature
    one, other = student[:, 0] @ student[:, 1].T, teacher[:, 0] @ teacher[:, 1].T
    total = 0.0
    for s, w in ((one, other), (one.T, other.T)):
        p, q = F.softmax(w / t, 1), F.softmax(s / t, 1)
        total += float((p * (p.log() - q.log())).sum(1).mean()) * t * t / 2
    found = TASK.distillation(student, teacher, torch.arange(4), settings)
    assert float(found) == pytest.approx(total, rel=1e-4)


def brute_force(found: torch.Tensor, items: list[int]) -> dict[str, float]:
    """Recall as COCO's and Flickr30k's protocols put it: one gallery entry a picture, one a caption."""
    similar = (found[:, 0].double() @ found[:, 1].double().T).tolist()
    count = len(items)
    recalls = {}
    for k in (1, 5, 10):
        hits = {"image_to_text": [], "text_to_image": []}
        for i in range(count):
            texts = sorted(range(count), key=lambda j, i=i: -similar[i][j])[:k]
            hits["image_to_text"].append(any(items[j] == items[i] for j in texts))
            best = {}
            for j in range(count):  # pictures of one item are one entry of the gallery
                best[items[j]] = max(best.get(items[j], -math.inf), similar[j][i])
            hits["text_to_image"].append(items[i] in sorted(best, key=lambda item: -best[item])[:k])
        for way, found_ in hits.items():
            recalls[f"{way}_recall_at_{k}"] = sum(found_) / count
        recalls[f"recall_at_{k}"] = sum(recalls[f"{way}_recall_at_{k}"] for way in hits) / 2
    return recalls


@pytest.mark.parametrize("items", [list(range(40)), [i // 5 for i in range(40)], [(i * i) % 17 for i in range(40)]])
@pytest.mark.parametrize("seed", [0, 1])
def test_recall_is_that_of_sorting_everything(items, seed):
    found = features(40, seed)
    if items == [i // 5 for i in range(40)]:  # five captions a picture, whose rows hold the same picture
        found[:, 0] = found[torch.tensor(items) * 5, 0]
    metrics = TASK.metrics(found, torch.tensor(items))
    expected = brute_force(found, items)
    assert metrics.keys() == expected.keys()
    assert metrics == pytest.approx(expected, abs=1e-9)
    assert 0 < metrics["recall_at_1"] < metrics["recall_at_10"] <= 1
    # Names of items mean nothing.
    assert TASK.metrics(found, torch.tensor([1000 - 3 * i for i in items])) == metrics


def test_a_perfect_model_recalls_everything_and_a_random_one_what_chance_gives():
    perfect = F.normalize(torch.randn(50, 1, 8, generator=torch.Generator().manual_seed(0)), dim=2).expand(-1, 2, -1)
    assert set(TASK.metrics(perfect, torch.arange(50)).values()) == {1.0}
    found = TASK.metrics(features(2000, width=32), torch.arange(2000))
    for k in (1, 5, 10):  # three standard deviations of 4,000 independent trials
        assert abs(found[f"recall_at_{k}"] - k / 2000) < 3 * math.sqrt(k / 2000 / 4000)


def test_a_kind_of_label_makes_its_task():
    task = make_task("pair", (), width=24)
    assert isinstance(task, Retrieval) and (task.num_outputs, task.main_metric) == (24, "recall_at_1")
    assert isinstance(make_task("single", ["a", "b"], width=24), Prediction)
