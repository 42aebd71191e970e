"""HuggingFace transformers' causal language models, and which adapter a transformers model gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.built import Built, as_built
from mdpd_plugins.adapters.transform import Tensors, TextTransform
from mdpd_plugins.data.packed import pack
from mdpd_plugins.registry.errors import CapabilityError, ConfigError
from mdpd_plugins.zoos.huggingface.adapter import HuggingFaceAdapter
from mdpd_plugins.zoos.huggingface.encoder import EncoderWithHead, HuggingFaceEncoderAdapter
from mdpd_plugins.zoos.huggingface.inputs import LENGTH, reads
from mdpd_plugins.zoos.huggingface.models import CAUSAL
from mdpd_plugins.zoos.huggingface.question import QuestionAdapter
from mdpd_plugins.zoos.huggingface.texts import count_positions
from mdpd_plugins.zoos.transformers_code import own_code_only

Tokens = Callable[[Sequence[Any]], list[list[int]]]


class CausalAdapter(HuggingFaceAdapter):
    """An `AutoModelForCausalLM`. Its outputs are (B, T, V): at each token, logits of the next one.

    Its vocabulary is its tokenizer's, so it has no output layer for classes of one's own.
    """

    def example_inputs(self, batch: int = 2) -> dict[str, torch.Tensor]:
        """Texts of 16 tokens without padding, as packed texts are."""
        return {"input_ids": super().example_inputs(batch)["input_ids"]}

    def output_layer(self) -> nn.Module:
        """The layer behind the final norm: `weight` (V, D) and maybe `bias` (V,)."""
        found = self.model.get_output_embeddings()  # type: ignore[operator]
        if found is None:
            raise CapabilityError(f"{self.name} does not say which layer its outputs come from")
        return found

    def tail_parameters(self) -> dict[str, nn.Parameter]:
        """What lies between the last block and the logits, and there only.

        An output layer that is the input embedding (GPT-2) does not belong to it: training it would change what
        enters the first block. The output layer of a model that keeps both apart (Llama) does.
        """
        embedding = {id(p) for p in self.model.get_input_embeddings().parameters()}  # type: ignore[operator]
        return {n: p for n, p in super().tail_parameters().items() if id(p) not in embedding}

    def _text_transform(self) -> TextTransform:
        tokens = token_stream(self.tokenizer, self.config.get_text_config().vocab_size)
        positions = count_positions(lambda: self._run(self.example_inputs()), LENGTH)
        limit = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        limits = [n for n in (positions, limit) if isinstance(n, int) and n > 0]
        return PackedTransform(tokens, min(limits, default=2**20))

    def replace_head(self, num_outputs: int) -> None:
        """Refused: the outputs are the tokenizer's words."""
        raise CapabilityError(f"{self.name} is a language model: its outputs are the words of its vocabulary")

    def set_labels(self, classes: tuple[str, ...], kind: str = "single") -> None:
        """A language model has no classes to write."""
        self.labels = (kind, ())

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported folder through `from_pretrained`."""
        import transformers

        with own_code_only(folder):
            model = getattr(transformers, CAUSAL).from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        return model.eval()


class PackedTransform(TextTransform):
    """Texts to blocks of tokens, not to a row each.

    Args:
        tokenizer: see `token_stream`. max_length: tokens of a block.
    """

    def __call__(self, texts: Sequence[Any]) -> Tensors:
        """{"input_ids": (N, max_length) int64}; what is left at the end is dropped."""
        return {"input_ids": pack(list(texts), self.tokenizer, self.max_length).long()}


def token_stream(tokenizer: Any, vocabulary: int) -> Tokens:
    """A function from texts to their tokens, each list closed by the end-of-text token; a pair of texts is two.

    No other special tokens are put in. Where a tokenizer has no end-of-text token (BERT's), its separator serves.

    Args:
        tokenizer: transformers'. vocabulary: V of the model.

    Raises:
        ConfigError: it has neither; when called: it has more words than the model.
    """
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end is None:
        raise ConfigError("the tokenizer has no end-of-text token: texts could not be told apart. Give another one")

    def tokens(texts: Sequence[Any]) -> list[list[int]]:
        parts = [part for text in texts for part in (text if isinstance(text, tuple) else (text,))]
        found = tokenizer(parts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        found = [[*ids, end] for ids in found]
        if (largest := max(map(max, found))) >= vocabulary:
            raise ConfigError(
                f"the tokenizer has a token {largest}, but the model's vocabulary ends at {vocabulary - 1}: give the "
                f"model's own tokenizer, or set backbone.options.vocab_size for one without pretrained weights"
            )
        return found

    return tokens


def adapter_of(model: nn.Module | Built, *, name: str = "", modality: str = "") -> HuggingFaceAdapter:
    """The adapter of a transformers model: of a causal language model, a bare encoder, or a classifier of one input or
    of a picture with a question."""
    from transformers.models.auto import modeling_auto

    built = as_built(model)
    if isinstance(built.model, EncoderWithHead):
        return HuggingFaceEncoderAdapter(built, name=name, modality=modality)
    causal = type(built.model).__name__ in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    if causal:
        return CausalAdapter(built, name=name, modality="text")
    if reads(built.model) == "image-text":
        return QuestionAdapter(built, name=name)
    return HuggingFaceAdapter(built, name=name, modality=modality)


__all__ = ["CausalAdapter", "PackedTransform", "adapter_of", "token_stream"]
