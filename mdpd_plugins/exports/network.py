"""A deployed network in one file that runs without this project: ONNX, or PyTorch's exported program.

It stands beside the zoo's own export, whose preparation of inputs it shares: its inputs are what the zoo's model is
given. With a side network that is kept, it is the backbone and that side network together.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.engine.side import towers_of
from mdpd_plugins.exports.exported import ExportedModel, Tensors
from mdpd_plugins.registry.errors import CapabilityError, CheckpointError, MissingDependencyError

FORMATS = {"onnx": "network.onnx", "torch": "network.pt2"}
"""Format -> the file's name in the folder of an export."""
MOST_AT_ONCE = 2**31 - 1  # samples: without a bound, PyTorch 2.6 asks for one below the largest number
SAME = 1e-4  # largest difference of an output, as a share of the largest one; of what both compute in float32
TRACED, CHECKED = 2, 3  # samples; another number proves that the batch size is free


class Deployed(nn.Module):
    """An exported model, and where there is one its side network, as a function of tensors by name.

    Args:
        exported: read back from its folder. side: what reads its hidden states, with `adapter`, the backbone's.
    """

    def __init__(self, exported: ExportedModel, side: nn.Module | None = None, adapter: Adapter | None = None):
        super().__init__()
        self.model, self.side = exported.model, side
        self.call: Callable[[Tensors], torch.Tensor] = exported.call
        self.adapter = None if adapter is None else [adapter.around(exported.model)]  # no module of its own

    def forward(self, inputs: Tensors) -> torch.Tensor:
        """Outputs (B, C) float32, of the side network if there is one."""
        if self.side is None or self.adapter is None:
            return self.call(inputs).float()
        adapter = self.adapter[0]
        canonical = adapter.as_inputs(inputs)
        with adapter.capture() as seen, adapter.watched(canonical):
            self.call(inputs)
        return self.side(towers_of(adapter, seen, canonical)).logits.float()


def write_network(
    folder: Path, deployed: Deployed, kind: str, prepare: Callable[[Sequence[Any]], Tensors], examples: Sequence[Any]
) -> str:
    """Write a network into an export's folder, run it, and compare; the file's name.

    The number of samples is free, and so is the length of texts.

    Args:
        kind: a row of `FORMATS`. examples: a few samples, as the export prepares them with `prepare`.

    Raises:
        MissingDependencyError: what writes or runs the format is not installed.
        CapabilityError: the model is quantised, its code cannot be traced, or the file puts out something else.
    """
    packed = next((n for n, p in deployed.model.named_parameters() if not p.is_floating_point()), None)
    if packed is not None:
        raise CapabilityError(
            f"{packed} is quantised, and {FORMATS[kind]} holds ordinary weights: train with "
            f"backbone.quantized_export=False, or take the zoo's own export"
        )
    if kind == "onnx":
        _import_onnx()
    examples = (list(examples) * CHECKED)[: TRACED + CHECKED]
    traced, checked = prepare(examples[:TRACED]), prepare(examples[-CHECKED:])
    path = folder / FORMATS[kind]
    deployed.eval()
    try:
        with _quiet(), torch.no_grad():
            wanted = deployed(checked)  # first: the adapter looks into the model once, which a tracer must not see
            program = torch.export.export(
                deployed, (traced,), dynamic_shapes=({k: _free(v) for k, v in traced.items()},), strict=False
            )
            if kind == "onnx":
                written: Any = torch.onnx.export(program, dynamo=True, verbose=False, input_names=list(traced))
                written.save(str(path))
            else:
                torch.export.save(program, str(path))
    except Exception as error:  # whatever a tracer raises for code that it cannot follow
        path.unlink(missing_ok=True)
        reason = (str(error).strip().splitlines() or [""])[0]
        raise CapabilityError(
            f"the network cannot be written as {path.name}: its code cannot be traced ({type(error).__name__}: "
            f"{reason}). Take the zoo's own export"
        ) from error
    found = read_network(path)(checked)
    difference, largest = float((found - wanted).abs().max()), float(wanted.abs().max())
    if not difference <= SAME * max(largest, 1.0):
        path.unlink()
        raise CapabilityError(
            f"the network in {path.name} puts out other numbers than the model: they differ by up to {difference:.1e}, "
            f"and the largest is {largest:.1e}. Take the zoo's own export"
        )
    return path.name


def read_network(path: Path) -> Callable[[Tensors], torch.Tensor]:
    """A function from inputs by name to outputs (B, C) float32 on the CPU, of a file that `write_network` wrote.

    Raises:
        MissingDependencyError: what runs it is not installed.
        CheckpointError: it cannot be read.
    """
    try:
        if path.suffix == ".pt2":
            module = torch.export.load(str(path)).module()
            return lambda inputs: module(inputs)
        _import_onnx()
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
    except (MissingDependencyError, KeyboardInterrupt):
        raise
    except Exception as error:  # each library has its own
        reason = (str(error).strip().splitlines() or [""])[0]
        raise CheckpointError(f"{str(path)!r} cannot be read ({type(error).__name__}: {reason})") from error
    names = [one.name for one in session.get_inputs()]

    def run(inputs: Tensors) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {name: inputs[name].numpy() for name in names})[0])

    return run


def through(exported: ExportedModel, path: Path) -> ExportedModel:
    """An export whose outputs come from the network in a file."""
    run = read_network(path)
    return replace(exported, call=lambda inputs: run({k: v.cpu() for k, v in inputs.items()}))


def _free(tensor: torch.Tensor) -> dict[int, Any]:
    # Of a picture the size is the model's; of a text the length is free.
    batch = {0: torch.export.Dim("batch", max=MOST_AT_ONCE)}
    return {**batch, 1: torch.export.Dim.AUTO} if tensor.dim() == 2 else batch


def _import_onnx() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"ONNX needs the packages onnxscript and onnxruntime ({error}): pip install 'mdpd-plugins[onnx]'"
        ) from error


@contextlib.contextmanager
def _quiet():
    # The exporter prints its progress, and the optimiser behind it warns of constants that it leaves as they are.
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


__all__ = ["FORMATS", "Deployed", "read_network", "through", "write_network"]
