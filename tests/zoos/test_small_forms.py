"""How configuration data is cut down."""

import pytest

from mdpd_plugins.zoos.small_forms import cut


def test_depths_and_widths_change_and_nothing_else():
    fields = {
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "vocab_size": 30522,
        "image_size": 224,
        "patch_size": 16,
        "kernel_size": 3,
        "num_channels": 3,
        "layer_norm_eps": 1e-5,
        "use_cache": True,
    }
    assert cut(fields, 3, 8) == {"num_hidden_layers": 3, "hidden_size": 96, "intermediate_size": 384}


def test_lists_keep_their_length_and_type():
    assert cut({"depths": (2, 2, 18, 2), "embed_dims": [64, 128]}, 2, 4) == {
        "depths": (2, 2, 2, 2),
        "embed_dims": [16, 32],
    }


def test_a_width_that_cannot_be_divided_stays():
    assert cut({"hidden_size": 100, "in_channels": 3}, None, 8) == {}


def test_nested_fields_are_given_whole():
    fields = {"vision_config": {"hidden_size": 64, "hidden_act": "gelu"}}
    assert cut(fields, None, 2) == {"vision_config": {"hidden_size": 32, "hidden_act": "gelu"}}


@pytest.mark.parametrize(("depth", "factor"), [(None, 1), (99, 1)])
def test_nothing_asked_changes_nothing(depth, factor):
    assert cut({"num_layers": 12, "hidden_size": 64}, depth, factor) == {}


def test_a_map_from_layers_is_left_alone():
    assert cut({"arch": {"depths": [4, 6], "group_layer_map": {2: 2, 4: 2}}}, 2, 4) == {
        "arch": {"depths": [2, 2], "group_layer_map": {2: 2, 4: 2}}
    }
