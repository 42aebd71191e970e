"""Two towers as one backbone."""

import json

import pytest
import small_zoo
import torch
import towers
from adapting import gradients, trace_of
from torch.nn import functional as F

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.adapters.towers.fusion import Fusion
from mdpd_plugins.adapters.towers.pair import pair
from mdpd_plugins.registry import CapabilityError


@pytest.fixture(params=towers.PAIRS, ids="-".join)
def adapter(request):
    return towers.small_pair(*request.param)


def parts(adapter, inputs):
    """Outputs of both towers by themselves."""
    image = adapter.image.forward({"image": inputs["image"]})
    return image, adapter.text.forward({k: v for k, v in inputs.items() if k != "image"})


def test_outputs_are_what_the_fusion_makes_of_the_towers_own(adapter):
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad():
        image, text = parts(adapter, inputs)
        assert image.shape == text.shape == (4, towers.WIDTH)
        joined = torch.cat([image, text, image * text], 1)
        one, _, other = adapter.model.fusion
        expected = F.linear(F.gelu(F.linear(joined, one.weight, one.bias)), other.weight, other.bias)
        assert torch.equal(adapter.forward(inputs), expected)
        for name in ("image", "input_ids"):  # both are read
            turned = {**inputs, name: inputs[name].roll(1, 0)}
            assert not torch.equal(adapter.forward(turned), expected)


def test_a_comparison_puts_features_on_the_unit_sphere_and_scales_the_first():
    adapter = towers.small_pair(task=towers.MATCHES)
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad():
        image, text = parts(adapter, inputs)
        found = adapter.forward(inputs)
        assert found.shape == (4, 2, towers.WIDTH)
        scale = adapter.model.fusion.logit_scale.exp()
        torch.testing.assert_close(found[:, 0], scale * image / image.norm(dim=1, keepdim=True))
        torch.testing.assert_close(found[:, 1].norm(dim=1), torch.ones(4))
    assert "fusion.logit_scale" in adapter.head_parameters()


def test_layers_widths_grids_and_masks_are_the_towers_own(adapter):
    image, text = adapter.image, adapter.text
    first, second = adapter.towers
    assert (len(first), len(second)) == (len(image.blocks()), len(text.blocks()))
    assert adapter.last_layers == [len(first) - 1, len(first) + len(second) - 1]
    assert adapter.dims == image.dims + text.dims
    assert adapter.stem_dims == image.stem_dims + text.stem_dims
    assert adapter.convolutional == [image.convolutional[0], False]
    assert [adapter.grid(i) for i in first] == [image.grid(i) for i in first]
    assert {adapter.grid(i) for i in second} == {None} == {adapter.grid(-1)}
    inputs = small_zoo.inputs_of(adapter)
    picture, words = adapter.attention_masks(inputs)
    assert picture is None and torch.equal(words, inputs["attention_mask"].bool()) and not words.all()
    with torch.no_grad(), adapter.capture() as seen:
        adapter.forward(inputs)
    with torch.no_grad(), image.capture() as its, text.capture() as other:
        parts(adapter, inputs)
    found = [its.hidden[i] for i in range(len(first))] + [other.hidden[i] for i in range(len(second))]
    assert all(torch.equal(seen.hidden[i], h) for i, h in enumerate(found))
    assert seen.layouts[0] == its.layouts[0] and seen.layouts[len(first)] == other.layouts[0]


def test_norms_and_parameters_are_those_of_both_towers_and_of_nothing_else(adapter):
    for ask in ("norm_parameters", "parameters"):
        expected = {
            f"{place}.{key}": p
            for place in ("image", "text")
            for key, p in getattr(getattr(adapter, place), ask)().items()
        }
        if ask == "parameters":
            expected |= {f"fusion.{k}": p for k, p in adapter.model.fusion.named_parameters()}
        found = getattr(adapter, ask)()
        assert found.keys() == expected.keys()
        assert all(found[k] is p for k, p in expected.items())
    # An OpenCLIP model that serves as the text tower has a visual one that nobody reads.
    if "open_clip" in adapter.text.name:
        assert not [k for k in adapter.parameters() if k.startswith("text.visual")]


def test_attention_of_both_towers_is_captured_where_both_have_it():
    adapter = towers.small_pair()
    with torch.no_grad(), adapter.capture(attention=True) as seen:
        adapter.forward(small_zoo.inputs_of(adapter))
    assert [seen.attention[i].shape[-1] for i in range(6)] == [17] * 3 + [seen.hidden[3].shape[1]] * 3
    assert adapter.attention_heads() == [4] * 6
    with pytest.raises(CapabilityError, match="no global attention"):
        towers.small_pair("mm-resnet").attention_heads()


