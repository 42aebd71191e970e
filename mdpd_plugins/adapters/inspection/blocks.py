"""What a network is made of, found by looking: its repeated blocks and its normalisation layers.

Nothing here knows a zoo or a class name, so an architecture that appears tomorrow usually works as it is.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mdpd_plugins.adapters.inspection.layout import first_tensor
from mdpd_plugins.adapters.inspection.reach import reached
from mdpd_plugins.registry.errors import CapabilityError

# A container's children are its blocks unless most of their parameters sit in blocks of their own
# (a stage of a hierarchical network). Our choice: a share well above what an inner container of a
# transformer block (experts, branches) leaves for its norms and projections.
STAGE_SHARE = 0.6

# "layer3", "Mixed_6b": what tells blocks apart that stand side by side.
_NUMBER = re.compile(r"\d+[a-z]?$")

_TORCH_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)


def is_norm(module: nn.Module) -> bool:
    """Whether `module` is an affine normalisation layer.

    PyTorch's own classes are known by type. Any other leaf that holds nothing but vectors of one length is
    tried out on a copy: a normalisation returns (nearly) the same for x and 4x, a scale or a gate does not.
    """
    parameters = dict(module.named_parameters(recurse=False))
    if not parameters:
        return False
    if isinstance(module, _TORCH_NORMS):
        return True
    if any(True for child in module.children() for _ in child.parameters()):
        return False
    if not all(p.is_floating_point() for p in parameters.values()):  # a linear layer's weights, packed
        return False
    sizes = {p.numel() for p in parameters.values()}
    vectors = all(p.numel() == max(p.shape, default=0) for p in parameters.values())
    return vectors and len(sizes) == 1 and max(sizes) > 1 and _ignores_scale(module, max(sizes))


def _ignores_scale(module: nn.Module, width: int) -> bool:
    # Of given numbers, which are there also where the module's own are not (on the meta device, in a plan).
    ones = {id(p): nn.Parameter(torch.tensor([1.0]).expand(p.shape).clone()) for p in module.parameters(recurse=False)}
    trial = copy.deepcopy(module, ones).float()
    generator = torch.Generator().manual_seed(0)
    for shape in ((2, 3, width), (2, width, 3, 3), (2, 3, 3, width)):
        x = torch.randn(shape, generator=generator)
        for more in ((), (torch.ones_like(x),)):  # some take a gate beside their input
            try:
                with torch.no_grad():
                    once, scaled = (first_tensor(trial(y, *more)) for y in (x, 4 * x))
            except Exception:  # an unknown module may refuse a trial input in any way it likes
                continue
            if once.shape == x.shape:
                break
        else:
            continue
        return bool(torch.allclose(once, scaled, rtol=1e-2, atol=1e-2)) and bool(once.std() > 1e-3)
    return False


def norm_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of every affine normalisation layer below `root`, in registration order."""
    for name, module in root.named_modules():
        if is_norm(module):
            yield name, module


def find_blocks(
    root: nn.Module, closed: Callable[[dict[str, list[str]]], set[str]] | None = None
) -> list[tuple[str, nn.Module]]:
    """(name, module) of the repeated blocks of `root`, in registration order.

    A block is a child of a `ModuleList`, `Sequential` or `ModuleDict` that holds both a normalisation layer
    and a matrix (or kernel), or stands beside such a container and is of the same class as what it holds (Perceiver's
    cross-attention). Stages are opened: their blocks count instead. Where no child holds a normalisation layer, as in
    models that keep attentions, feed-forward layers and norms in lists of their own (XLM), and in those without any
    affine norm, blocks are the children that hold several parameters, matrices among them: the branches themselves.
    Where there are no such children either, they are the convolutions of a plain stack (VGG), beside its norms if it
    has any.

    Args:
        closed: given name of a possible stage -> names of the blocks in it, returns those that are no stages but
            blocks themselves, because something passes their parts by (see `bypassed`). None: all are opened.

    Raises:
        CapabilityError: `root` has no such container.
    """
    norms = {id(m) for _, m in norm_modules(root)}

    def holds_norm(module: nn.Module) -> bool:
        return any(p.dim() > 1 for p in module.parameters()) and any(id(m) in norms for m in module.modules())

    def is_large(module: nn.Module) -> bool:
        return any(p.dim() > 1 for p in module.parameters()) and sum(1 for _ in module.parameters()) > 2

    def is_convolution(module: nn.Module) -> bool:
        return any(p.dim() > 2 for p in module.parameters())

    def among_norms(module: nn.Module) -> bool:
        return is_convolution(module) or id(module) in norms

    blocks = _search(root, holds_norm, closed) or _search(root, is_large, closed) or _search(root, among_norms, closed)
    blocks = [(n, m) for n, m in blocks if id(m) not in norms]
    if not blocks:
        raise CapabilityError(
            f"no repeated blocks were found in {type(root).__name__}: it has no ModuleList or Sequential whose "
            f"entries hold a normalisation layer and a weight matrix. Give its BackboneSpec an adapter whose "
            f"blocks() lists them (see docs/plugin-authors.md)."
        )
    return blocks


