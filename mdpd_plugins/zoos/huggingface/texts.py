"""Texts as a transformers checkpoint's own tokenizer prepares them, and how long they may be."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mdpd_plugins.adapters.storage.trust import remote_code_trusted
from mdpd_plugins.adapters.transform import Tensors
from mdpd_plugins.registry.errors import CheckpointError, ConfigError, MDPDError
from mdpd_plugins.zoos.transformers_code import own_code_only

USUAL_LENGTH = 512  # tokens, where neither model nor tokenizer has a limit
_NO_LIMIT = 10**9  # a tokenizer without a limit says 10**30


def read_tokenizer(source: str) -> Any:
    """The tokenizer in a folder or of a hub id.

    Raises:
        CheckpointError: there is none. For a folder without its files transformers makes some types up from nothing:
            every word is then the same token.
    """
    from transformers import AutoTokenizer

    hint = (
        "put the tokenizer's files beside the weights (tokenizer.save_pretrained), or name a folder or hub id that has "
        "them: backbone.options.tokenizer"
    )
    try:
        with own_code_only(source):
            local, trusted = os.path.isdir(source), remote_code_trusted()
            found = AutoTokenizer.from_pretrained(source, local_files_only=local, trust_remote_code=trusted)
    except MDPDError:
        raise
    except Exception as error:  # each type of tokenizer fails in its own way
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise CheckpointError(f"{source!r} gives no tokenizer ({type(error).__name__}: {reason}): {hint}") from error
    special = set(found.all_special_tokens)
    words = (token for token in found.get_vocab() if token not in special)
    if not any(letter.isalnum() for token in words for letter in str(token)):
        raise CheckpointError(
            f"{source!r} holds no tokenizer files (tokenizer.json, vocab.txt, ...), and a {type(found).__name__} made "
            f"up without them knows no word: {hint}"
        )
    return found


def agree_on_padding(tokenizer: Any, config: Any, name: str, made_up: bool = False) -> None:
    """Let tokenizer and model mean the same token by padding: the one of the model's configuration, if it has one.

    Decoders classify by the last token that is not padding, which they tell by its id.

    Args:
        name: of the model. made_up: whether the configuration's padding token is nobody's choice.

    Raises:
        ConfigError: there is no padding token at all.
    """
    text = config.get_text_config()
    wanted = None if made_up else getattr(text, "pad_token_id", None)
    if not isinstance(wanted, int) or not 0 <= wanted < len(tokenizer):
        wanted = tokenizer.pad_token_id
    if wanted is None:
        raise ConfigError(
            f"the tokenizer of {name} has no padding token, and texts of different lengths make no batch without one. "
            f"Give it one and save it beside the weights: tokenizer.pad_token = tokenizer.eos_token; "
            f"tokenizer.save_pretrained(FOLDER); then backbone.options.tokenizer=FOLDER"
        )
    if wanted != tokenizer.pad_token_id:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(wanted)
    if made_up or getattr(text, "pad_token_id", None) is None:
        text.pad_token_id = config.pad_token_id = wanted


class Tokens:
    """Texts, or pairs of texts, to padded tokens.

    Args:
        tokenizer: transformers'. rows: words that the model's embedding holds; None where that is not known.
    """

    def __init__(self, tokenizer: Any, rows: int | None = None) -> None:
        self.tokenizer, self.rows = tokenizer, rows

    def __call__(self, texts: Sequence[Any], max_length: int) -> Tensors:
        """What the tokenizer returns, `input_ids` and `attention_mask` (B, T) among it.

        Raises:
            ConfigError: a token that the model has no row for.
        """
        pairs = [t if isinstance(t, tuple) else (t, None) for t in texts]
        first, second = [a for a, _ in pairs], [b for _, b in pairs]
        cut = {"padding": True, "truncation": True, "max_length": max_length, "return_tensors": "pt"}
        found = dict(self.tokenizer(first, None if all(b is None for b in second) else second, **cut))
        if self.rows is not None and (largest := int(found["input_ids"].max())) >= self.rows:
            raise no_row(largest, repr(self.tokenizer.convert_ids_to_tokens(largest)), self.rows)
        return found


def no_row(token: int, name: str, rows: int) -> ConfigError:
    """The error for a token that a model has no row for."""
    return ConfigError(
        f"the tokenizer has a token {token} ({name}), but the model's vocabulary ends at {rows - 1}: give the model's "
        f"own tokenizer, or enlarge the vocabulary before saving the model (resize_token_embeddings(len(tokenizer)))"
    )


def rows_of(model: Any) -> int | None:
    """Words that a model's input embedding holds; None where it has no such table."""
    try:
        found = getattr(model.get_input_embeddings(), "num_embeddings", None)
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(found, int) else None


def longest_text(config: Any, tokenizer: Any, positions: int | None) -> int:
    """Tokens that a text may have.

    Args:
        positions: what `count_positions` found.
    """
    limits = [positions, getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    found = [int(n) for n in limits if isinstance(n, (int, float)) and 0 < n < _NO_LIMIT]
    return min(found) if found else USUAL_LENGTH


def count_positions(run: Callable[[], Any], length: int) -> int | None:
    """Tokens that a model's tables of positions have rows for; None if it looks up no positions in a table.

    Found by looking: in a forward pass, a table from which one text reads consecutive rows is one of positions. Where
    the first token's row is not row 0, fewer tokens fit than the table has rows: RoBERTa and its kin start behind the
    row of their padding token, BART at row 2.

    Args:
        run: a forward pass whose first sample has `length` tokens and no padding.
    """
    seen = _Lookups(length)
    with torch.no_grad(), seen:
        run()
    return min(seen.room, default=None)


class _Lookups(TorchDispatchMode):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.room: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.embedding.default:
            table, rows = args[0], args[1]
            if rows.dim() and rows.shape[-1] >= self.length:
                first = rows.reshape(-1, rows.shape[-1])[0, : self.length].tolist()
                if first == list(range(first[0], first[0] + self.length)):
                    self.room.append(table.shape[0] - first[0])
        return func(*args, **(kwargs or {}))


__all__ = [
    "USUAL_LENGTH",
    "Tokens",
    "agree_on_padding",
    "count_positions",
    "longest_text",
    "no_row",
    "read_tokenizer",
    "rows_of",
]
