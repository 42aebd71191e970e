"""HuggingFace transformers' models of a picture with a question in one sequence (ViLT)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F

from mdpd_plugins.zoos.huggingface.adapter import HuggingFaceAdapter
from mdpd_plugins.zoos.huggingface.inputs import example_text


class QuestionAdapter(HuggingFaceAdapter):
    """An `AutoModelForVisualQuestionAnswering` whose blocks see words, a class token and patches side by side."""

    def _call(self, inputs):
        image, text = inputs["image"], {k: v for k, v in inputs.items() if k != "image"}
        # What it would assume, in whole numbers: a memory plan knows those.
        every = torch.ones((len(image), *image.shape[-2:]), dtype=torch.int64, device=image.device)
        with _patches_in_order():
            return self.model(pixel_values=image, pixel_mask=every, **text).logits

    def attention_mask(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """(B, T) bool: the question's, then a class token and patches, which are all real."""
        height, width = (side // self.config.patch_size for side in inputs["image"].shape[-2:])
        return F.pad(inputs["attention_mask"].bool(), (0, 1 + height * width), value=True)

    def example_inputs(self, batch: int = 2) -> dict[str, torch.Tensor]:
        """Pictures of the model's own size, questions of 16 tokens, the last one padded after 9."""
        text = {k: v.to(self.device) for k, v in example_text(self.config, batch).items()}
        return {**self._example_images(batch, self.image_size), **text}


@contextmanager
def _patches_in_order() -> Iterator[None]:
    """Inside, choosing all of n things at random gives them in their order.

    ViLT draws as many patches as there are, so it shuffles them, differently at every forward. Attention does not see
    their order; the last bits of its sums do, and so does the convolution of masked generation.
    """
    draw = torch.multinomial

    def chosen(weights: torch.Tensor, count: int, *args: Any, **options: Any) -> torch.Tensor:
        if int(count) == weights.numel():
            return torch.arange(weights.numel(), device=weights.device)
        return draw(weights, count, *args, **options)

    with patch.object(torch, "multinomial", chosen):
        yield


__all__ = ["QuestionAdapter"]
