"""Checks of what an adapter says about a network: its blocks, norms and parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from mdpd_plugins.testing.outcome import NotApplicable
from mdpd_plugins.testing.specimen import Specimen

MIN_COVERAGE = 0.9
_NORM_CALLS = {
    F.layer_norm: ("weight", "bias"),
    F.group_norm: ("weight", "bias"),
    F.batch_norm: ("weight", "bias"),
    F.instance_norm: ("weight", "bias"),
    F.rms_norm: ("weight",),
    torch.layer_norm: ("weight", "bias"),
    torch.batch_norm: ("weight", "bias"),
}


def blocks(s: Specimen) -> str:
    """Blocks run in the order in which `blocks()` lists them and hold at least 90 % of the parameters.

    Out of the count: embeddings (`nn.Embedding`, learned positions and tokens, the layer that reads the image, and
    modules and parameters that the zoo itself calls an embedding), the output layer, and what no output depends on.
    """
    listed = s.pristine.blocks()
    assert listed, "blocks() is empty"
    ran: list[int] = []
    handles = [b.register_forward_pre_hook(lambda m, _: ran.append(id(m))) for b in dict.fromkeys(listed)]
    _forward_with(s, handles)
    wanted = [id(b) for b in listed]
    assert set(wanted) <= set(ran), f"{len(set(wanted) - set(ran))} of {len(listed)} blocks did not run"
    # A block that runs several times (shared weights) counts once, where it ran first.
    assert list(dict.fromkeys(ran)) == list(dict.fromkeys(wanted)), "blocks() is not in execution order"
    inside = {id(p) for b in listed for p in b.parameters()}
    left_out = _embeddings(s) | _unused(s) | {id(p) for p in s.pristine.head_parameters().values()}
    counted = {n: p for n, p in s.pristine.parameters().items() if id(p) not in left_out or id(p) in inside}
    total = sum(p.numel() for p in counted.values())
    covered = sum(p.numel() for p in counted.values() if id(p) in inside)
    missed = sorted(((p.numel(), n) for n, p in counted.items() if id(p) not in inside), reverse=True)[:3]
    share = covered / max(1, total)
    assert share >= MIN_COVERAGE, f"blocks hold {share:.1%} of the parameters; outside: {[n for _, n in missed]}"
    return f"{len(listed)} blocks with {share:.1%} of the parameters"


def _forward_with(s: Specimen, handles: Iterable[RemovableHandle]) -> None:
    """One forward that hooks watch; they are gone afterwards."""
    try:
        with torch.no_grad(), s.pristine.capture():  # where hooks see each block, however the zoo calls it
            s.pristine.forward(s.inputs)
    finally:
        for handle in handles:
            handle.remove()


def _unused(s: Specimen) -> set[int]:
    a = s.fresh()
    parameters = list(a.parameters().items())
    for _, p in parameters:
        p.requires_grad_(True)
    with torch.enable_grad():
        total = a.forward(s.inputs).float().sum()
    grads = torch.autograd.grad(total, [p for _, p in parameters], allow_unused=True)
    own = s.pristine.parameters()
    return {id(own[n]) for (n, _), g in zip(parameters, grads, strict=True) if g is None}


def _embeddings(s: Specimen) -> set[int]:
    model = s.pristine.model
    found = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    listed = {id(b) for b in s.pristine.blocks()}
    for module in model.modules():
        if "embed" in type(module).__name__.lower() and not any(id(m) in listed for m in module.modules()):
            found |= {id(p) for p in module.parameters()}
    found |= {id(p) for n, p in model.named_parameters() if "embed" in n.rpartition(".")[2].lower()}
    # Learned positions and special tokens belong to a module with parts of its own, not to a layer.
    found |= {id(p) for m in model.modules() if any(True for _ in m.children()) for p in m.parameters(recurse=False)}
    image = s.inputs.get("image")
    if image is None:
        return found
    readers: list[nn.Module] = []

    def note(module, args):
        reads = args and isinstance(args[0], torch.Tensor) and args[0].shape[1:2] == image.shape[1:2]
        if reads and args[0].numel() == image.numel() and any(p.dim() > 1 for p in module.parameters(recurse=False)):
            readers.append(module)

    handles = [m.register_forward_pre_hook(note) for m in model.modules() if not any(True for _ in m.children())]
    _forward_with(s, handles)
    return found | {id(p) for m in readers for p in m.parameters()}


def depth(s: Specimen) -> str:
    """As many blocks run as the library's own configuration says there are.

    Stages may have a stem, or what joins them, besides: two for each width. Where the parts of a block stand apart (a
    list of attentions and one of feed-forward layers), each is one. A block that stands alone (CANINE's first one) need
    not be declared, and one that no output depends on (BLIP-2's last) need not run.
    """
    a, declared = s.pristine, s.pristine.declared_blocks()
    if not declared:
        raise NotApplicable("its library does not say how many blocks it has")
    ran: list[int] = []
    handles = [b.register_forward_pre_hook(lambda m, _: ran.append(id(m))) for b in dict.fromkeys(a.blocks())]
    _forward_with(s, handles)
    widths = len(set(a.dims))
    beside = 2 * widths if widths > 1 else 0
    runs = len(ran)  # a block that runs several times (ALBERT's) counts as often
    lists = {name.rpartition(".")[0] for name, _ in a.named_blocks}
    lengths = [sum(1 for _ in a.model.get_submodule(name).children()) for name in lists]
    if sum(n for n in lengths if n > 1) == declared:
        return f"{runs} run, {declared} declared and listed"
    assert runs >= declared and runs % declared <= beside, f"{runs} blocks run; its configuration says {declared}"
    return f"{runs} run, {declared} declared"


def shapes(s: Specimen) -> str:
    """Hidden states come as (B, T, D_i), with D_i, prefix tokens and grid as the adapter declares them."""
    a, batch = s.pristine, len(next(iter(s.inputs.values())))
    count = len(a.blocks())
    assert len(a.dims) == count, f"{len(a.dims)} dims for {count} blocks"
    assert sorted(s.seen.hidden) == list(range(count)), "a forward left no hidden state of some block"
    for i, hidden in s.seen.hidden.items():
        assert hidden.dim() == 3 and hidden.shape[0] == batch and hidden.shape[2] == a.dims[i], (
            f"block {i} left {tuple(hidden.shape)}; (B={batch}, T, D={a.dims[i]}) was declared"
        )
        assert torch.isfinite(hidden).all(), f"block {i} left values that are not finite"
        layout = s.seen.layouts[i]
        if layout.grid is not None:
            tokens = layout.prefix + layout.grid[0] * layout.grid[1]
            assert tokens == hidden.shape[1], f"block {i}: {layout} does not add up to {hidden.shape[1]} tokens"
    stems = [s.seen.stems[layers[0]].shape[-1] for layers in a.towers]
    assert stems == a.stem_dims, "what enters the first block was not kept"
    with torch.no_grad(), a.capture([-1]) as last:
        a.forward(s.inputs)
    assert list(last.hidden) == [count - 1], "capture([-1]) recorded other layers than the last"
    first, final = s.seen.hidden[0], s.seen.hidden[count - 1]
    return f"{tuple(first.shape[1:])} to {tuple(final.shape[1:])} over {count} blocks"


def norm_parameters(s: Specimen) -> str:
    """`norm_parameters()` lists every affine normalisation parameter and nothing else.

    Counted independently: what a forward passes to PyTorch's normalisation functions, the vectors of modules whose
    class is called a norm, and those of leaves that answer alike to what they were given and to three times that.
    """
    own = s.pristine.parameters()
    by_id = {id(p): n for n, p in own.items()}
    passed: set[int] = set()

    class Listener(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in _NORM_CALLS:
                for value in [*args[1:], *(kwargs or {}).values()]:
                    if isinstance(value, nn.Parameter):
                        passed.add(id(value))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Listener():
        s.pristine.forward(s.inputs)
    counted = {by_id[i] for i in passed if i in by_id}
    for name, module in s.pristine.model.named_modules():
        if re.search(r"(?<!no)norm|rms|(?<![a-z])bn", type(module).__name__, re.I):
            for key, p in module.named_parameters(recurse=False):
                if p.dim() == 1 and by_id.get(id(p)) == f"{name}.{key}":
                    counted.add(f"{name}.{key}")
    counted |= {by_id[i] for i in _scale_free(s) if i in by_id}
    declared = set(s.pristine.norm_parameters())
    assert declared <= set(own), f"not in the state dict: {sorted(declared - set(own))[:3]}"
    missing, extra = sorted(counted - declared), sorted(declared - counted)
    assert not missing, f"{len(missing)} norm parameters are not listed: {missing[:3]}"
    assert not extra, f"{len(extra)} listed parameters are of no normalisation: {extra[:3]}"
    if not declared:
        raise NotApplicable("it has no affine normalisation: the method trains its output layer alone")
    return f"{len(declared)} tensors"


def _scale_free(s: Specimen) -> set[int]:
    found: set[int] = set()
    busy: list[nn.Module] = []

    def hook(module, args, kwargs, output):
        x = args[0] if args else None
        if busy or not isinstance(x, torch.Tensor) or not isinstance(output, torch.Tensor) or x.shape != output.shape:
            return
        busy.append(module)
        try:
            tripled = module(3 * x, *args[1:], **kwargs)
        finally:
            busy.clear()
        if torch.allclose(tripled, output, rtol=1e-2, atol=1e-3) and output.std() > 1e-2:
            found.update(id(p) for p in module.parameters())

    leaves = [m for m in s.pristine.model.modules() if not any(True for _ in m.children())]
    vectors = [m for m in leaves if any(True for _ in m.parameters()) and all(p.dim() == 1 for p in m.parameters())]
    # A frozen batch norm is linear: PyTorch's own are counted by their class.
    vectors = [m for m in vectors if not isinstance(m, nn.modules.batchnorm._NormBase)]
    handles = [m.register_forward_hook(hook, with_kwargs=True) for m in vectors]
    _forward_with(s, handles)
    return found


def head(s: Specimen) -> str:
    """`replace_head` gives the model another number of outputs and leaves the rest as it was."""
    a = s.fresh()
    if len(a.towers) > 1:
        raise NotApplicable("its outputs come from what joins its towers")
    keys = set(a.model.state_dict())
    old, tail = set(a.head_parameters()), set(a.tail_parameters())
    assert old, "no parameter lies behind the last block besides norms: there is no output layer"
    a.replace_head(7)
    with torch.no_grad():
        logits = a.forward(s.inputs)
    assert logits.shape == (len(s.logits), 7), f"after replace_head(7) the logits are {tuple(logits.shape)}"
    assert set(a.model.state_dict()) == keys, "replace_head changed the state dict's keys"
    before = s.pristine.parameters()
    # A norm behind the last block may be as wide as the output (CoCa's pooler).
    changed = [k for k, v in a.parameters().items() if v.shape != before[k].shape and k not in tail]
    assert not changed, f"replace_head changed the shape of {changed[:3]}"
    return f"{len(old)} tensors"


__all__ = ["blocks", "depth", "head", "norm_parameters", "shapes"]