def test_capture_leaves_no_trace(adapter):
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad():
        plain = adapter.forward(inputs)
        before = trace_of(adapter.model)
        with adapter.capture(keep_calls=True) as seen:
            assert torch.equal(adapter.forward(inputs), plain)
        assert trace_of(adapter.model) == before
        with pytest.raises(InterruptedError), adapter.recompute(), adapter.capture(keep_calls=True):
            adapter.forward(inputs)
            raise InterruptedError
        assert trace_of(adapter.model) == before
        last = [seen.hidden[i] for i in adapter.last_layers]
        assert torch.equal(adapter.forward_head(inputs, seen, *last), plain)
        for i in range(2):  # the tail reads what either tower ends in
            other = [h.roll(1, 0) if i == k else h for k, h in enumerate(last)]
            assert not torch.equal(adapter.forward_head(inputs, seen, *other), plain)
        assert torch.equal(adapter.forward(inputs), plain)


def test_recomputed_gradients_are_plain_autograds(adapter):
    inputs, labels = small_zoo.inputs_of(adapter), small_zoo.labels_of()
    plain = gradients(adapter, inputs, labels, recompute=False)
    exact = gradients(adapter, inputs, labels, recompute=True)
    assert plain.keys() == adapter.norm_parameters().keys() | adapter.head_parameters().keys()
    assert not [k for k in plain if not torch.equal(plain[k], exact[k])]
    assert not [k for k in plain if not plain[k].abs().max() > 0 and "key" not in k]


def test_an_export_is_read_by_both_zoos_and_gives_the_same_outputs(adapter, tmp_path):
    inputs = small_zoo.inputs_of(adapter)
    folder = adapter.export(tmp_path / "export")
    assert {p.name for p in folder.iterdir()} == {"image", "text", "fusion.safetensors", "pair.json"}
    assert json.loads((folder / "pair.json").read_text())["width"] == towers.WIDTH
    again = adapter.around(adapter.load_exported(folder))
    assert type(again.image.model) is type(adapter.image.model)
    assert type(again.text.model) is type(adapter.text.model)
    assert again.model.state_dict().keys() == adapter.model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(again.forward(inputs), adapter.forward(inputs))


def test_another_output_layer_is_refused():
    with pytest.raises(CapabilityError, match="ends in a fusion of two towers: build it with the outputs you need"):
        towers.small_pair().replace_head(7)


def test_the_origin_says_which_tower_is_random():
    adapter = towers.small_pair()
    assert adapter.origin.startswith("random initialisation: image tower: random initialisation (asked for)")
    adapter.image.origin = "folder weights"
    one = pair(adapter.image, adapter.text, Fusion(towers.WIDTH, 5))
    assert one.random
    said = "random initialisation: text tower: random initialisation (asked for); image tower: folder weights"
    assert one.origin == said
    adapter.text.origin = "package x"
    both = pair(adapter.image, adapter.text, Fusion(towers.WIDTH, 5))
    assert both.origin == "image tower: folder weights; text tower: package x" and not both.random


# --- both towers of one OpenCLIP model


def test_both_towers_of_open_clip_are_its_own_joint_space(tmp_path):
    import open_clip

    adapter = towers.open_clip_pair()
    assert len(adapter.towers) == 2 and adapter.modality == "image-text"
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad():
        found = adapter.forward(inputs)
        theirs = adapter.model(inputs["image"], inputs["input_ids"])
        torch.testing.assert_close(found[:, 0] @ found[:, 1].T, theirs[2] * theirs[0] @ theirs[1].T)
        assert set(adapter.head_parameters()) == {"visual.proj", "text_projection", "logit_scale"}
        assert adapter.parameters().keys() == dict(adapter.model.named_parameters()).keys()
        folder = adapter.export(tmp_path / "export")
        model = open_clip.create_model_and_transforms(f"local-dir:{folder}")[0].eval()
        assert torch.equal(adapter.around(model).forward(inputs), found)


def test_a_tower_that_is_not_there_is_refused():
    from mdpd_plugins.registry import ConfigError

    name, options = small_zoo.BACKBONES["oc-image"]
    with pytest.raises(ConfigError, match="has no tower 'all': use 'image', 'text', or 'both'"):
        build_backbone(name, pretrained=None, num_classes=5, **options, tower="all")
