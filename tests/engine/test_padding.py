"""Padding and prefix tokens: their content changes no loss, no gradient and no weight, bit for bit."""

import pytest
import small_zoo
import torch


def with_other_padding(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same texts with other, varied token ids where the mask says nothing is."""
    padding = inputs["attention_mask"] == 0
    generator = torch.Generator().manual_seed(9)
    ids = torch.randint(200, 900, inputs["input_ids"].shape, generator=generator)
    assert padding.any(1).all()
    return {**inputs, "input_ids": torch.where(padding, ids, inputs["input_ids"])}


MODES = [
    {},
    {"norm_gradient": "local", "shallow": [0, 1], "deep": []},
    {"norm_gradient": "last_k", "last_k": 1},
    {"shallow": "auto", "deep": "auto", "auto_batches": 1},
    {"method": "full"},
]


@pytest.mark.parametrize("settings", MODES, ids=["exact", "local", "last_k", "auto", "full"])
@pytest.mark.parametrize("key", small_zoo.TEXT)
def test_the_content_of_padding_changes_no_loss_of_a_training_step_and_no_weight(key, settings):
    plain, plain_optim = small_zoo.small_distiller(key, **settings)
    other, other_optim = small_zoo.small_distiller(key, **settings)
    for seed in range(2):
        batch = small_zoo.batch_of(plain.adapter, seed=seed)
        changed = {**batch, "inputs": with_other_padding(batch["inputs"])}
        assert not torch.equal(changed["inputs"]["input_ids"], batch["inputs"]["input_ids"])
        logs, found = plain.train_step(batch, plain_optim), other.train_step(changed, other_optim)
        assert logs.keys() == found.keys()
        assert not [k for k in logs if not torch.equal(logs[k], found[k])]
    assert not small_zoo.changed(small_zoo.snapshot(plain), other)


@pytest.mark.parametrize("key", small_zoo.TEXT)
def test_the_content_of_padding_changes_no_prediction_of_either_path(key):
    distiller, _ = small_zoo.small_distiller(key)
    inputs = small_zoo.inputs_of(distiller.adapter)
    found, other = distiller(inputs), distiller(with_other_padding(inputs))
    assert found.keys() == {"backbone", "side"}
    assert all(torch.equal(found[path], other[path]) for path in found)


def test_how_far_texts_are_padded_changes_no_loss():
    distiller, optim = small_zoo.small_distiller("hf-minilm")
    batch = small_zoo.batch_of(distiller.adapter)
    logs = distiller.train_step(batch, optim)
    distiller, optim = small_zoo.small_distiller("hf-minilm")
    longer = {k: torch.nn.functional.pad(v, (0, 5)) for k, v in batch["inputs"].items()}
    found = distiller.train_step({**batch, "inputs": longer}, optim)
    for key, value in logs.items():  # sums of another length round differently
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("key", small_zoo.TEXT)
def test_what_is_not_padding_is_heard(key):
    distiller, optim = small_zoo.small_distiller(key, backbone_every=4)
    batch = small_zoo.batch_of(distiller.adapter)
    logs = distiller.train_step(batch, optim)
    distiller, optim = small_zoo.small_distiller(key, backbone_every=4)
    batch["inputs"]["input_ids"][:, 1] += 1
    changed = distiller.train_step(batch, optim)
    assert not [k for k in logs if torch.equal(logs[k], changed[k])]


def test_prefix_tokens_of_the_backbone_carry_no_feature_loss():
    distiller, _ = small_zoo.small_distiller("mm-deit")
    adapter, features = distiller.adapter, distiller.features
    with torch.no_grad(), adapter.capture() as seen:
        adapter.forward(small_zoo.inputs_of(adapter))
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(4, 18, distiller.side.ladders[0].width, generator=generator)
    layout = seen.layouts[2]
    assert layout.prefix == 2

    def losses(state, hidden):
        draws = torch.Generator().manual_seed(1)
        return (
            features.imitation(0, state, hidden, layout, None),
            features.generation(2, state, hidden, layout, None, draws),
        )

    for tensor in (state, seen.hidden[2]):
        changed = tensor.clone()
        changed[:, :2] = torch.randn(4, 2, tensor.shape[-1], generator=generator)
        pair = (changed, seen.hidden[2]) if tensor is state else (state, changed)
        for before, after in zip(losses(state, seen.hidden[2]), losses(*pair), strict=True):
            assert torch.equal(before, after)
