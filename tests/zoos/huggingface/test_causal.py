"""Causal language models of transformers: what belongs to them, and what is refused."""

import pytest
import torch
from language import decoder

from mdpd_plugins.adapters import adapt, build_backbone
from mdpd_plugins.adapters.causal import check_causal
from mdpd_plugins.registry import CapabilityError, ConfigError
from mdpd_plugins.zoos.huggingface.causal import CausalAdapter, token_stream

BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def test_an_output_layer_that_is_the_input_embedding_belongs_to_the_input():
    adapter = decoder("gpt2")
    assert adapter.output_layer().weight is adapter.model.get_input_embeddings().weight
    assert adapter.head_parameters() == {}
    assert set(adapter.tail_parameters()) == {"transformer.ln_f.weight", "transformer.ln_f.bias"}


def test_an_output_layer_of_its_own_is_the_head():
    adapter = decoder("llama")
    assert set(adapter.head_parameters()) == {"lm_head.weight"}
    assert set(adapter.tail_parameters()) == {"lm_head.weight", "model.norm.weight"}
    tied = decoder("llama", tie_word_embeddings=True)
    assert tied.head_parameters() == {} and set(tied.tail_parameters()) == {"model.norm.weight"}


@pytest.mark.parametrize("key", ["gpt2", "llama"])
def test_the_last_state_through_the_head_gives_the_models_logits(key):
    adapter = decoder(key)
    inputs = adapter.example_inputs()
    with torch.no_grad(), adapter.capture(keep_calls=True) as seen:
        logits = adapter.forward(inputs)
        assert logits.shape == (2, 16, 300)
        assert torch.equal(adapter.forward_head(inputs, seen, seen.hidden[2]), logits)
    assert isinstance(adapt(adapter.model), CausalAdapter)


def test_generation_still_has_its_cache():
    adapter = decoder("gpt2")
    adapter.forward(adapter.example_inputs())
    assert adapter.model.config.use_cache


def test_what_looks_ahead_is_no_causal_language_model():
    build = {"pretrained": None, "num_classes": 1, "head": "causal", **BERT}
    with pytest.raises(CapabilityError, match="huggingface/bert reads the tokens that come after.*is_decoder=True"):
        check_causal(build_backbone("huggingface/bert", **build))
    check_causal(build_backbone("huggingface/bert", is_decoder=True, **build))
    check_causal(decoder("llama"))


@pytest.mark.parametrize("name", ["granite", "mamba"])
def test_decoders_that_have_no_classifier_are_language_models_too(name):
    options = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 300}
    adapter = build_backbone(f"huggingface/{name}", pretrained=None, num_classes=1, head="causal", **options)
    check_causal(adapter)
    assert isinstance(adapter, CausalAdapter)


def test_what_is_refused():
    with pytest.raises(ConfigError, match="huggingface/vit-base-patch16-224 has no causal language model"):
        build_backbone("huggingface/vit-base-patch16-224", pretrained=None, num_classes=1, head="causal")
    with pytest.raises(CapabilityError, match="words of its vocabulary"):
        decoder("gpt2").replace_head(3)


def test_a_tokenizer_with_more_words_than_the_model_is_refused():
    adapter = decoder("gpt2", tokenizer="huggingface/minilm-l6")
    stream = adapter.text_transform().tokenizer
    with pytest.raises(ConfigError, match="vocabulary ends at 299"):
        stream(["hydrogen"])
    words, (first, second) = token_stream(adapter.tokenizer, 30522), ("a red circle", "round")
    assert words([(first, second)]) == words([first, second])
    assert {tokens[-1] for tokens in words([first, second])} == {adapter.tokenizer.sep_token_id}