def _search(
    root: nn.Module,
    is_block: Callable[[nn.Module], bool],
    closed: Callable[[dict[str, list[str]]], set[str]] | None,
) -> list[tuple[str, nn.Module]]:
    shut: set[str] = set()

    def below(module: nn.Module, prefix: str, stages: dict[str, list[str]], stage: bool) -> list[tuple[str, nn.Module]]:
        if _container(module) and _all_blocks(module, is_block):
            return inside(module, prefix, stages)
        found: list[tuple[str, nn.Module]] = []
        apart = _numbered(module, is_block) | _beside(module, is_block)
        listing = stage and any(_container(c) and _all_blocks(c, is_block) for c in module.children())
        for name, child in module.named_children():
            path = f"{prefix}.{name}" if prefix else name
            if name in apart:
                found += opened(path, child, stages)
            elif path in shut:
                found.append((path, child))
            elif parts := below(child, path, stages, stage):
                if listing and not _container(child):
                    # What joins a stage's blocks to those before them (LeViT's subsampling) may be a block itself.
                    stages[path] = [n for n, _ in parts]
                found += parts
        return found

    def inside(container: nn.Module, path: str, stages: dict[str, list[str]]) -> list[tuple[str, nn.Module]]:
        found: list[tuple[str, nn.Module]] = []
        for inner, block in container.named_children():
            if any(True for _ in block.parameters()):
                found += opened(f"{path}.{inner}" if path else inner, block, stages)
        return found

    def opened(name: str, block: nn.Module, stages: dict[str, list[str]]) -> list[tuple[str, nn.Module]]:
        nested: dict[str, list[str]] = {}
        deeper = below(block, name, nested, True) if name not in shut else []
        listed = _list(block)
        if deeper and not listed and _is_unit(root, block, [m for _, m in deeper]):
            return [(name, block)]
        if deeper and (listed or _size(m for _, m in deeper) / _size([block]) >= STAGE_SHARE):
            stages |= nested if listed else {name: [n for n, _ in deeper], **nested}
            return deeper
        return [(name, block)]

    stages: dict[str, list[str]] = {}
    blocks = below(root, "", stages, False)
    while closed is not None and stages and (more := _innermost(closed(stages)) - shut):
        shut |= _alike(root, more, stages)
        blocks = below(root, "", stages := {}, False)
    return blocks


def _is_unit(root: nn.Module, block: nn.Module, parts: list[nn.Module]) -> bool:
    """Whether `block` is made of parts of several classes, and two just like each other stand side by side somewhere.

    So T5's blocks, of an attention and a feed-forward layer, are told from stages: those differ in width, and hold
    blocks of one class.
    """
    if _container(block) or len({type(part) for part in parts}) == 1:
        return False
    for module in root.modules():
        alike = [[p.shape for p in child.parameters()] for child in module.children() if type(child) is type(block)]
        if any(shapes in alike[:i] for i, shapes in enumerate(alike)):
            return True
    return False


