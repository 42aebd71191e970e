"""Which axes of a block's tensors are which, also where sizes coincide."""

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer
from transformers import XLNetConfig, XLNetForSequenceClassification

from mdpd_plugins.adapters import Adapter, adapt
from mdpd_plugins.adapters.inspection.arrangement import by_lengths, settle, variations
from mdpd_plugins.adapters.inspection.layout import from_tokens, to_tokens
from mdpd_plugins.registry.errors import CapabilityError


@pytest.mark.parametrize(
    ("one", "other", "axes"),
    [
        ((2, 16, 32), (3, 13, 32), "BTD"),
        ((2, 32, 16), (3, 32, 13), "BDT"),
        ((16, 2, 32), (13, 3, 32), "TBD"),
        ((2, 8, 8, 8), (3, 8, 6, 6), "BCHW"),
        ((2, 8, 8, 8), (3, 6, 6, 8), "BHWC"),
        ((2, 16, 4, 32), (3, 13, 4, 32), "BHWC"),  # several states side by side for each token
        ((2, 8, 16, 1), (3, 8, 13, 1), "BHWC"),  # one moving axis in the middle fits both: the vectors decide
        ((2, 4, 4, 4, 32), (3, 9, 4, 4, 32), "BNHWD"),
        ((8, 16, 32), (12, 16, 32), ""),  # windows folded into the batch
        ((16, 32, 2), (13, 32, 3), ""),
    ],
)
def test_the_batch_follows_the_samples_positions_follow_the_size_and_channels_stay(one, other, axes):
    assert settle(torch.Size(one), 2, torch.Size(other), 3, {1}) == axes


def test_where_nothing_follows_the_size_the_blocks_own_vectors_tell_channels():
    one, other = torch.Size((2, 32, 9)), torch.Size((3, 32, 9))
    assert settle(one, 2, other, 3, {32, 64}) == "BDT"
    assert settle(one, 2, other, 3, {9, 32}) == "BTD"
    assert by_lengths(torch.Size((2, 9, 32)), {32, 64}) == "BTD"
    x = torch.randn(one)
    assert to_tokens(x, "BDT").shape == (2, 9, 32)
    assert torch.equal(from_tokens(to_tokens(x, "BDT"), "BDT", x.shape), x)


def xlnet() -> Adapter:
    torch.manual_seed(0)
    config = XLNetConfig(vocab_size=99, d_model=16, n_layer=2, n_head=2, d_inner=32, num_labels=3, pad_token_id=0)
    return adapt(XLNetForSequenceClassification(config))


@pytest.mark.parametrize("batch", [3, 11, 16])
def test_a_network_that_is_not_batch_first_keeps_samples_apart_from_tokens(batch):
    adapter = xlnet()
    ids = torch.randint(5, 99, (batch, 11), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad(), adapter.capture() as whole:
        adapter.forward(inputs)
    with torch.no_grad(), adapter.capture() as alone:
        adapter.forward({k: v[-1:] for k, v in inputs.items()})
    for i in range(2):
        assert whole.hidden[i].shape == (batch, 11, 16)
        torch.testing.assert_close(whole.hidden[i][-1:], alone.hidden[i], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.stems[0][-1:], alone.stems[0])


def swin() -> Adapter:
    torch.manual_seed(0)
    model = SwinTransformer([4, 4], 8, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4], num_classes=5)
    return adapt(model, example_inputs=torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (128, 128), (64, 96)])
def test_a_network_with_channels_last_keeps_them_at_every_size(size):
    adapter = swin()
    with torch.no_grad(), adapter.capture() as seen:
        adapter.forward({"image": torch.randn(2, 3, *size)})
    # Patches, a block, what merges neighbours, a block.
    assert seen.axes == dict.fromkeys(range(4), "BHWC")
    assert [h.shape[-1] for h in seen.hidden.values()] == adapter.dims == [8, 8, 16, 16]
    assert [seen.layouts[i].grid for i in (0, 3)] == [(size[0] // 4, size[1] // 4), (size[0] // 8, size[1] // 8)]
    assert seen.hidden[3].shape == (2, size[0] * size[1] // 64, 16)  # at 32 pixels, as many as channels


class Plain(nn.Module):
    """Blocks of maps with as many channels as the grid is high and wide."""

    image_size = 64

    def __init__(self, last: bool):
        super().__init__()
        self.last = last
        self.stem = nn.Conv2d(3, 8, 8, 8)
        norm = nn.LayerNorm if last else nn.BatchNorm2d
        layer = nn.Linear(8, 8) if last else nn.Conv2d(8, 8, 1)
        self.blocks = nn.ModuleList(nn.Sequential(norm(8), layer) for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        x = self.stem(image)
        x = x.permute(0, 2, 3, 1) if self.last else x
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2) if self.last else (2, 3)))


@pytest.mark.parametrize("last", [True, False])
def test_height_width_and_channels_may_be_equal(last):
    adapter = Adapter(Plain(last))
    with torch.no_grad(), adapter.capture(keep_calls=True) as seen:
        adapter.forward(adapter.example_inputs(8))
    native = seen.calls[1][2]
    assert native.shape == (8, 8, 8, 8)
    right = native.flatten(1, 2) if last else native.flatten(2).transpose(1, 2)
    assert torch.equal(seen.hidden[1], right)
    assert adapter.convolutional == [not last]


def test_no_forward_is_added_to_find_the_axes():
    adapter = Adapter(Plain(True))
    sizes = []
    handle = adapter.model.register_forward_hook(lambda m, args, out: sizes.append(tuple(args[0].shape)))
    adapter.blocks()
    handle.remove()
    # Order; calls that pass by the hooks; blocks that write into what they are given, at another size.
    assert sizes == [(2, 3, 64, 64), (2, 3, 64, 64), (3, 3, 128, 128)]


def test_a_model_that_takes_one_size_is_tried_with_another_number_of_samples():
    class Fixed(Plain):
        image_size = 48

        def forward(self, image):
            assert image.shape[-1] == 48
            return super().forward(image)

    adapter = Adapter(Fixed(True))
    with torch.no_grad(), adapter.capture() as seen:
        adapter.forward(adapter.example_inputs())
    assert set(seen.axes.values()) == {"BHWC"}


def test_other_sizes_keep_the_end_of_a_text_and_its_mask():
    ids = torch.arange(1, 17).expand(3, 16)
    shorter, own = variations({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert shorter["input_ids"][0].tolist() == [1, 2, *range(6, 17)]
    assert shorter["attention_mask"].shape == (3, 13)
    assert own["input_ids"].shape == (3, 16)


def test_axes_that_are_none_of_those_understood_are_an_error_with_the_shape():
    class Folded(Plain):
        def forward(self, image):
            x = self.stem(image).flatten(2).transpose(1, 2).reshape(-1, 4, 8)
            for block in self.blocks:
                x = block(x)
            return self.head(x.reshape(len(image), -1, 8).mean(1))

    with pytest.raises(CapabilityError, match=r"shape \(32, 4, 8\) with batch 2 is neither"):
        _ = Adapter(Folded(True)).dims
