"""Label smoothing, class weights and shared labels: against their formulas, alone and in a run."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from running import image_folder, text_table, write_config
from small_zoo import batch_of, small, small_distiller

from mdpd_plugins.engine import Settings
from mdpd_plugins.engine.logits_distillation import nkd
from mdpd_plugins.registry import ConfigError, DataError
from mdpd_plugins.tasks import Prediction, balanced_weights, make_task
from mdpd_plugins.training import build_experiment, load_config

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 2, 0, 0])
WEIGHTS = [2.0, 1.0, 0.5]


def test_smoothing_spreads_a_share_of_the_label_over_all_classes():
    found = Prediction("single", "abc", label_smoothing=0.3).loss(LOGITS, LABELS)
    target = 0.7 * F.one_hot(LABELS, 3) + 0.1
    torch.testing.assert_close(found, -(target * LOGITS.log_softmax(1)).sum(1).mean())
    several = F.one_hot(LABELS, 3).float()
    found = Prediction("multi", "abc", label_smoothing=0.2).loss(LOGITS, several)
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(LOGITS, 0.8 * several + 0.1))


def test_weights_multiply_each_samples_loss_and_pieces_of_a_batch_add_up():
    task = Prediction("single", "abc", class_weights=WEIGHTS)
    each = F.cross_entropy(LOGITS, LABELS, reduction="none") * torch.tensor(WEIGHTS)[LABELS]
    torch.testing.assert_close(task.loss(LOGITS, LABELS), each.mean())
    pieces = sum(len(part) / 6 * task.loss(LOGITS[part], LABELS[part]) for part in (range(0, 4), range(4, 6)))
    torch.testing.assert_close(pieces, task.loss(LOGITS, LABELS))
    several = F.one_hot(LABELS, 3).float()
    wanted = (F.binary_cross_entropy_with_logits(LOGITS, several, reduction="none") * torch.tensor(WEIGHTS)).mean()
    torch.testing.assert_close(Prediction("multi", "abc", class_weights=WEIGHTS).loss(LOGITS, several), wanted)


def test_balanced_weights_let_every_class_count_alike():
    weights = balanced_weights(LABELS.tolist(), "abc")
    assert weights == pytest.approx([6 / (3 * 3), 6 / 3, 6 / (3 * 2)])
    with pytest.raises(ConfigError, match="there is none of d"):
        balanced_weights(LABELS.tolist(), "abcd")


def test_shared_labels_weigh_the_loss_and_the_distillation_by_their_shares():
    task, settings = Prediction("single", "abc"), Settings()
    teacher, one, other = LOGITS.flip(0), LABELS, LABELS.roll(1)
    shared = 0.7 * F.one_hot(one, 3) + 0.3 * F.one_hot(other, 3)
    task.check_labels(shared, 6)
    wanted = 0.7 * task.loss(LOGITS, one) + 0.3 * task.loss(LOGITS, other)
    torch.testing.assert_close(task.loss(LOGITS, shared), wanted)
    mean = (LOGITS + teacher) / 2
    wanted = sum(share * nkd(LOGITS, mean, y, 1.0, 1.0) for share, y in ((0.7, one), (0.3, other)))
    torch.testing.assert_close(task.distillation(LOGITS, teacher, shared, settings), wanted)
    for wrong in (shared * 2, shared[:, :2], shared - 1, shared.long()):
        with pytest.raises(DataError, match="shares of each class"):
            task.check_labels(wrong, 6)


def test_a_step_on_hard_labels_and_on_the_same_as_shares_is_the_same():
    ends = []
    for shared in (False, True):
        distiller, _ = small_distiller("hf-vit")
        batch = batch_of(distiller.adapter)
        labels = F.one_hot(batch["labels"], 5).float() if shared else batch["labels"]
        distiller.backward(batch["inputs"], labels)
        ends.append([p.grad.clone() for p in distiller.side_parameters() if p.grad is not None])
    assert len(ends[0]) > 10
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "float", "classes": (), "label_smoothing": 0.1}, "labels are numbers"),
        ({"kind": "pair", "classes": (), "class_weights": [1]}, "task.kind='pair' has none"),
        ({"kind": "language", "classes": (), "label_smoothing": 0.1}, "task.kind='language' has none"),
        ({"kind": "single", "classes": "abc", "class_weights": [1, 2]}, "3 numbers are needed"),
        ({"kind": "single", "classes": "abc", "class_weights": [1, 2, -1]}, "none below 0"),
        ({"kind": "single", "classes": "abc", "class_weights": [0, 0, 0]}, "one for each of a, b, c"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        make_task(width=8, **given)


def test_a_configuration_reaches_the_loss_and_the_picture_mixer(tmp_path):
    pictures = image_folder(tmp_path / "pictures")
    for extra in range(3):  # three more of one class
        (pictures / "dark" / f"x{extra}.png").write_bytes((pictures / "dark" / "00.png").read_bytes())
    given = {"task": {"label_smoothing": 0.1, "class_weights": "balanced"}, "data": {"mix": "cutmix"}}
    config = write_config(tmp_path, data_root=str(pictures), **given)
    experiment = build_experiment(load_config(config))
    weights = experiment.task.class_weights
    assert weights[1] < weights[0] and experiment.task.label_smoothing == 0.1
    assert experiment.distiller.mixing is not None
    plain = build_experiment(load_config(config, {"data.mix": "none", "task.class_weights": None}))
    assert plain.distiller.mixing is None and plain.task.class_weights is None


def test_mixing_texts_is_refused_and_weights_of_another_kind_too(tmp_path):
    source = {"type": "table", "path": str(text_table(tmp_path / "t.csv")), "text_column": "text"}
    config = write_config(tmp_path, "oc-text", data={"source": {**source, "label_column": "label"}})
    with pytest.raises(
        ConfigError, match="data.mix='mixup' mixes pictures with one label each, but this data is texts"
    ):
        build_experiment(load_config(config, {"data.mix": "mixup"}))
    with pytest.raises(ConfigError, match="task.class_weights='even': a list of numbers, 'balanced', or None"):
        build_experiment(load_config(config, {"task.class_weights": "even"}))


def test_dropout_of_the_side_network_acts_in_training_and_depends_on_seed_and_step_alone():
    def step(dropout, draws=0):
        distiller, _ = small_distiller(small("hf-vit"), side_dropout=dropout, recompute=True)
        with torch.no_grad():  # blocks begin as the identity, where there is nothing to drop
            for name, p in distiller.side.named_parameters():
                if name.endswith("weight") and not p.any():
                    p.fill_(0.1)
        torch.rand(draws)
        before = torch.random.get_rng_state()
        batch = batch_of(distiller.adapter)
        terms = distiller.backward(batch["inputs"], batch["labels"])
        assert torch.equal(before, torch.random.get_rng_state())
        distiller.eval()
        return terms["side/task"], distiller(batch["inputs"])["side"]

    (dropped, alone), (again, _), (whole, plain) = step(0.5), step(0.5, draws=7), step(0.0)
    assert torch.equal(dropped, again) and not torch.equal(dropped, whole)
    assert torch.equal(alone, plain)
