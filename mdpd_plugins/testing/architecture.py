"""Which classes a backbone is made of, for statistics over many."""

from __future__ import annotations

from torch import nn

from mdpd_plugins.adapters import Adapter


def architecture(adapter: Adapter) -> list[str]:
    """Class names from the model down to what holds all blocks, without containers, and of the blocks themselves.

    For example `["ImageClassifier", "SwinTransformer", "SwinBlock"]`; blocks of several classes are one entry, "A|B".
    A model whose blocks cannot be found gives its own class alone.
    """
    model = adapter.model
    try:
        named = adapter.named_blocks
        paths = [name.split(".") for name, _ in named]
        shared = 0
        while paths and all(len(path) > shared + 1 and path[shared] == paths[0][shared] for path in paths):
            shared += 1
        above = [model, *(model.get_submodule(".".join(paths[0][: i + 1])) for i in range(shared))]
    except Exception:  # the check called "blocks" says what is wrong
        return [type(model).__name__]
    containers = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
    holders = [type(m).__name__ for m in above if not isinstance(m, containers)]
    return [*holders, "|".join(dict.fromkeys(type(block).__name__ for _, block in named))]


__all__ = ["architecture"]
