"""Blocks, widths, tokens and normalisation parameters of every small backbone."""

import copy
import re

import pytest
import small_zoo
import timm
import torch
import torchvision
from torch import nn
from torchvision.models import DenseNet, MaxVit
from transformers import LlamaConfig, LlamaForSequenceClassification, SwinConfig, SwinForImageClassification
from transformers.models.t5.modeling_t5 import T5LayerNorm

from mdpd_plugins.adapters import Adapter, adapt, build_backbone
from mdpd_plugins.adapters.inspection.blocks import is_norm
from mdpd_plugins.engine import TensorMeter
from mdpd_plugins.registry import CapabilityError
from mdpd_plugins.zoos.huggingface.adapter import HuggingFaceAdapter

# blocks, widths, prefix tokens, grid that leaves the last block
EXPECTED = {
    "hf-vit": (3, [32] * 3, 1, (4, 4)),
    "hf-deit": (3, [32] * 3, 1, (4, 4)),
    "hf-dinov2": (3, [32] * 3, 1, (2, 2)),
    "hf-minilm": (3, [32] * 3, 0, None),
    "mm-vit": (3, [32] * 3, 1, (4, 4)),
    "mm-deit": (3, [32] * 3, 2, (4, 4)),
    "mm-resnet": (8, [8, 8, 16, 16, 32, 32, 64, 64], 0, (2, 2)),
    "mm-swin": (4, [16, 16, 32, 32], 0, (8, 8)),
    "hf-vilt": (3, [32] * 3, 0, None),  # words, a class token and patches side by side
    "oc-image": (3, [64] * 3, 1, (4, 4)),
    "oc-text": (2, [32] * 2, 0, None),
}
# How each framework spells its normalisation layers, and how many tensors they hold: two a layer.
NORM_NAMES = {
    "hf-vit": (r"layernorm", 14),
    "hf-deit": (r"layernorm", 14),
    "hf-dinov2": (r"norm", 14),
    "hf-minilm": (r"LayerNorm", 14),
    "mm-vit": (r"\.ln\d", 14),
    "mm-deit": (r"\.ln\d", 14),
    # Two a block, one behind the stem, one in the shortcut of each stage that changes width.
    "mm-resnet": (r"\.bn\d|downsample\.1", 2 * (16 + 1 + 3)),
    # Two a block, behind the patches, in the one merging, and the last one.
    "mm-swin": (r"norm", 2 * (8 + 1 + 1 + 1)),
    # Two a block, the last one, one behind the words and one in the output layer.
    "hf-vilt": (r"[Ll]ayer[Nn]orm|layernorm|classifier\.1", 2 * (6 + 3)),
    "oc-image": (r"^visual\..*ln_", 2 * (6 + 2)),
    "oc-text": (r"^(?!visual).*ln_", 2 * (4 + 1)),
}


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_blocks_widths_prefix_tokens_and_grid(key):
    adapter = small_zoo.small(key)
    blocks, dims, prefix, grid = EXPECTED[key]
    assert len(adapter.blocks()) == blocks
    assert adapter.dims == dims
    assert adapter.num_prefix_tokens == prefix
    assert adapter.grid(-1) == grid


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_norm_parameters_are_the_affine_parameters_that_the_state_dict_names(key):
    adapter = small_zoo.small(key)
    pattern, count = NORM_NAMES[key]
    named = dict(adapter.model.named_parameters())
    expected = {k for k in adapter.model.state_dict() if k in named and re.search(pattern, k)}
    found = adapter.norm_parameters()
    assert found.keys() == expected
    assert len(found) == count
    assert all(p is named[k] for k, p in found.items())


def test_layer_scale_is_no_norm():
    adapter = small_zoo.small("hf-dinov2")
    scales = [k for k in adapter.model.state_dict() if "layer_scale" in k]
    assert len(scales) == 6
    assert not set(scales) & set(adapter.norm_parameters())


