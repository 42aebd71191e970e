"""Every export is read back once before it gets its name: by its zoo's own loader, on samples it was judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.storage.trust import asks_for_trust
from mdpd_plugins.exports.load import load_export
from mdpd_plugins.registry.errors import CheckpointError

# Largest difference of an output, as a share of the largest one (our choice). Zoos scale pixels in another order, which
# moves outputs by some 1e-6, and a GPU's TF32 by 1e-3. A weight, a size or a mean that was lost moves them far more.
SAME = 5e-3
ELSEWHERE = 2e-2  # the same where the trained model is on a GPU that has no room for a second one


def check_reloads(
    folder: Path,
    final: Path,
    adapter: Adapter,
    inputs: dict[str, torch.Tensor],
    examples: Sequence[Any] | None = None,
) -> None:
    """Load what was just written, and compare its outputs with those of the model in memory.

    Args:
        folder: the export, under a temporary name. final: the name that it is to get, for messages.
        adapter: of the trained and faded model.
        inputs: a few samples as training prepared them, on the model's device.
        examples: the same samples as they came, which the export prepares itself, as it will for whoever uses it. None
            where there are none: a live model's, or a language model's, whose samples are blocks of many texts.

    Raises:
        CheckpointError: it cannot be loaded, or puts out something else.
    """

    def refused(what: str) -> CheckpointError:
        return CheckpointError(
            f"the export of {adapter.name} {what}. Nothing was written to {str(final)!r}; the work directory with its "
            f"checkpoints is as it was. Please report this with your configuration"
        )

    with torch.no_grad():
        ours = adapter.forward(inputs).float().cpu()
    tolerance = SAME
    try:
        model, forward = _read(folder, adapter, inputs, examples)
        try:
            model.to(adapter.device)
        except torch.OutOfMemoryError:
            model.to("cpu")
            tolerance = ELSEWHERE
        with torch.no_grad():
            theirs = forward().float().cpu()
    except Exception as error:  # whatever a framework raises, of the files or of a size that it does not take
        said = " ".join(str(error).replace(str(folder), str(final)).split())
        raise refused(f"cannot be used once it is loaded again ({type(error).__name__}: {said})") from error
    if theirs.shape != ours.shape:
        raise refused(f"puts out {tuple(theirs.shape)} once it is loaded again, and {tuple(ours.shape)} was trained")
    tolerance = max(tolerance, 8 * torch.finfo(next(model.parameters()).dtype).eps)
    difference, largest = float((theirs - ours).abs().max()), float(ours.abs().max())
    if not difference <= tolerance * largest:
        raise refused(
            f"puts out other numbers once it is loaded again: they differ by up to {difference:.1e}, and the largest "
            f"is {largest:.1e}"
        )


def _read(
    folder: Path, adapter: Adapter, inputs: dict[str, torch.Tensor], examples: Sequence[Any] | None
) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    """The model that the folder holds, and its outputs for the samples, wherever it is by then."""
    if examples is None:
        reader = adapter.around(adapter.load_exported(folder))
        return reader.model, lambda: reader.forward({k: v.to(reader.device) for k, v in inputs.items()})
    # The folder's code, if it brings any, is what the model in memory runs, and only where that was asked for.
    exported = load_export(folder, "cpu", trust_remote_code=asks_for_trust(adapter.options))
    return exported.model, lambda: exported.forward(exported.prepare(examples))


__all__ = ["check_reloads"]
