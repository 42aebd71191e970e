"""Checkpoint files, read without ever running code that lies in them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from mdpd_plugins.registry.errors import CheckpointError

SAFETENSORS_FORMAT = {"format": "pt"}  # what a file says of itself; some versions of transformers load no other
WRAPPERS = ("module.", "_orig_mod.")  # DataParallel's and DistributedDataParallel's; torch.compile's


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Tensors of a `.safetensors` or PyTorch checkpoint (bare, or under "state_dict"/"model"), mapped from the file.

    What is read of them is what takes memory. The file must not be written to as long as they are used.

    Names are those of the plain model: what a wrapper puts before every one of them is taken off, as the zoos' own
    loaders do (open_clip's `load_state_dict`, mmengine's `load_checkpoint`).

    Raises:
        CheckpointError: the file is missing, unreadable, or holds pickled code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {str(path)!r} does not exist. Give an existing file or folder, "
            f"'auto' for the zoo's own weights, or None for random initialisation"
        )
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return _unwrapped(load_file(str(path)))
        except SafetensorError as error:
            raise CheckpointError(f"{str(path)!r} is not a readable safetensors file: {error}") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_mappable(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{str(path)!r} was refused: it holds pickled objects other than tensors and plain data, and loading "
            f"those would run code from the file. Save it again as its state_dict alone, best as safetensors. "
            f"({str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} is not a readable PyTorch checkpoint: {error}") from error
    held = loaded
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, torch.Tensor) for v in loaded.values()):
        parts = f", and it holds {', '.join(map(repr, list(held)[:6]))}" if isinstance(held, Mapping) and held else ""
        raise CheckpointError(f"{str(path)!r} holds no state dict: a mapping of names to tensors was expected{parts}")
    return _unwrapped(loaded)


def file_types(path: Path) -> set[torch.dtype]:
    """Types of the floating tensors in a checkpoint file; of a safetensors file, by its head alone.

    Raises:
        CheckpointError: as `read_state_dict`.
    """
    if path.suffix != ".safetensors":
        return {t.dtype for t in read_state_dict(path).values() if t.is_floating_point()}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            names = {file.get_slice(key).get_dtype() for key in file.keys()}
    except SafetensorError as error:
        raise CheckpointError(f"{str(path)!r} is not a readable safetensors file: {error}") from error
    floats = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    return {floats[name] for name in names if name in floats}


def _mappable(path: Path) -> bool:
    """Whether a file is in PyTorch's format since 1.6, whose tensors stay in the file until they are read."""
    return zipfile.is_zipfile(path)


def _unwrapped(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    while state and (prefix := next((p for p in WRAPPERS if all(k.startswith(p) for k in state)), "")):
        state = {k.removeprefix(prefix): v for k, v in state.items()}
    return dict(state)


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], head: Collection[str], source: str) -> list[str]:
    """Load `state` into `model`; keys of the output layer may be absent or of another shape.

    Args:
        head: native keys of the output layer.
        source: what to call the checkpoint in messages.

    Returns:
        The output layer's keys that were left as they are.

    Raises:
        CheckpointError: any other key is missing, unexpected or of another shape. The model is unchanged then.
    """
    own = model.state_dict()
    head = set(head)
    missing = [k for k in own if k not in state and k not in head]
    unexpected = [k for k in state if k not in own and not _belongs(k, own, head)]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape and k not in head]
    check_keys(source, type(model).__name__, missing, unexpected, shapes)
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(fitting, strict=False)
    return [k for k in own if k in head and k not in fitting]


def _belongs(key: str, own: Iterable[str], head: set[str]) -> bool:
    # A checkpoint's own head may have more layers than ours (a hidden layer before the classifier): what lies under
    # a part of the model that holds nothing but the head.
    top = key.partition(".")[0]
    there = [k for k in own if k.partition(".")[0] == top]
    return bool(there) and all(k in head for k in there)


def check_keys(
    source: str, model: str, missing: Collection[str], unexpected: Collection[str], shapes: Collection[str] = ()
) -> None:
    """Raise CheckpointError naming keys that differ, or return if none does."""
    parts = [
        f"{len(keys)} {what} ({', '.join(list(keys)[:4])}{', ...' if len(keys) > 4 else ''})"
        for keys, what in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        if keys
    ]
    if parts:
        raise CheckpointError(
            f"{source} is a checkpoint of another architecture than {model}: keys {'; '.join(parts)}. "
            f"Choose the backbone it was made for, or another checkpoint"
        )


__all__ = ["SAFETENSORS_FORMAT", "check_keys", "file_types", "load_weights", "read_state_dict"]