def llama() -> HuggingFaceAdapter:
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_labels=3,
        pad_token_id=0,
    )
    model = LlamaForSequenceClassification(config)
    small_zoo.randomise(model)
    return HuggingFaceAdapter(model, modality="text")


def test_rms_norms_of_an_unregistered_transformer_are_found_by_what_they_do():
    adapter = llama()
    assert adapter.norm_parameters().keys() == {
        *(f"model.layers.{i}.{n}.weight" for i in (0, 1) for n in ("input_layernorm", "post_attention_layernorm")),
        "model.norm.weight",
    }


def test_an_unregistered_transformer_is_captured_and_replayed():
    adapter = llama()
    inputs = adapter.example_inputs()
    with torch.no_grad(), adapter.capture(attention=True, keep_calls=True) as seen:
        logits = adapter.forward(inputs)
    with torch.no_grad():
        assert torch.equal(adapter.forward_head(inputs, seen, seen.hidden[1]), logits)
    # Causal, with grouped keys: rows sum to 1 and see nothing that comes later.
    weights = seen.attention[0]
    assert weights.shape == (2, 4, 16, 16)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 16))
    assert not weights.triu(1).any()


def test_a_norm_without_shift_is_told_from_a_scale_and_a_gate():
    class Scale(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(8))

        def forward(self, x):
            return x * self.weight

    class Gate(Scale):
        def forward(self, x):
            return x.sigmoid() * self.weight

    assert is_norm(T5LayerNorm(8))
    assert is_norm(torch.nn.GroupNorm(2, 8))
    assert not is_norm(Scale())
    assert not is_norm(Gate())
    assert not is_norm(torch.nn.LayerNorm(8, elementwise_affine=False))


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_tail_is_what_lies_behind_the_last_block(key):
    adapter = small_zoo.small(key)
    for i, p in enumerate(adapter.model.parameters()):
        p.requires_grad_(i % 2 == 0)
    tail, norms = adapter.tail_parameters(), adapter.norm_parameters()
    assert [p.requires_grad for p in adapter.model.parameters()] == [
        i % 2 == 0 for i in range(len(list(adapter.model.parameters())))
    ]
    assert all(p.grad is None for p in adapter.model.parameters())
    inside = tuple(f"{name}." for name, _ in adapter.named_blocks)
    assert tail
    assert not [k for k in tail if k.startswith(inside)]
    assert adapter.head_parameters().keys() == tail.keys() - norms.keys()
    heads = {
        "hf-minilm": {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"},
        "mm-deit": {f"head.layers.{n}.{p}" for n in ("head", "head_dist") for p in ("weight", "bias")},
        "oc-image": {"visual.proj"},
        "oc-text": {"text_projection"},
    }
    if key in heads:
        assert adapter.head_parameters().keys() == heads[key]


def test_a_model_without_repeated_blocks_says_so():
    with pytest.raises(CapabilityError, match="no repeated blocks were found in Linear"):
        Adapter(torch.nn.Linear(4, 4)).blocks()


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_description_states_what_was_measured(key):
    facts = small_zoo.small(key).describe()
    assert facts["blocks"] == EXPECTED[key][0]
    assert facts["prefix_tokens"] == EXPECTED[key][2]
    assert facts["capabilities"]["attention"] == (
        "4 heads" if key in small_zoo.GLOBAL_ATTENTION else "none over all tokens"
    )
    assert facts["parameters"] > facts["norm_parameters"] > 0


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_a_live_model_finds_its_zoos_adapter(key):
    built = small_zoo.small(key)
    adapter = adapt(built.model, modality=built.modality)
    assert type(adapter) is type(built)
    assert adapter.modality == built.modality
    assert adapter.norm_parameters().keys() == built.norm_parameters().keys()
    inputs = small_zoo.inputs_of(built)
    with torch.no_grad():
        assert torch.equal(adapter.forward(inputs), built.forward(inputs))


class Windowed(torch.nn.Module):
    """Two blocks on 2 x 2 windows of 2 x 2 tokens each, as in HiViT's first stages."""

    def __init__(self):
        super().__init__()
        self.image_size = 16
        self.stem = torch.nn.Conv2d(3, 8, 4, stride=4)
        self.blocks = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.Linear(8, 8)) for _ in range(2)
        )
        self.head = torch.nn.Linear(8, 5)

    def forward(self, image):
        x = self.stem(image).unflatten(3, (2, 2)).unflatten(2, (2, 2)).permute(0, 2, 4, 3, 5, 1).flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2, 3)))


