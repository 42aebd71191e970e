"""What a network is made of, found by looking: its repeated blocks and its normalisation layers.

Nothing here knows a zoo or a class name, so an architecture that appears tomorrow usually works as it is.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mdpd_plugins.adapters.inspection.layout import first_tensor
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
    Where there are no such children either, they are the convolutions of a plain stack (VGG).

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

    blocks: list[tuple[str, nn.Module]] = []
    for is_block in (holds_norm, is_large, is_convolution):
        blocks = blocks or _search(root, is_block, closed)
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

    def below(module: nn.Module, prefix: str, stages: dict[str, list[str]]) -> list[tuple[str, nn.Module]]:
        if _container(module) and _all_blocks(module, is_block):
            return inside(module, prefix, stages)
        found: list[tuple[str, nn.Module]] = []
        apart = _numbered(module, is_block) | _beside(module, is_block)
        for name, child in module.named_children():
            path = f"{prefix}.{name}" if prefix else name
            found += opened(path, child, stages) if name in apart else below(child, path, stages)
        return found

    def inside(container: nn.Module, path: str, stages: dict[str, list[str]]) -> list[tuple[str, nn.Module]]:
        found: list[tuple[str, nn.Module]] = []
        for inner, block in container.named_children():
            if any(True for _ in block.parameters()):
                found += opened(f"{path}.{inner}" if path else inner, block, stages)
        return found

    def opened(name: str, block: nn.Module, stages: dict[str, list[str]]) -> list[tuple[str, nn.Module]]:
        nested: dict[str, list[str]] = {}
        deeper = below(block, name, nested) if name not in shut else []
        listed = isinstance(block, (nn.ModuleList, nn.ModuleDict))  # never runs itself
        if deeper and (listed or _size(m for _, m in deeper) / _size([block]) >= STAGE_SHARE):
            stages |= nested if listed else {name: [n for n, _ in deeper], **nested}
            return deeper
        return [(name, block)]

    stages: dict[str, list[str]] = {}
    blocks = below(root, "", stages)
    while closed is not None and stages and (more := closed(stages) - shut):
        shut |= more
        blocks = below(root, "", stages := {})
    return blocks


def bypassed(root: nn.Module, stages: dict[str, list[str]], forward: Callable[[], Any]) -> set[str]:
    """Which of `stages` pass something of their input around the last of their blocks, as a residual does.

    Found by differentiating: with the last block's output held constant, the output of a stage no longer depends
    on the stage's input; that of a residual branch does. A stage that `forward` does not run is none.
    """
    found: set[str] = set()
    handles: list[Any] = []
    entered: dict[str, list[torch.Tensor]] = {}
    last: dict[str, str] = {}  # stage -> its block that ran last

    def enter(name):
        def hook(module, args, kwargs):
            held = [_variable(a) for a in args], {k: _variable(v) for k, v in kwargs.items()}
            entered[name] = [t for t in [*held[0], *held[1].values()] if _differentiable(t)]
            return tuple(held[0]), held[1]

        return hook

    def leave(name):
        def hook(module, args, output):
            outputs = [t for t in _tensors(output) if t.requires_grad]
            inputs = entered[name]
            if inputs and outputs:
                total = sum(t.float().sum() for t in outputs)
                grads = torch.autograd.grad(total, inputs, allow_unused=True, retain_graph=True)
                if any(g is not None for g in grads):
                    found.add(name)

        return hook

    def constant(module, args, output):
        return _map(output, torch.Tensor.detach)

    flags = [(p, p.requires_grad) for p in root.parameters()]
    try:
        for p, _ in flags:
            p.requires_grad_(False)
        for name, inner in stages.items():
            for block in inner:
                handles.append(
                    root.get_submodule(block).register_forward_hook(
                        lambda m, a, o, stage=name, block=block: last.__setitem__(stage, block)
                    )
                )
        with torch.no_grad():
            forward()
        for handle in handles:
            handle.remove()
        handles.clear()
        # One level at a time: an outer stage would see nothing of what an inner one holds constant.
        levels: dict[int, list[str]] = {}
        for name in last:
            levels.setdefault(sum(name.startswith(f"{other}.") for other in last), []).append(name)
        for names in levels.values():
            for name in names:
                stage, block_module = root.get_submodule(name), root.get_submodule(last[name])
                handles += [
                    stage.register_forward_pre_hook(enter(name), with_kwargs=True),
                    block_module.register_forward_hook(constant),
                    stage.register_forward_hook(leave(name)),
                ]
            with torch.enable_grad():
                forward()
            for handle in handles:
                handle.remove()
            handles.clear()
    finally:
        for handle in handles:
            handle.remove()
        for p, flag in flags:
            p.requires_grad_(flag)
    return found


def as_run(blocks: list[tuple[str, nn.Module]], run: Callable[[], Any]) -> list[tuple[str, nn.Module]]:
    """`blocks` in the order in which a forward runs them, without those on which its output does not depend."""
    ran: dict[str, nn.Module] = {}
    probes = {name: list(block.parameters()) for name, block in blocks}
    flags = [(p, p.requires_grad) for parameters in probes.values() for p in parameters]
    handles = [
        block.register_forward_pre_hook(lambda m, _, name=name: ran.update({name: m}) if name not in ran else None)
        for name, block in blocks
    ]
    try:
        for p, _ in flags:
            p.requires_grad_(True)
        with torch.enable_grad():
            total = run().sum()
        grads = torch.autograd.grad(total, [p for p, _ in flags], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        for p, flag in flags:
            p.requires_grad_(flag)
    reached = {id(p) for (p, _), g in zip(flags, grads, strict=True) if g is not None}
    return [(name, block) for name, block in ran.items() if any(id(p) in reached for p in probes[name])]


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
    for names in groups.values():
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
    kinds = {type(block) for container in listed for block in container.children()}
    return {name for name, child in children.items() if type(child) in kinds and not _container(child)}


def _container(module: nn.Module) -> bool:
    return isinstance(module, (nn.ModuleList, nn.Sequential, nn.ModuleDict))


def _all_blocks(container: nn.Module, is_block) -> bool:
    children = [c for c in container.children() if any(True for _ in c.parameters())]
    return bool(children) and all(is_block(c) for c in children)


def _size(modules) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


__all__ = ["as_run", "bypassed", "find_blocks", "is_norm", "norm_modules"]
