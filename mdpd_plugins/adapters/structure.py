"""What a network is made of, found by looking: its repeated blocks and its normalisation layers.

Nothing here knows a zoo or a class name, so an architecture that appears tomorrow usually works as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mdpd_plugins.registry.errors import CapabilityError

# A container's children are its blocks unless most of their parameters sit in blocks of their own
# (a stage of a hierarchical network). Our choice: a share well above what an inner container of a
# transformer block (experts, branches) leaves for its norms and projections.
STAGE_SHARE = 0.6

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
    if any(True for _ in module.children()):
        return False
    sizes = {p.numel() for p in parameters.values()}
    vectors = all(p.numel() == max(p.shape, default=0) for p in parameters.values())
    return vectors and len(sizes) == 1 and max(sizes) > 1 and _ignores_scale(module, max(sizes))


def _ignores_scale(module: nn.Module, width: int) -> bool:
    trial = copy.deepcopy(module)
    if any(t.is_meta for t in trial.parameters()):
        trial = trial.to_empty(device="cpu")
    trial = trial.float()
    with torch.no_grad():
        for p in trial.parameters():
            p.fill_(1.0)
    generator = torch.Generator().manual_seed(0)
    for shape in ((2, 3, width), (2, width, 3, 3), (2, 3, 3, width)):
        x = torch.randn(shape, generator=generator)
        try:
            with torch.no_grad():
                once, scaled = trial(x), trial(4 * x)
        except Exception:  # an unknown module may refuse a trial input in any way it likes
            continue
        if not isinstance(once, torch.Tensor) or once.shape != x.shape:
            continue
        return bool(torch.allclose(once, scaled, rtol=1e-2, atol=1e-2)) and bool(once.std() > 1e-3)
    return False


def norm_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of every affine normalisation layer below `root`, in registration order."""
    for name, module in root.named_modules():
        if is_norm(module):
            yield name, module


def find_blocks(root: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, module) of the repeated blocks of `root`, in registration order.

    A block is a child of a `ModuleList`, `Sequential` or `ModuleDict` that holds both a normalisation layer
    and a matrix (or kernel). Stages are opened: their blocks count instead.

    Raises:
        CapabilityError: `root` has no such container.
    """
    norms = {id(m) for _, m in norm_modules(root)}

    def is_block(module: nn.Module) -> bool:
        return any(id(m) in norms for m in module.modules()) and any(p.dim() > 1 for p in module.parameters())

    def below(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
        found: list[tuple[str, nn.Module]] = []
        for name, child in module.named_children():
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(child, (nn.ModuleList, nn.Sequential, nn.ModuleDict)) and _all_blocks(child, is_block):
                for inner, block in child.named_children():
                    if not any(True for _ in block.parameters()):
                        continue
                    deeper = below(block, f"{path}.{inner}")
                    share = _size(m for _, m in deeper) / max(1, _size([block]))
                    found += deeper if share >= STAGE_SHARE else [(f"{path}.{inner}", block)]
            else:
                found += below(child, path)
        return found

    blocks = below(root, "")
    if not blocks:
        raise CapabilityError(
            f"no repeated blocks were found in {type(root).__name__}: it has no ModuleList or Sequential whose "
            f"entries hold a normalisation layer and a weight matrix. Give its BackboneSpec an adapter whose "
            f"blocks() lists them (see docs/plugin-authors.md)."
        )
    return blocks


def _all_blocks(container: nn.Module, is_block) -> bool:
    children = [c for c in container.children() if any(True for _ in c.parameters())]
    return bool(children) and all(is_block(c) for c in children)


def _size(modules) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


__all__ = ["find_blocks", "is_norm", "norm_modules"]