def test_tokens_in_windows_are_read_one_window_after_another():
    adapter = Adapter(Windowed())
    assert [name for name, _ in adapter.named_blocks] == ["blocks.0", "blocks.1"]
    inputs = adapter.example_inputs()
    with torch.no_grad(), adapter.capture(keep_calls=True) as seen:
        logits = adapter.forward(inputs)
    assert seen.hidden[0].shape == (2, 16, 8)
    assert adapter.grid(-1) is None
    assert torch.equal(seen.hidden[0][0, :4], seen.calls[0][2][0, 0].flatten(0, 1))
    with torch.no_grad():
        assert torch.equal(adapter.forward_head(inputs, seen, seen.hidden[1]), logits)


class Mixture(torch.nn.Module):
    """Numbered children of two classes, one of them once, and a stem that is numbered like them but has no parts."""

    def __init__(self):
        super().__init__()
        self.image_size = 16

        def unit(channels):
            conv = torch.nn.Conv2d(channels, 8, 3, padding=1)
            return torch.nn.Sequential(conv, torch.nn.BatchNorm2d(8))

        class Two(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.left, self.right = unit(8), unit(8)

            def forward(self, x):
                return self.left(x) + self.right(x)

        class Wide(Two):
            pass

        class Stem(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.bn = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)

            def forward(self, x):
                return self.bn(self.conv(x))

        self.part_1, self.part_2a, self.part_2b, self.part_3 = Stem(), Two(), Wide(), Two()
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.part_3(self.part_2b(self.part_2a(self.part_1(x)))).mean((2, 3)))


def test_numbered_blocks_of_several_classes_are_found_and_a_stem_beside_them_is_none():
    assert [name for name, _ in Adapter(Mixture()).named_blocks] == ["part_2a", "part_2b", "part_3"]


def test_without_norms_the_convolutions_of_a_stack_are_its_blocks():
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.AdaptiveAvgPool2d(1)]
    model = torch.nn.Sequential(torch.nn.Sequential(*layers), torch.nn.Flatten(), torch.nn.Linear(8, 5))
    assert [name for name, _ in Adapter(model).named_blocks] == ["0.0", "0.2"]


def stacked(kind, **cuts):
    """A registered backbone in a small form, told by what the library's own configuration is cut to."""
    return build_backbone(kind, pretrained=None, num_classes=5, **cuts)


RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [3, 4, 6, 3]}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "vocab_size": 300}
DEPTHS = {
    # Stages of residual blocks, each of several layers: 3 + 4 + 6 + 3.
    "resnet": (lambda: stacked("huggingface/resnet", **RESNET), 16),
    # Both stacks, of blocks that hand a position bias on past their last layer.
    "t5": (lambda: stacked("huggingface/t5", **T5, num_layers=6, num_decoder_layers=6), 12),
    # The same without a position bias that is handed on.
    "umt5": (lambda: stacked("huggingface/umt5", **T5, num_layers=2, num_decoder_layers=2), 4),
    # The first stage holds one block, and no list.
    "regnet": (lambda: adapt(timm.create_model("regnety_002", num_classes=5)), 13),
    # The stem is a block of the same class.
    "mobileone": (lambda: adapt(timm.create_model("mobileone_s0", num_classes=5)), 43),
    # Nine blocks, four layers of the stem, and the two that join stages, of several parts each.
    "levit": (lambda: adapt(timm.create_model("levit_128s", num_classes=5)), 9 + 4 + 2),
    "shufflenet": (lambda: stacked("mmpretrain/shufflenet-v2-1x_16xb64_in1k"), 16 + 2),
    "tresnet": (lambda: adapt(timm.create_model("tresnet_m"), example_inputs=SQUARE), 1 + 3 + 4 + 11 + 3),
    "maxvit": (lambda: adapt(MaxVit(**MAXVIT), example_inputs=SQUARE), 1 + 3),
    "vgg": (lambda: adapt(torchvision.models.vgg11_bn(num_classes=5), example_inputs=SQUARE), 8),
    # The output layer, a convolution too, is none.
    "squeezenet": (lambda: adapt(torchvision.models.squeezenet1_1(num_classes=5), example_inputs=SQUARE), 1 + 8),
    "densenet": (lambda: adapt(DenseNet(8, (2, 2), 16, num_classes=5), example_inputs=SQUARE), 2),
}
SQUARE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
MAXVIT = dict(input_size=(64, 64), stem_channels=8, partition_size=4, block_channels=[8, 16], block_layers=[1, 3])
MAXVIT |= dict(head_dim=8, stochastic_depth_prob=0.0, num_classes=5)


