"""Mixing the pictures of a training batch with one another, and their labels alike: torchvision's mixup and cutmix."""

from __future__ import annotations

import torch

MIXES = ("none", "mixup", "cutmix", "mixup+cutmix")
# Of the Beta distribution that shares are drawn from: mixup's authors use 0.1 to 0.4 on ImageNet (arXiv:1710.09412,
# sec. 3.1), cutmix's 1 (arXiv:1905.04899, sec. 3.1).
MIXUP_ALPHA, CUTMIX_ALPHA = 0.2, 1.0


class Mixing:
    """Mix every picture of a batch with the one before it, with the same share, or the same box cut out, for all.

    It draws from PyTorch's global generator of the CPU.

    Args:
        mix: one of `MIXES` but "none"; "mixup+cutmix" draws which of both for each batch.
        classes: C.
    """

    def __init__(self, mix: str, classes: int):
        from torchvision.transforms import v2  # when it is asked for: it takes a while

        kinds = {
            "mixup": v2.MixUp(alpha=MIXUP_ALPHA, num_classes=classes),
            "cutmix": v2.CutMix(alpha=CUTMIX_ALPHA, num_classes=classes),
        }
        self._mix = v2.RandomChoice([kinds[name] for name in mix.split("+")])

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixed images (B, C, H, W), and float shares of each class (B, classes), of labels (B,) int64."""
        return self._mix(images, labels)


__all__ = ["MIXES", "Mixing"]
