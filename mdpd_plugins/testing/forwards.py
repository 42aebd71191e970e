"""Checks of forwards: replay, traces, attention maps, other batch and input sizes, padding."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.inspection.layout import first_tensor, fit_mask
from mdpd_plugins.registry.errors import CapabilityError
from mdpd_plugins.testing.outcome import NotApplicable
from mdpd_plugins.testing.specimen import Specimen

MOST_SAMPLES, MOST_PIXELS = 64, 256  # of batches and pictures whose sizes are made to coincide
ROUNDING = 5e-5  # of weights between 0 and 1, from scores of any size (Gemma 4 does not scale them)
TOLERANCE = 1e-4  # of kernels that sum in another order for another batch or length
ANOTHER = (
    0.1  # more than rounding may change where it decides (which patches are nearest, ViG), less than a wrong sample
)


def tail(s: Specimen) -> str:
    """The last hidden state, pushed through the zoo's own norm, pool and head, gives the model's output bit for bit."""
    a = s.pristine
    hidden = [s.seen.hidden[i] for i in a.last_layers]
    with torch.no_grad():
        again = a.forward_head(s.inputs, s.seen, *hidden)
        # As large as what it is added to: random weights may make that so large that ones are lost in rounding.
        other = a.forward_head(s.inputs, s.seen, *(h + torch.randn_like(h) * h.std().clamp(min=1) for h in hidden))
    assert torch.equal(again, s.logits), f"the outputs differ by up to {(again - s.logits).abs().max():.1e}"
    assert not torch.equal(other, s.logits), "another last hidden state gives the same output: it is not what is read"
    return f"logits {tuple(again.shape)}"


def trace(s: Specimen) -> str:
    """Capture leaves no hook and no changed attribute, also after an exception inside, and changes no output."""
    a = s.pristine
    before = _snapshot(a.model)
    with torch.no_grad():
        reference = a.forward(s.inputs)
        with a.capture(keep_calls=True):
            inside = a.forward(s.inputs)
        try:
            with a.capture(attention=True), a.recompute():
                a.forward(s.inputs)
                raise _Stop
        except (_Stop, CapabilityError):
            pass
        after = a.forward(s.inputs)
    changed = [name for name, now in _snapshot(a.model).items() if before.get(name) != now]
    assert not changed, f"capture left something on {changed[:3]}"
    assert torch.equal(reference, inside), "the output inside a capture differs"
    assert torch.equal(reference, after), "the output after a capture differs"
    return ""


class _Stop(Exception):
    pass


def _snapshot(model: nn.Module) -> dict[str, Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        name: (
            sorted(module.__dict__),
            [len(module.__dict__.get(h, ())) for h in hooks],
            module.__dict__.get("forward"),
            module.training,
            [(k, id(p), p._version, p.requires_grad) for k, p in module._parameters.items() if p is not None],
        )
        for name, module in model.named_modules()
    }


def attention(s: Specimen) -> str:
    """Attention maps of every block have rows that sum to 1 and agree with the model's own eager maps.

    A backbone without attention over all tokens raises a capability error; then this is not applicable, unless the
    model itself can return such maps.
    """
    a = s.pristine
    try:
        with torch.no_grad(), a.capture(attention=True) as seen:
            a.forward(s.inputs)
    except CapabilityError as error:
        own = _own_maps(s)
        tokens = [h.shape[1] for h in s.seen.hidden.values()]
        full = own is not None and [m.shape[-2:] for m in own] == [(t, t) for t in tokens]
        # Rows that do not sum to 1 (attention sinks) are no maps over all tokens.
        full = full and all(((m.float().sum(-1) - 1).abs() < 1e-3).all() for m in own or ())
        assert not full, f"the model itself returns attention maps, but the adapter says: {error}"
        raise NotApplicable(str(error).partition(". Give")[0]) from error
    towers = zip(a.towers, a.attention_masks(s.inputs), strict=True)
    valid = {i: mask for layers, mask in towers for i in layers}
    for i, weights in seen.attention.items():
        tokens = seen.hidden[i].shape[1]
        assert weights.dim() == 4 and weights.shape[-2:] == (tokens, tokens), f"block {i}: {tuple(weights.shape)}"
        sums = weights.float().sum(-1)
        fitted = fit_mask(valid[i], tokens)
        real = torch.ones_like(sums, dtype=torch.bool) if fitted is None else fitted[:, None].expand_as(sums)
        off = (sums - 1).abs()[real].max()
        assert off < 1e-3, f"block {i}: rows sum to 1 only within {off:.1e}"
    own = _own_maps(s)
    if own is None or len(own) != len(seen.attention):
        return f"{len(seen.attention)} maps"
    for i, theirs in enumerate(own):
        ours = seen.attention[i]
        assert theirs.shape == ours.shape, f"block {i}: {tuple(ours.shape)}, the model's own is {tuple(theirs.shape)}"
        fitted = fit_mask(valid[i], ours.shape[-1])
        rows = torch.ones_like(ours[:, 0, :, 0], dtype=torch.bool) if fitted is None else fitted
        off = (theirs - ours).abs().amax((1, 3))[rows].max()
        assert off < ROUNDING, f"block {i} differs from the model's own map by {off:.1e}"
    return f"{len(own)} maps, equal to the model's own eager ones"


def _own_maps(s: Specimen) -> list[torch.Tensor] | None:
    """The maps that a model returns itself when asked to compute attention eagerly, or None."""
    a = s.fresh()
    if not hasattr(a.model, "set_attn_implementation"):
        return None
    try:
        a.model.set_attn_implementation("eager")
        a.model.config.output_attentions = True
        taken: list[Any] = []
        handle = a.model.register_forward_hook(lambda m, i, o: taken.append(o))
        with torch.no_grad():
            a.forward(s.inputs)
        handle.remove()
    except Exception:  # whatever a model raises where it cannot return maps
        return None
    out = taken[0]
    if getattr(out, "attentions", None) is not None:
        maps = list(out.attentions)
    else:
        maps = [*(getattr(out, "encoder_attentions", None) or ()), *(getattr(out, "decoder_attentions", None) or ())]
    good = maps and all(isinstance(m, torch.Tensor) and m.dim() == 4 for m in maps)
    # What some return under that name are the scores before softmax (SqueezeBERT).
    return maps if good and all(bool(((m >= 0) & (m <= 1.001)).all()) for m in maps) else None


def batch_of_one(s: Specimen) -> str:
    """One sample alone gives the same output and hidden states as in a batch, to tolerance."""
    a = s.pristine
    one = {k: v[:1] for k, v in s.inputs.items()}
    with torch.no_grad(), a.capture() as seen:
        alone = a.forward(one)
    _same(alone, s.logits[:1], "the logits of one sample alone")
    for i, hidden in seen.hidden.items():
        assert hidden.shape == s.seen.hidden[i][:1].shape, f"block {i} leaves {tuple(hidden.shape)} for one sample"
    return ""


def odd_size(s: Specimen) -> str:
    """An image of another, oblong size goes through capture and tail, where the model takes one."""
    image = s.inputs.get("image")
    if image is None:
        raise NotApplicable("it reads text")
    a, (height, width) = s.pristine, image.shape[-2:]
    oblong = torch.randn(1, image.shape[1], height + height // 2, 2 * width - 1, generator=_seeded())
    other = {**{k: v[:1] for k, v in s.inputs.items()}, "image": oblong}
    try:
        with torch.no_grad():
            reference = a.forward(other)
    except Exception as error:
        raise NotApplicable(f"the model refuses {tuple(other['image'].shape[-2:])}: {_line(error)}") from error
    _replays(a, other, reference)
    return f"{tuple(other['image'].shape[-2:])} instead of {(height, width)}"


def equal_sizes(s: Specimen) -> str:
    """As many samples as tokens or channels, and as high and wide a grid as there are channels, are read as ever."""
    shapes = {tuple(h.shape[1:]) for h in s.seen.hidden.values()}
    batches = sorted({n for shape in shapes for n in shape if 2 < n <= MOST_SAMPLES})
    tried = []
    for batch in batches:
        with _if_it_fits():
            _read_as_ever(s, batch)
            tried.append(batch)
    grids = _square_of_channels(s)
    return f"batches of {', '.join(map(str, tried)) or 'no such number'}; grids as wide as channels: {grids}"


def _read_as_ever(s: Specimen, batch: int) -> None:
    a = s.pristine
    inputs = a.example_inputs(batch)
    with torch.no_grad(), a.capture() as seen:
        a.forward(inputs)
    with torch.no_grad(), a.capture() as alone:
        a.forward({k: v[-1:] for k, v in inputs.items()})
    for i, hidden in seen.hidden.items():
        assert hidden.shape == (batch, *s.seen.hidden[i].shape[1:]), (
            f"block {i} of {batch} samples leaves {tuple(hidden.shape)}, of 2 {tuple(s.seen.hidden[i].shape)}"
        )
        _same(hidden[-1:], alone.hidden[i], f"one of {batch} samples at block {i}", ANOTHER)


@contextmanager
def _if_it_fits() -> Iterator[None]:
    """The body ends early where memory is short: the sizes that are tried here may be large."""
    try:
        yield
    except MemoryError:
        pass
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise


def _square_of_channels(s: Specimen) -> int:
    """How many blocks could be given a grid as high and wide as they have channels; all were read as ever."""
    a, image, tried = s.pristine, s.inputs.get("image"), set()
    for i, layout in s.seen.layouts.items():
        if image is None or image.dim() != 4 or layout.grid is None:
            continue
        side = a.dims[i] * image.shape[-1] // layout.grid[1]
        if side in tried or side > MOST_PIXELS:
            continue
        inputs = {**{k: v[:1] for k, v in s.inputs.items()}, "image": image.new_zeros(1, image.shape[1], side, side)}
        try:
            with torch.no_grad():
                a.forward(inputs)
        except Exception:  # a model refuses a size in any way it likes
            continue
        with _if_it_fits():
            with torch.no_grad(), a.capture() as seen:
                a.forward(inputs)
            for j, axes in s.seen.axes.items():
                assert seen.axes[j] == axes, f"block {j} is read as {seen.axes[j]} at {side} pixels, and else as {axes}"
                shape = tuple(seen.hidden[j].shape)
                assert shape[-1] == a.dims[j], f"block {j} leaves {shape} at {side} px"
            tried.add(side)
    return len(tried)


def padding(s: Specimen) -> str:
    """A text that is padded beside a longer one gives the same output as alone, to tolerance."""
    if "input_ids" not in s.inputs:
        raise NotApplicable("it reads images")
    a, mask = s.pristine, s.pristine.attention_mask(s.inputs)
    if "attention_mask" in s.inputs and (mask is None or "image" in s.inputs):
        # Its blocks have no padding (Perceiver's latents), or patches besides (ViLT's): its texts alone are asked for.
        mask = s.inputs["attention_mask"].bool()
    if mask is None or bool(mask.all()):
        raise NotApplicable("its texts are not padded")
    row = int((~mask).sum(1).argmax())
    length = int(mask[row].sum())
    if a.fixed_length:
        # Nothing shorter exists: then what stands in the padding must not matter.
        filled = {k: v.clone() for k, v in s.inputs.items()}
        filled["input_ids"][row, length:] = filled["input_ids"][row, 1]
        if not torch.equal(a.attention_mask(filled), mask):
            raise NotApplicable("texts have one length, and padding is told by its content, which nothing can replace")
        with torch.no_grad():
            _same(a.forward(filled)[row], s.logits[row], "the output with other content in the padding")
        return "fixed length; the content of padding has no influence"
    padded = {k: v[row : row + 1] for k, v in s.inputs.items()}
    alone = {k: v if k == "image" else v[:, mask[row]] for k, v in padded.items()}
    with torch.no_grad():
        reference, ours = a.forward(alone), a.forward(padded)
        theirs = _called_directly(a, padded, alone)
    if theirs is not None and _difference(*theirs) >= TOLERANCE:
        raise NotApplicable(
            f"padding changes what the zoo's own model answers, called without an adapter and with the mask if it "
            f"takes one: by {_difference(*theirs):.1e} of its size"
        )
    _same(ours, reference, "the output of the padded text")
    _same(s.logits[row : row + 1], reference, "the output of the padded text in its batch")
    return f"{length} of {mask.shape[1]} tokens"


def _called_directly(a: Adapter, *inputs: dict[str, torch.Tensor]) -> list[torch.Tensor] | None:
    """What the bare model answers to those keyword inputs that it takes; None if it does not take texts so."""
    taken = inspect.signature(a.model.forward).parameters
    try:
        outputs = [a.model(**{k: v for k, v in given.items() if k in taken or "kwargs" in taken}) for given in inputs]
        return [out.logits if hasattr(out, "logits") else first_tensor(out) for out in outputs]
    except Exception:  # a model of another calling convention refuses in any way it likes
        return None


def _replays(a: Adapter, inputs: dict[str, torch.Tensor], reference: torch.Tensor) -> None:
    with torch.no_grad():
        with a.capture(keep_calls=True) as seen:
            a.forward(inputs)
        again = a.forward_head(inputs, seen, *(seen.hidden[i] for i in a.last_layers))
    assert torch.equal(again, reference), "the last hidden state through the tail differs from the model's output"


def _same(ours: torch.Tensor, theirs: torch.Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    off = _difference(ours, theirs)
    assert off < tolerance, f"{what} differs by {off:.1e} of its size"


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-3))


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


__all__ = ["attention", "batch_of_one", "equal_sizes", "odd_size", "padding", "tail", "trace"]