@pytest.mark.parametrize("kind", DEPTHS)
def test_blocks_lie_at_the_depth_that_the_library_itself_counts(kind):
    make, count = DEPTHS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapter = make()
    assert len(adapter.blocks()) == count, [n for n, _ in adapter.named_blocks]


def test_attention_is_found_in_both_stacks_of_an_encoder_decoder():
    adapter = DEPTHS["t5"][0]()
    assert adapter.attention_heads() == [2] * 12
    with torch.no_grad(), adapter.capture(attention=True) as seen:
        adapter.forward(adapter.example_inputs())
    assert [tuple(seen.attention[i].shape) for i in range(12)] == [(2, 2, 16, 16)] * 12


@pytest.mark.parametrize(
    "make",
    [
        lambda: stacked("mmpretrain/resnet18_8xb32_in1k", backbone={"with_cp": True}),
        lambda: adapt(DenseNet(8, (2, 2), 16, num_classes=5, memory_efficient=True), example_inputs=SQUARE),
    ],
)
def test_a_models_own_reentrant_checkpoints_change_nothing(make):
    checkpointed = make()
    plain = copy.deepcopy(checkpointed)
    for module in plain.model.modules():
        for switch in ("with_cp", "memory_efficient"):
            if hasattr(module, switch):
                setattr(module, switch, False)
    assert [n for n, _ in checkpointed.named_blocks] == [n for n, _ in plain.named_blocks]
    assert checkpointed.head_parameters().keys() == plain.head_parameters().keys()
    grads = []
    for adapter in (checkpointed, plain):
        with adapter.recompute():
            loss = adapter.forward(adapter.example_inputs()).square().sum()
        grads.append(torch.autograd.grad(loss, list(adapter.norm_parameters().values())))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_trying_a_size_leaves_a_model_as_it_was():
    # Its windows shrink to what is smaller than they are, and stay so.
    config = SwinConfig(image_size=128, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=16, num_labels=5)
    model = SwinForImageClassification(config)
    before = [m.window_size for m in model.modules() if hasattr(m, "window_size")]
    adapt(model).blocks()
    assert [m.window_size for m in model.modules() if hasattr(m, "window_size")] == before


def test_finding_blocks_and_tail_makes_nothing_as_large_as_the_weights():
    layers = [nn.Sequential(nn.LayerNorm(256), nn.Linear(256, 256), nn.GELU()) for _ in range(4)]
    model = nn.Sequential(nn.Linear(256, 256), nn.Sequential(*layers), nn.Linear(256, 256))
    adapter = adapt(model, example_inputs=torch.randn(1, 3, 256))
    weights = sum(p.nbytes for p in adapter.model.parameters())
    with TensorMeter() as meter:
        assert len(adapter.blocks()) == 4
        assert list(adapter.tail_parameters()) == ["2.weight", "2.bias"]
    assert meter.peak < weights / 10
