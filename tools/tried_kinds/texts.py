"""Tokenizers and texts."""

from __future__ import annotations

from pathlib import Path

import torch
from small_zoo import small
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import mdpd_plugins as mdpd
from mdpd_plugins.adapters import Adapter, build_backbone
from tools.tried_kinds.case import case, refusal
from tools.tried_kinds.learning import equal

WORDS = ["!", "good", "bad", "film", "the", "very", "plot", "great", "<unk>", "<end>", "[PAD]"]
LONG = "the very good film the very good film plot great"
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "eos_token_id": 9}
_ROBERTA = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def _tokenizer(folder: Path, **special: str) -> None:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", **special).save_pretrained(folder)


def _decoder(folder: Path, rows: int = len(WORDS)) -> Adapter:
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=rows, **_GPT2)).save_pretrained(folder)
    return build_backbone("huggingface/gpt2", pretrained=str(folder), num_classes=2)


def _roberta(folder: Path) -> Adapter:
    torch.manual_seed(0)
    fields = {"vocab_size": len(WORDS), "max_position_embeddings": 34, "type_vocab_size": 1, "pad_token_id": 1}
    model = RobertaForSequenceClassification(RobertaConfig(**_ROBERTA, **fields))
    model.save_pretrained(folder)
    _tokenizer(folder, pad_token="good", eos_token="<end>")  # RoBERTa's padding is row 1
    return mdpd.adapt(RobertaForSequenceClassification.from_pretrained(folder))


@case(
    "The padding token is set in the tokenizer alone, and a decoder that classifies by the last token misses it.",
    "transformers 34055",
    "a text's answer is the same beside a longer one, also from the export",
)
def padding_of_a_decoder(folder: Path) -> str:
    _tokenizer(folder / "a", eos_token="<end>", pad_token="[PAD]")
    adapter = _decoder(folder / "a")
    mdpd.export(adapter, folder / "out")
    for one in (adapter, mdpd.adapt(mdpd.load(folder / "out", device="cpu"))):
        read = one.transform()
        with torch.no_grad():
            alone = one.forward(read(["good film !"]))
            beside = one.forward(read(["good film !", LONG]))[:1]
        if not equal(beside, alone):
            return "the answer depends on the text beside it"
    return "a text's answer is the same beside a longer one, also from the export"


@case("A decoder's tokenizer has no padding token at all.", "transformers 22312", "refused by name")
def no_padding_token(folder: Path) -> str:
    _tokenizer(folder, eos_token="<end>")
    adapter = _decoder(folder)
    return refusal(adapter.transform, "no padding token", "tokenizer.pad_token")


@case(
    "Words were added to the tokenizer, and the model's table ends before them.",
    "transformers 12763",
    "refused by name",
)
def words_behind_the_table(folder: Path) -> str:
    _tokenizer(folder, eos_token="<end>", pad_token="[PAD]")
    return refusal(lambda: _decoder(folder, rows=10), "token 10", "ends at 9", "resize_token_embeddings")


@case(
    "A long text is cut to max_position_embeddings, of which RoBERTa cannot use the first two.",
    "transformers 14243",
    "cut to 32 of 34 positions, and it runs",
)
def positions_of_roberta(folder: Path) -> str:
    adapter = _roberta(folder)
    inputs = adapter.transform()([" ".join(["film"] * 60)])
    with torch.no_grad():
        adapter.forward(inputs)
    return f"cut to {inputs['input_ids'].shape[1]} of 34 positions, and it runs"


@case("A pair of texts has a second type, and RoBERTa's table of types has one row.", "transformers 2445", "it runs")
def pairs_for_roberta(folder: Path) -> str:
    adapter = _roberta(folder)
    inputs = adapter.transform()([("good film", "bad plot")])
    with torch.no_grad():
        out = adapter.forward(inputs)
    return "it runs" if out.shape == (1, 2) and bool(out.isfinite().all()) else str(out)


@case(
    "A long text is cut together with its end token, which the tower reads its answer from.",
    "open_clip 130",
    "24 tokens, the last of them the end",
)
def end_of_a_long_text(folder: Path) -> str:
    ids = small("oc-text").transform()(["a photo of a " + "very " * 60 + "large dog"])["input_ids"]
    return f"{ids.shape[1]} tokens, the last of them {'the end' if int(ids[0, -1]) == 49407 else int(ids[0, -1])}"
