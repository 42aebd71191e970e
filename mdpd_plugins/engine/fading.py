"""Throwing the side network away, and proof that nothing else went with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.quantized import NONE, plain_keys
from mdpd_plugins.engine.distiller import Distiller
from mdpd_plugins.engine.masters import NARROW
from mdpd_plugins.registry.errors import CapabilityError, MDPDError

# float32 rounding of W + BA, through tens of layers; measured differences are some 1e-6 of the outputs (our choice).
MERGE_TOLERANCE = 1e-4
# Where a model picks neighbours by distance (ViG), the last bit of a weight moves its outputs by 6e-4. Merging may move
# them by several times what one such bit does (our choice; measured: once).
LAST_BITS = 8
# Roundings of a bfloat16 or float16, of the largest output (our choice: several times what was measured).
NARROW_ROUNDINGS = 16


@dataclass(frozen=True)
class FadingReport:
    """What fading found.

    Attributes:
        outputs_equal: the plain model's outputs equal the trained backbone path's, bit for bit.
        merged: layers that low-rank updates were added to. Adding them rounds, as does going back to the checkpoint's
            type, so then outputs are equal to `MERGE_TOLERANCE` of their largest value instead, or to
            `NARROW_ROUNDINGS` roundings of the narrower of both types, or to `LAST_BITS` times what the last bit of
            one weight moves them by.
        quantization: how linear layers were held in training, "none", "int8" or "nf4". The plain model has the
            checkpoint's own weights there, so its outputs differ by what quantising took away, which has no bound.
        exported_quantized: it has the quantised ones instead, in the form that its library saves. Outputs then differ
            only where an update was merged, because the sum is quantised again. They are compared before the library's
            own layers are put in, which round in their own way.
        largest_difference, largest_output: of outputs on `inputs`, the former between both, the latter as trained.
        trained_in, exported_in: types of the weights, such as "bfloat16".
        keys_equal: its state-dict keys are those of the model that training began with.
        parameters: of the plain model. side_parameters: thrown away.
        latency_ratio: seconds of backbone with side network over seconds of the backbone alone, median of pairs.
    """

    outputs_equal: bool
    keys_equal: bool
    parameters: int
    side_parameters: int
    latency_ratio: float
    merged: int = 0
    largest_difference: float = 0.0
    largest_output: float = 0.0
    quantization: str = NONE
    exported_quantized: bool = False
    trained_in: str = "float32"
    exported_in: str = "float32"
    trained: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a summary."""
        return asdict(self)


