"""Low-rank updates of convolutions: which ones get them, and that the merged kernels do what the updates did."""

import pytest
import torch
import torchvision
from small_zoo import small, small_distiller, snapshot
from timm.layers import StdConv2d
from timm.models import ResNetV2
from torch import nn

from mdpd_plugins.adapters import Adapter, adapt, build_backbone
from mdpd_plugins.engine import fade
from mdpd_plugins.engine.fading import MERGE_TOLERANCE
from mdpd_plugins.engine.low_rank import inject, low_rank_targets, remove
from mdpd_plugins.registry import CapabilityError

PICTURES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(4) % 5


def resnet():
    return adapt(torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5))


def mobilenet():
    return adapt(torchvision.models.mobilenet_v3_small(num_classes=5))


@pytest.mark.parametrize("make", [resnet, mobilenet])
def test_merged_kernels_give_what_the_updates_gave(make):
    torch.manual_seed(0)
    adapter = make()
    adapter.given_example = {"image": PICTURES}
    keys, plain = list(adapter.model.state_dict()), [type(m) for m in adapter.model.modules()]
    targets = low_rank_targets(adapter, everywhere=True)
    updates = inject(adapter, everywhere=True, rank=2)
    assert len(updates) == 2 * len(targets)
    with torch.no_grad():
        before = adapter.forward({"image": PICTURES})
        for p in updates.values():
            p.normal_(std=0.05)
        changed = adapter.forward({"image": PICTURES})
        assert remove(adapter.model, merge=True) == len(targets)
        merged = adapter.forward({"image": PICTURES})
    size = changed.std()  # random weights make MobileNet's outputs tiny
    assert (changed - before).abs().max() > 0.01 * size
    torch.testing.assert_close(merged / size, changed / size, rtol=1e-3, atol=1e-4)
    assert list(adapter.model.state_dict()) == keys and [type(m) for m in adapter.model.modules()] == plain


def test_depthwise_convolutions_get_none_and_pointwise_ones_do():
    adapter = mobilenet()
    adapter.given_example = {"image": PICTURES}
    targets = [adapter.model.get_submodule(n) for n in low_rank_targets(adapter, everywhere=True)]
    convs = [m for _, b in adapter.named_blocks for m in b.modules() if isinstance(m, nn.Conv2d)]
    assert [m for m in convs if m.groups == 1 and set(m.dilation) == {1}] == targets
    assert any(m.groups > 1 for m in convs)


@pytest.mark.parametrize("change", [dict(dilation=2), dict(padding_mode="reflect", padding=1), dict(groups=2)])
def test_a_convolution_whose_update_could_not_be_merged_gets_none(change):
    adapter = resnet()
    adapter.given_example = {"image": PICTURES}
    count = len(low_rank_targets(adapter, everywhere=True))
    padding = {"padding": change.get("dilation", 1)}
    adapter.model.layer1[0].conv2 = nn.Conv2d(64, 64, 3, bias=False, **{**padding, **change})
    found = low_rank_targets(adapter, everywhere=True)
    assert len(found) == count - 1 and "layer1.0.conv2" not in found


def test_a_linear_layer_that_answers_with_more_than_a_tensor_gets_none():
    class Router(nn.Linear):  # Llama 4's is such a one
        def forward(self, x):
            return super().forward(x), x

    class Plain(nn.Linear):
        def forward(self, x):
            return super().forward(x)

    adapter = resnet()
    adapter.given_example = {"image": PICTURES}
    _, block = adapter.named_blocks[0]
    block.router, block.plain = Router(4, 4), Plain(4, 4)
    found = [name.rpartition(".")[2] for name in low_rank_targets(adapter, everywhere=True)]
    assert "plain" in found and "router" not in found


def test_kernels_that_are_standardised_at_every_forward_get_none():
    model = ResNetV2((1, 1), channels=(128, 128), stem_chs=32, conv_layer=StdConv2d, num_classes=5)
    adapter = Adapter(model)
    adapter.given_example = {"image": PICTURES}
    with pytest.raises(CapabilityError, match=r"no linear layers or plain convolutions .* distill\.method='mdpd'"):
        low_rank_targets(adapter, everywhere=True)


def test_the_recipe_trains_a_convolutional_network_and_fades_to_the_plain_one():
    adapter = small("mm-resnet")
    before = snapshot(adapter.model)
    distiller, optim = small_distiller(adapter, method="mdpd_low_rank", rank=2)
    data = {"inputs": adapter.example_inputs(4), "labels": LABELS % 4}
    losses = [float(distiller.train_step(data, optim)["backbone/task"]) for _ in range(6)]
    assert losses[-1] < losses[0]
    model, report = fade(distiller, data["inputs"])
    # Two in each of 8 blocks, and the shortcuts of the three stages that change width.
    assert report.merged == 2 * 8 + 3 and report.keys_equal
    moved = {k for k, v in before.items() if not torch.equal(v, model.state_dict()[k])}
    assert sum("conv" in k or "downsample.0" in k for k in moved) == 19


@pytest.mark.slow
def test_a_graph_network_fades_though_rounding_picks_other_neighbours():
    adapter = build_backbone("mmpretrain/vig-tiny_3rdparty_in1k", pretrained=None, num_classes=4)
    distiller, _ = small_distiller(adapter, method="norm", backbone_update="norm+low_rank", rank=8)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for update in distiller.low_rank.values():
            update.normal_(generator=generator).mul_(0.05)
    pictures = torch.randn(2, 3, 224, 224, generator=generator)
    _, report = fade(distiller, {"image": pictures})
    assert report.merged == 48 and report.keys_equal
    assert MERGE_TOLERANCE < report.largest_difference / report.largest_output < 10 * MERGE_TOLERANCE