def _innermost(names: set[str]) -> set[str]:
    # A stage of residual blocks, each a stage of layers itself, only seems to pass its input around its last layer:
    # it does so through its last block. With the blocks closed, it shows what it does itself.
    return {n for n in names if not any(other.startswith(f"{n}.") for other in names)}


def _alike(root: nn.Module, names: set[str], stages: Iterable[str]) -> set[str]:
    """`names`, and those stages that are of the same class: they are one kind of thing.

    T5's first block makes the position bias that all others are given and hand on, past their last layer.
    """

    def kind(name: str) -> tuple[str, type]:
        module = root.get_submodule(name)
        # What a Sequential is says its place alone.
        return name.rpartition(".")[0] if _container(module) else "", type(module)

    kinds = {kind(name) for name in names}
    return names | {name for name in stages if kind(name) in kinds}


def bypassed(root: nn.Module, stages: dict[str, list[str]], forward: Callable[[], Any]) -> set[str]:
    """Which of `stages` pass something of their input around the last of their blocks, as a residual does.

    A stage that `forward` does not run is none.
    """
    with frozen(root):
        last = _last_to_run(root, stages, forward)
        found: set[str] = set()
        # One level at a time: an outer stage would see nothing of what an inner one holds constant.
        for level in _levels(last):
            found |= _depending(root, {name: last[name] for name in level}, forward)
    return found


@contextmanager
def frozen(root: nn.Module) -> Iterator[None]:
    """Inside, no parameter of `root` requires a gradient."""
    flags = [(p, p.requires_grad) for p in root.parameters()]
    try:
        for p, _ in flags:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)


def _last_to_run(root: nn.Module, stages: dict[str, list[str]], forward: Callable[[], Any]) -> dict[str, str]:
    """Stage -> that of its blocks which runs last; stages that do not run are left out."""
    last: dict[str, str] = {}

    def note(stage: str, block: str) -> Callable[..., None]:
        return lambda module, args, output: last.__setitem__(stage, block)

    with ExitStack() as hooks, torch.no_grad():
        for stage, inner in stages.items():
            for block in inner:
                handle = root.get_submodule(block).register_forward_hook(note(stage, block))
                hooks.callback(handle.remove)
        forward()
    return last


def _levels(names: Iterable[str]) -> list[list[str]]:
    """`names` by how many of the others they lie in."""
    names = list(names)
    levels: dict[int, list[str]] = {}
    for name in names:
        levels.setdefault(sum(name.startswith(f"{other}.") for other in names), []).append(name)
    return [levels[depth] for depth in sorted(levels)]


def _depending(root: nn.Module, last: dict[str, str], forward: Callable[[], Any]) -> set[str]:
    """Those stages whose output depends on their input although their last block's output is held constant.

    Args:
        last: stage -> its last block. None of the stages lies in another.
    """
    found: set[str] = set()
    entered: dict[str, list[torch.Tensor]] = {}

    def enter(name: str) -> Callable[..., Any]:
        def hook(module, args, kwargs):
            held = [_variable(a) for a in args], {k: _variable(v) for k, v in kwargs.items()}
            entered[name] = [t for t in [*held[0], *held[1].values()] if _differentiable(t)]
            return tuple(held[0]), held[1]

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(module, args, output):
            outputs = [t for t in _tensors(output) if t.requires_grad]
            if entered[name] and outputs:
                total = sum(t.float().sum() for t in outputs)
                grads = torch.autograd.grad(total, entered[name], allow_unused=True, retain_graph=True)
                if any(g is not None for g in grads):
                    found.add(name)

        return hook

    def constant(module, args, output):
        return _map(output, torch.Tensor.detach)

    with ExitStack() as hooks, torch.enable_grad():
        for name, block in last.items():
            stage, inner = root.get_submodule(name), root.get_submodule(block)
            for handle in (
                stage.register_forward_pre_hook(enter(name), with_kwargs=True),
                inner.register_forward_hook(constant),
                stage.register_forward_hook(leave(name)),
            ):
                hooks.callback(handle.remove)
        forward()
    return found


