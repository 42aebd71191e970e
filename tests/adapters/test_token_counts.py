"""Layers with another number of tokens than the text: masks follow, and latents have none."""

import pytest
import small_zoo
import torch

from mdpd_plugins.adapters import Adapter, build_backbone
from mdpd_plugins.adapters.inspection.layout import (
    Layout,
    fit_mask,
    with_first_tensor,
)
from mdpd_plugins.registry import CapabilityError

CANINE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
CANINE |= {"num_hash_buckets": 64, "max_position_embeddings": 128}
PERCEIVER = {"d_model": 32, "d_latents": 32, "num_latents": 24, "num_self_attends_per_block": 2}
PERCEIVER |= {"num_self_attention_heads": 4, "num_cross_attention_heads": 4, "head": "text"}


def build(name: str, **options) -> Adapter:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_backbone(f"huggingface/{name}", pretrained=None, num_classes=5, **options)


MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0, 0]]).bool()


def test_a_mask_of_the_right_length_is_used_as_it_is():
    assert fit_mask(MASK, 8) is MASK
    assert fit_mask(None, 4) is None


def test_a_pooled_token_is_real_if_one_of_those_it_holds_is():
    assert fit_mask(MASK, 4).tolist() == [[True] * 4, [True, True, True, False]]
    assert fit_mask(MASK, 2).tolist() == [[True, True], [True, True]]


def test_tokens_that_the_model_put_behind_the_text_do_not_count():
    assert fit_mask(MASK, 10).tolist() == [[*row, False, False] for row in MASK.tolist()]


@pytest.mark.parametrize("norm_gradient", ["exact", "local"])
def test_a_text_model_that_pools_its_characters_is_distilled(norm_gradient):
    adapter = build("canine", **CANINE)
    with torch.no_grad(), adapter.capture() as seen:
        adapter.forward(adapter.example_inputs())
    assert {h.shape[1] for h in seen.hidden.values()} == {4, 16}
    settings = {"reduction": 4, "shallow": [0, 1], "deep": [-1], "norm_gradient": norm_gradient}
    distiller, optim = small_zoo.small_distiller(adapter, **settings)
    batch = {"inputs": adapter.example_inputs(4), "labels": small_zoo.labels_of(4)}
    losses = [float(distiller.train_step(batch, optim)["side/task"]) for _ in range(4)]
    assert losses[-1] < losses[0]


def test_blocks_that_start_from_latents_have_no_padding():
    adapter = build("perceiver", **PERCEIVER)
    inputs = adapter.example_inputs()
    assert not inputs["attention_mask"].all()
    assert adapter.attention_mask(inputs) is None
    assert build("canine", **CANINE).attention_mask(inputs).equal(inputs["attention_mask"].bool())


def test_a_hidden_state_in_a_mapping_is_replaced_in_a_copy():
    before = {"count": 3, "feature_map": torch.zeros(2), "scores": torch.ones(2)}
    after = with_first_tensor(before, torch.full((2,), 5.0))
    assert after["feature_map"].tolist() == [5, 5]
    assert after["scores"] is before["scores"]
    assert before["feature_map"].tolist() == [0, 0]
    with pytest.raises(CapabilityError, match="str"):
        with_first_tensor("nothing", torch.zeros(2))


def test_several_states_of_a_token_are_real_as_it_is():
    valid = torch.tensor([[True, True, False]])
    streams = fit_mask(valid, 6, Layout(0, (3, 2)))
    assert streams is not None and streams.tolist() == [[True, True, True, True, False, False]]
