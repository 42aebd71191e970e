"""Small forms of configurations that follow rules of their own."""

import pytest
from transformers import AutoConfig

from mdpd_plugins.zoos.huggingface.small import small_config


def test_a_configuration_inside_another_inside_another_is_cut_too():
    config = small_config("t5gemma2")  # it refuses vocabularies that differ between its parts
    vocabularies = {config.encoder.text_config.vocab_size, config.decoder.vocab_size}
    assert vocabularies == {1200}
    assert config.encoder.vision_config.hidden_size < AutoConfig.for_model("t5gemma2").encoder.vision_config.hidden_size


@pytest.mark.parametrize("model_type", ["zamba", "zamba2", "jamba"])
def test_lists_that_name_every_layers_kind_are_as_long_as_the_layers_left(model_type):
    config = small_config(model_type)
    whole = AutoConfig.for_model(model_type)
    assert config.num_hidden_layers < whole.num_hidden_layers
    assert len(config.layer_types) == config.num_hidden_layers
    assert set(config.layer_types) == set(whole.layer_types)


def test_experts_have_rows_that_grouped_kernels_can_read():
    assert AutoConfig.for_model("deepseek_v2").moe_intermediate_size % 4
    assert small_config("deepseek_v2").moe_intermediate_size % 4 == 0


def test_rotary_settings_that_are_left_open_are_filled_for_every_kind_of_layer():
    config = small_config("cohere_compass_text")
    assert set(config.rope_parameters) == set(config.layer_types)
    assert all(sum(v["mrope_section"]) == config.head_dim // 2 for v in config.rope_parameters.values())
