"""Attention maps against references that the frameworks, or the formula, give."""

import copy

import pytest
import small_zoo
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from mdpd_plugins.adapters.inspection.attention import sdpa_weights
from mdpd_plugins.registry import CapabilityError


def captured(adapter, inputs):
    with torch.no_grad(), adapter.capture(attention=True) as seen:
        adapter.forward(inputs)
    return seen.attention


@pytest.mark.parametrize("key", small_zoo.GLOBAL_ATTENTION)
def test_rows_sum_to_one_over_all_tokens(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad():
        tokens = adapter.forward_features(inputs).shape[1]
    attention = captured(adapter, inputs)
    assert len(attention) == len(adapter.blocks())
    for weights in attention.values():
        assert weights.shape == (4, 4, tokens, tokens)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(4, 4, tokens), atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", ["hf-vit", "hf-deit", "hf-dinov2", "hf-minilm"])
def test_maps_agree_with_transformers_eager_attention(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    assert adapter.config._attn_implementation == "sdpa"
    config = copy.deepcopy(adapter.config)
    config._attn_implementation = "eager"
    auto = AutoModelForSequenceClassification if adapter.modality == "text" else AutoModelForImageClassification
    eager = auto.from_config(config, attn_implementation="eager").eval()
    eager.load_state_dict(adapter.model.state_dict())
    given = inputs if adapter.modality == "text" else {"pixel_values": inputs["image"]}
    with torch.no_grad():
        reference = eager(**given, output_attentions=True).attentions
    attention = captured(adapter, inputs)
    assert len(reference) == len(attention) == 3
    for i, expected in enumerate(reference):
        torch.testing.assert_close(attention[i], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", ["hf-vit", "hf-minilm"])
def test_maps_are_the_same_whatever_implementation_the_model_uses(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    sdpa = captured(adapter, inputs)
    adapter.model.set_attn_implementation("eager")
    eager = captured(adapter, inputs)
    assert adapter.config._attn_implementation == "eager"
    for i, expected in sdpa.items():
        torch.testing.assert_close(eager[i], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", ["mm-vit", "mm-deit"])
def test_maps_agree_with_a_softmax_of_mmpretrains_own_queries_and_keys(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    projected = []
    handles = [
        block.attn.qkv.register_forward_hook(lambda m, a, output: projected.append(output))
        for block in adapter.blocks()
    ]
    attention = captured(adapter, inputs)
    for handle in handles:
        handle.remove()
    assert len(projected) == 3
    for i, qkv in enumerate(projected):
        b, t, _ = qkv.shape
        q, k, _ = qkv.view(b, t, 3, 4, 8).permute(2, 0, 3, 1, 4).double()
        expected = torch.softmax(q @ k.transpose(-2, -1) / 8**0.5, -1).float()
        torch.testing.assert_close(attention[i], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", ["oc-image", "oc-text"])
def test_maps_agree_with_those_multihead_attention_returns(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    calls = []

    def record(module, args, kwargs):
        calls.append((module, args, {**kwargs, "need_weights": True, "average_attn_weights": False}))

    layers = [m for b in adapter.blocks() for m in b.modules() if isinstance(m, nn.MultiheadAttention)]
    handles = [m.register_forward_pre_hook(record, with_kwargs=True) for m in layers]
    attention = captured(adapter, inputs)
    for handle in handles:
        handle.remove()
    assert len(calls) == len(adapter.blocks())
    for i, (module, args, kwargs) in enumerate(calls):
        with torch.no_grad():
            expected = module(*args, **kwargs)[1]
        torch.testing.assert_close(attention[i], expected, atol=1e-5, rtol=0)


def test_no_weight_falls_on_padding():
    adapter = small_zoo.small("hf-minilm")
    inputs = small_zoo.inputs_of(adapter)
    padding = inputs["attention_mask"] == 0
    assert padding.any()
    for weights in captured(adapter, inputs).values():
        on_padding = weights.masked_select(padding[:, None, None, :])
        assert on_padding.numel() and not on_padding.any()


def test_a_clip_text_sees_only_what_comes_before_so_never_its_padding():
    adapter = small_zoo.small("oc-text")
    inputs = small_zoo.inputs_of(adapter)
    real = inputs["attention_mask"].bool()
    assert not real.all()
    for weights in captured(adapter, inputs).values():
        assert not weights.triu(1).any()
        rows = weights.masked_select((real[:, :, None] & ~real[:, None, :])[:, None])
        assert rows.numel() and not rows.any()


@pytest.mark.parametrize("key", ["mm-swin", "mm-resnet"])
def test_a_backbone_without_global_attention_says_so_and_is_left_as_it_was(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad():
        plain = adapter.forward(inputs)
        with pytest.raises(CapabilityError, match="block 0.*no global attention"):
            with adapter.capture(attention=True):
                adapter.forward(inputs)
        assert torch.equal(adapter.forward(inputs), plain)
    with pytest.raises(CapabilityError, match="no global attention"):
        adapter.attention_heads()


@pytest.mark.parametrize("masked", ["none", "bool", "additive", "causal", "scale", "grouped"])
def test_weights_times_values_give_what_scaled_dot_product_attention_gives(masked):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 6, 8, generator=generator) for _ in range(3))
    keep = torch.rand(2, 1, 6, 6, generator=generator) < 0.7
    keep[..., 0] = True
    options = {
        "none": {},
        "bool": {"attn_mask": keep},
        "additive": {"attn_mask": torch.zeros(2, 1, 6, 6).masked_fill(~keep, float("-inf"))},
        "causal": {"is_causal": True},
        "scale": {"scale": 0.1},
        "grouped": {"enable_gqa": True},
    }[masked]
    if masked == "grouped":
        k, v = k[:, :2], v[:, :2]
    weights = sdpa_weights(q, k, v, **options)
    values = v.repeat_interleave(2, 1) if masked == "grouped" else v
    torch.testing.assert_close(weights @ values, F.scaled_dot_product_attention(q, k, v, **options))
