"""The kit itself: it names the clause that an adapter violates, and only that one."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from mdpd_plugins.adapters import Adapter, build_backbone
from mdpd_plugins.testing import CHECKS, NotApplicable, check_backbone
from mdpd_plugins.zoos.huggingface.adapter import HuggingFaceAdapter


class Block(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.one = nn.Linear(width, 2 * width)
        self.two = nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.two(torch.relu(self.one(self.norm(x) + x.mean(1, keepdim=True))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.image_size = 16
        self.stem = nn.Conv2d(3, 32, 4, stride=4)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 5)

    def forward(self, image):
        x = self.stem(image).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class Reversed(Adapter):
    @property
    def named_blocks(self):
        return [(f"blocks.{i}", self.model.blocks[i]) for i in (2, 1, 0)]


class Half(Adapter):
    @property
    def named_blocks(self):
        return [("blocks.2", self.model.blocks[2])]


class ForgetsNorm(Adapter):
    def norm_parameters(self):
        found = super().norm_parameters()
        del found["norm.bias"]
        return found


class CountsTooMuch(Adapter):
    def norm_parameters(self):
        return {**super().norm_parameters(), "stem.bias": self.model.stem.bias}


class LeavesHook(Adapter):
    def recompute(self):
        self.model.blocks[0].register_forward_hook(lambda *_: None)
        return super().recompute()


class LosesWeights(Adapter):
    def load_exported(self, folder):
        return Net()


class IgnoresHead(Adapter):
    def replace_head(self, num_outputs):
        pass


class SaysMore(Adapter):
    def declared_blocks(self):
        return 4


class MixesUpSamplesAndTokens(Adapter):
    @contextmanager
    def _capture(self, *args):
        with super()._capture(*args) as seen:
            yield seen
        for i, hidden in seen.hidden.items():
            if hidden.shape[0] == hidden.shape[1]:
                seen.hidden[i] = hidden.transpose(0, 1)


class HasNoBlocks(Adapter):
    named_blocks = ()


def adapter(kind):
    return lambda: kind(Net(), name="toy/net")


def failed(kind):
    return {outcome.check for outcome in check_backbone(adapter(kind)).failures}


def test_a_good_adapter_passes_every_check():
    report = check_backbone(adapter(Adapter))
    assert report, str(report)
    assert {o.check for o in report.outcomes if o.status == "not applicable"} == {"attention", "padding", "depth"}
    assert len(report.outcomes) == len(CHECKS)


@pytest.mark.parametrize(
    ("kind", "clause"),
    [
        (Reversed, "blocks"),
        (Half, "blocks"),
        (ForgetsNorm, "norm_parameters"),
        (CountsTooMuch, "norm_parameters"),
        (LeavesHook, "trace"),
        (LosesWeights, "export"),
        (IgnoresHead, "head"),
        (SaysMore, "depth"),
        (MixesUpSamplesAndTokens, "equal_sizes"),
        (HasNoBlocks, "blocks"),
    ],
)
def test_a_violated_clause_is_named(kind, clause):
    assert clause in failed(kind)


def test_the_rest_of_a_faulty_adapter_is_still_checked():
    assert failed(LosesWeights) == {"export"}


def test_a_single_check_raises_with_what_is_wrong():
    (check,) = (c for c in CHECKS if c.name == "norm_parameters")
    assert check(adapter(Adapter)) == "8 tensors"
    with pytest.raises(AssertionError, match="norm.bias"):
        check(adapter(ForgetsNorm))


def test_a_check_that_does_not_concern_a_backbone_is_a_skip():
    (check,) = (c for c in CHECKS if c.name == "padding")
    with pytest.raises(NotApplicable, match="reads images"):
        check(adapter(Adapter))


def test_an_adapter_given_as_an_object_is_not_changed():
    given = Adapter(Net(), name="toy/net")
    before = {k: v.clone() for k, v in given.model.state_dict().items()}
    assert check_backbone(given)
    assert all(torch.equal(v, before[k]) for k, v in given.model.state_dict().items())


def text_model(kind, name):
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 300}
    return lambda: kind(build_backbone(f"huggingface/{name}", pretrained=None, num_classes=5, **small).model)


class LosesTheMask(HuggingFaceAdapter):
    def _call(self, inputs):
        return super()._call({**inputs, "attention_mask": torch.ones_like(inputs["input_ids"])})


def test_an_adapter_that_does_not_hand_the_mask_over_fails_on_padding():
    (check,) = (c for c in CHECKS if c.name == "padding")
    assert check(text_model(HuggingFaceAdapter, "electra")) == "9 of 16 tokens"
    with pytest.raises(AssertionError, match="the output of the padded text differs by"):
        check(text_model(LosesTheMask, "electra"))


def test_padding_that_changes_what_the_bare_model_answers_is_no_fault_of_the_adapter():
    (check,) = (c for c in CHECKS if c.name == "padding")
    with pytest.raises(NotApplicable, match="the zoo's own model answers, called without an adapter"):
        check(text_model(HuggingFaceAdapter, "fnet"))