def fade(
    distiller: Distiller, inputs: Any = None, *, repeats: int = 5, quantized: bool = False
) -> tuple[nn.Module, FadingReport]:
    """The zoo's plain model, with what the side network taught it, and a report.

    The distiller's side network is gone afterwards. The model is in eval mode, its `requires_grad` flags are what they
    were, and the task's class names stand where its zoo keeps them.

    Args:
        inputs: what to compare outputs and time both paths on, as `Distiller.backward` takes it; by default the
            adapter's example inputs.
        repeats: timed pairs.
        quantized: leave layers that were held quantised so, in the form that the zoo's library saves; the checkpoint
            is then not read again. Where it was quantised itself, that is so in any case.

    Raises:
        UsageError: after fading or closing.
        CapabilityError: `quantized`, and nothing is, or the zoo's library has no such form.
        MDPDError: outputs or keys differ (a bug: the export would not be what was trained).
    """
    distiller.check_open("fade")
    adapter = distiller.adapter
    inputs = adapter.example_inputs() if inputs is None else adapter.as_inputs(inputs)
    quantization = adapter.held_quantized()
    if quantization != NONE and not adapter.originals() and not adapter.random:
        quantized = True
    if quantized:
        check_savable(adapter)
    distiller.masters.publish()
    with torch.no_grad():
        with distiller.plain_flags():
            before = adapter.forward(inputs).float()
        ratio = _latency_ratio(distiller, inputs, repeats) if distiller.side is not None else 1.0
    held = adapter.dtype
    side = sum(p.numel() for p in distiller.side_parameters())
    merged = distiller.trained.merge(distiller.masters, quantized=quantized)
    distiller.drop_side()
    if adapter.dtype != held:
        adapter.settle_types()
    keys = plain_keys(adapter.model)
    with torch.no_grad():
        after = adapter.forward(inputs).float()
    difference = float((before - after).abs().max())
    narrow = [torch.finfo(dtype).eps for dtype in (held, adapter.dtype) if dtype in NARROW]
    tolerance = max([MERGE_TOLERANCE, *(NARROW_ROUNDINGS * eps for eps in narrow)])
    rounded = bool(merged) or adapter.dtype != held
    largest = float(before.abs().max())
    requantized = quantization != NONE and (not quantized or bool(merged))
    close = requantized or (rounded and difference <= tolerance * largest)
    if rounded and not close:
        close = difference <= LAST_BITS * _moved_by_the_last_bit(adapter, inputs, after)
    report = FadingReport(
        outputs_equal=bool(torch.equal(before, after)),
        keys_equal=keys == distiller.trained.original_keys,
        parameters=sum(p.numel() for p in adapter.parameters().values()),
        side_parameters=side,
        latency_ratio=ratio,
        merged=merged,
        largest_difference=difference,
        largest_output=largest,
        quantization=quantization,
        exported_quantized=quantized,
        trained_in=str(held).removeprefix("torch."),
        exported_in=str(adapter.dtype).removeprefix("torch."),
        trained={k: p.numel() for k, p in distiller.trainable.items()},
    )
    if not ((report.outputs_equal or close) and report.keys_equal):
        same = "the same" if report.keys_equal else "others"
        raise MDPDError(
            f"fading changed the backbone: outputs differ by {difference:.3g} (the largest is {largest:.3g}, and "
            f"{merged} layers had updates), its keys are {same}. Please report this with your configuration"
        )
    if quantized:
        # Last, so that they are saved as they are: bitsandbytes packs weights anew at the first inference on some
        # processors, which rounds their scales for good.
        adapter.keep_quantized()
    adapter.set_labels(distiller.task.classes, distiller.task.kind)
    return adapter.model, report


@torch.no_grad()
def _moved_by_the_last_bit(adapter: Adapter, inputs: Any, outputs: torch.Tensor) -> float:
    """By how much outputs move, at most, where one matrix of the first block is rounded up or down. It is put back."""
    matrices = [p for p in adapter.blocks()[0].parameters() if p.dim() > 1 and p.is_floating_point()]
    moved = 0.0
    for matrix in matrices[:1]:
        own = matrix.data
        try:
            for limit in (float("inf"), -float("inf")):
                matrix.data = torch.nextafter(own, torch.full_like(own, limit))
                moved = max(moved, float((adapter.forward(inputs).float() - outputs).abs().max()))
        finally:
            matrix.data = own
    return moved


def check_savable(adapter: Adapter) -> None:
    """Raise CapabilityError unless a model is held quantised and can be exported so."""
    if adapter.held_quantized() == NONE:
        raise CapabilityError(
            f"{adapter.name} is not held quantised, so it cannot be exported so: set backbone.quantization, too"
        )
    adapter.check_quantized_export()


def _latency_ratio(distiller: Distiller, inputs, repeats: int) -> float:
    def run_both() -> None:
        with distiller.adapter.capture() as seen:
            distiller.adapter.forward(inputs)
        distiller.run_side(seen, inputs)

    ratios = []
    for i in range(repeats + 1):
        alone = timed(lambda: distiller.adapter.forward(inputs))
        both = timed(run_both)
        if i:  # the first pair warms caches up
            ratios.append(both / alone)
    return sorted(ratios)[len(ratios) // 2]


def timed(call: Callable[[], Any]) -> float:
    """Seconds that `call` takes, the GPU's queue included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


__all__ = ["FadingReport", "fade", "timed"]
