"""Texts as a checkpoint's tokenizer and model take them: padding, length, and what is refused."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from mdpd_plugins.adapters import adapt, build_backbone
from mdpd_plugins.registry import CheckpointError, ConfigError

WORDS = ["!", "good", "bad", "film", "the", "very", "plot", "great", "<unk>", "<end>", "[PAD]"]
LONG = "the very good film the very good film plot great"
TINY = {"vocab_size": 11, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def tokenizer(folder, words=WORDS, **special):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", **special).save_pretrained(folder)


def decoder(folder, rows=11, **fields):
    config = GPT2Config(vocab_size=rows, n_embd=32, n_layer=2, n_head=2, n_positions=64, eos_token_id=9, **fields)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)


def difference(adapter) -> float:
    """How much a text's answer depends on a longer one beside it. It ends in the token of id 0."""
    transform, text = adapter.transform(), "good film !"
    with torch.no_grad():
        return (adapter.forward(transform([text]))[0] - adapter.forward(transform([text, LONG]))[0]).abs().max().item()


def test_a_decoder_is_padded_with_its_tokenizers_padding(tmp_path):
    tokenizer(tmp_path / "a", eos_token="<end>", pad_token="[PAD]")
    decoder(tmp_path / "a")
    adapter = build_backbone("huggingface/gpt2", pretrained=str(tmp_path / "a"), num_classes=2)
    assert adapter.model.config.pad_token_id == 10
    assert difference(adapter) < 1e-5
    adapter.export(tmp_path / "out")
    live = adapt(AutoModelForSequenceClassification.from_pretrained(tmp_path / "out"))
    assert difference(live) < 1e-5


def test_a_live_decoder_without_padding_gets_its_tokenizers(tmp_path):
    tokenizer(tmp_path, eos_token="<end>", pad_token="[PAD]")
    decoder(tmp_path)
    adapter = adapt(AutoModelForSequenceClassification.from_pretrained(tmp_path))
    assert difference(adapter) < 1e-5 and adapter.model.config.pad_token_id == 10


def test_where_model_and_tokenizer_name_different_padding_the_models_is_taken(tmp_path):
    tokenizer(tmp_path, eos_token="<end>", pad_token="[PAD]")
    decoder(tmp_path, pad_token_id=9)
    adapter = build_backbone("huggingface/gpt2", pretrained=str(tmp_path), num_classes=2)
    ids = adapter.transform()(["good", LONG])["input_ids"]
    assert ids[0].tolist() == [1] + [9] * 9 and difference(adapter) < 1e-5


def test_no_padding_token_at_all_is_refused_and_the_way_out_works(tmp_path):
    tokenizer(tmp_path, eos_token="<end>")
    decoder(tmp_path)
    adapter = build_backbone("huggingface/gpt2", pretrained=str(tmp_path), num_classes=2)
    with pytest.raises(ConfigError, match="no padding token.*tokenizer.pad_token = tokenizer.eos_token"):
        adapter.transform()
    given = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    given.pad_token = given.eos_token
    given.save_pretrained(tmp_path / "padded")
    options = {"pretrained": str(tmp_path), "num_classes": 2, "tokenizer": str(tmp_path / "padded")}
    assert difference(build_backbone("huggingface/gpt2", **options)) < 1e-5


def test_a_token_that_the_model_has_no_row_for_is_named(tmp_path):
    tokenizer(tmp_path, eos_token="<end>", pad_token="[PAD]")
    decoder(tmp_path, rows=10)
    with pytest.raises(ConfigError, match=r"token 10 \(its padding token\), but the model's vocabulary ends at 9"):
        build_backbone("huggingface/gpt2", pretrained=str(tmp_path), num_classes=2)


@pytest.mark.parametrize("words", [None, ["<unk>", "<end>", "[PAD]", "."]])
def test_a_tokenizer_made_up_from_nothing_is_refused_by_name(words, tmp_path):
    BertModel(BertConfig(**TINY)).save_pretrained(tmp_path)
    if words:
        tokenizer(tmp_path, words, eos_token="<end>", pad_token="[PAD]")
    adapter = build_backbone("huggingface/bert", pretrained=str(tmp_path), num_classes=2)
    with pytest.raises(CheckpointError, match=f"{tmp_path}.*holds no tokenizer files.*backbone.options.tokenizer"):
        adapter.transform()
    adapter.export(tmp_path / "out")  # whoever trains it makes tokens elsewhere
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    options = {"pretrained": str(tmp_path), "num_classes": 2, "tokenizer": "huggingface/minilm-l6"}
    with pytest.raises(ConfigError, match="vocabulary ends at 10"):  # another model's, said by name
        build_backbone("huggingface/bert", **options).transform()(["good film"])


def test_bytes_need_no_files(tmp_path):
    sizes = {"d_model": 32, "d_latents": 32, "num_latents": 8, "num_self_attends_per_block": 2}
    heads = {"num_cross_attention_heads": 2, "num_self_attention_heads": 2, "qk_channels": 32, "v_channels": 32}
    config = AutoConfig.for_model("perceiver", max_position_embeddings=40, **sizes, **heads)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    adapter = build_backbone("huggingface/perceiver", pretrained=str(tmp_path), num_classes=2, head="text")
    assert adapter.transform()(["a", "bc"])["input_ids"].shape[0] == 2


@pytest.mark.parametrize(
    ("model_type", "positions"),
    [
        *((kind, 16) for kind in ("roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "ibert", "esm")),
        *((kind, 18) for kind in ("bert", "electra", "distilbert")),
        ("roberta-prelayernorm", 16),
        ("luke", 16),
    ],
)
def test_texts_are_cut_to_what_the_tables_of_positions_have_rows_for(model_type, positions, tmp_path):
    fields = {**TINY, "vocab_size": 8, "max_position_embeddings": 18, "pad_token_id": 1}
    if model_type == "distilbert":
        fields = {"vocab_size": 8, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, "pad_token_id": 1}
        fields["max_position_embeddings"] = 18
    if model_type == "luke":
        fields |= {"entity_vocab_size": 4, "entity_emb_size": 8}
    AutoModel.from_config(AutoConfig.for_model(model_type, **fields)).save_pretrained(tmp_path)
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a"]
    tokenizer(tmp_path, words, pad_token="<pad>", cls_token="<s>", sep_token="</s>")
    adapter = build_backbone(f"huggingface/{model_type}", pretrained=str(tmp_path), num_classes=2)
    transform = adapter.transform()
    assert transform.max_length == positions
    inputs = transform(["a " * 40, "a"])
    assert inputs["input_ids"].shape == (2, positions)
    with torch.no_grad():
        assert adapter.forward(inputs).isfinite().all()
    adapter.prepare(max_length=7)
    assert adapter.transform()(["a " * 40])["input_ids"].shape == (1, 7)


def test_bart_looks_its_positions_up_two_rows_further_on_and_takes_as_many_as_it_says(tmp_path):
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 18}
    AutoModel.from_config(AutoConfig.for_model("bart", vocab_size=8, **sizes, **heads)).save_pretrained(tmp_path)
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a"]
    tokenizer(tmp_path, words, pad_token="<pad>", cls_token="<s>", sep_token="</s>", eos_token="</s>")
    adapter = build_backbone("huggingface/bart", pretrained=str(tmp_path), num_classes=2)
    assert adapter.transform().max_length == 18