def as_run(blocks: list[tuple[str, nn.Module]], run: Callable[[], Any]) -> list[tuple[str, nn.Module]]:
    """`blocks` in the order in which a forward runs them, without those on which its output does not depend."""
    ran: dict[str, nn.Module] = {}
    probes = {name: [p for p in block.parameters() if p.is_floating_point()] for name, block in blocks}
    flags = [(p, p.requires_grad) for parameters in probes.values() for p in parameters]
    handles = [
        block.register_forward_pre_hook(lambda m, _, name=name: ran.update({name: m}) if name not in ran else None)
        for name, block in blocks
    ]
    try:
        for p, _ in flags:
            p.requires_grad_(True)
        with torch.enable_grad():
            leaves = reached(run())
    finally:
        for handle in handles:
            handle.remove()
        for p, flag in flags:
            p.requires_grad_(flag)
    return [(name, block) for name, block in ran.items() if any(id(p) in leaves for p in probes[name])]


def _differentiable(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _variable(value: Any) -> Any:
    # A clone, because a block may write into its input, and a leaf that requires a gradient refuses that.
    return value.detach().requires_grad_(True).clone() if _differentiable(value) else value


def _tensors(value: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    _map(value, keep)
    return found


def _map(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """`value` with `change` applied to each floating tensor in it; containers are made anew only if changed."""
    if isinstance(value, torch.Tensor):
        return change(value) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(_map(v, change) for v in value)
    if isinstance(value, dict):
        new = copy.copy(value)
        for k, v in value.items():
            new[k] = _map(v, change)
        return new
    return value


def _numbered(module: nn.Module, is_block) -> set[str]:
    """Names of children that differ from others of their class by a number at the end, and are blocks.

    Such as MobileNetV3's layer1, layer2, ... in MMPretrain. With them go those of the same numbering that are of
    another class and have parts of their own (Inception's Mixed_5b to Mixed_7c are of five classes).
    """
    groups: dict[str, list[str]] = {}
    for name, child in module.named_children():
        stem = _NUMBER.sub("", name)
        if stem not in (name, "") and not _container(child) and is_block(child):
            groups.setdefault(stem, []).append(name)
    found: set[str] = set()
    (*others, last) = [n for n, c in module.named_children() if any(True for _ in c.parameters())] or [""]
    for names in groups.values():
        if [*others, last] == names and len(names) == 1 and _composite(module, last, is_block):
            found.add(last)  # a stage of one block (RegNet's b1)
        kinds = Counter(type(module.get_submodule(name)) for name in names)
        if max(kinds.values()) > 1:
            found |= {n for n in names if kinds[type(module.get_submodule(n))] > 1 or _composite(module, n, is_block)}
    return found


def _composite(module: nn.Module, name: str, is_block) -> bool:
    return sum(is_block(child) for child in module.get_submodule(name).children()) > 1


def _beside(module: nn.Module, is_block) -> set[str]:
    """Names of children that are blocks of the same class as those in a container beside them."""
    children = dict(module.named_children())
    listed = [c for c in children.values() if _container(c) and _all_blocks(c, is_block)]
    kinds = {type(block) for container in listed for block in _listed_blocks(container)}
    return {n for n, c in children.items() if type(c) in kinds and is_block(c) and not _container(c)}


def _listed_blocks(container: nn.Module) -> Iterator[nn.Module]:
    for child in container.children():
        yield child
        if _container(child):  # MobileOne lists its blocks by stages, beside the first one
            yield from _listed_blocks(child)


def _container(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) or _list(module)


def _list(module: nn.Module) -> bool:
    """Whether it is a list that never runs itself; torchvision's dense blocks are dictionaries with a forward."""
    return isinstance(module, (nn.ModuleList, nn.ModuleDict)) and type(module).forward is nn.Module.forward


def _all_blocks(container: nn.Module, is_block) -> bool:
    children = [c for c in container.children() if any(True for _ in c.parameters())]
    return bool(children) and all(is_block(c) for c in children)


def _size(modules) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


__all__ = ["as_run", "bypassed", "find_blocks", "is_norm", "norm_modules"]
