"""Two towers under one output: an image backbone and a text backbone that need not know of each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.adapter import Adapter
from mdpd_plugins.adapters.built import RANDOM, Built
from mdpd_plugins.adapters.inspection.capture import Capture
from mdpd_plugins.adapters.inspection.structure import Habits
from mdpd_plugins.adapters.original import Original
from mdpd_plugins.adapters.storage.checkpoint import SAFETENSORS_FORMAT
from mdpd_plugins.adapters.transform import PictureTransform, Size, TextTransform
from mdpd_plugins.registry.errors import CapabilityError

FUSION_FILE, PAIR_FILE = "fusion.safetensors", "pair.json"


class TwoTowers(nn.Module):
    """An image model and a text model, each with its zoo's own output layer, and what joins their outputs."""

    def __init__(self, image: nn.Module, text: nn.Module, fusion: nn.Module):
        super().__init__()
        self.image, self.text, self.fusion = image, text, fusion


class PairAdapter(Adapter):
    """Two adapters that look like one: blocks of the image tower first, then those of the text tower.

    Args:
        model: what holds both towers. image, text: adapters of the towers, whose models are parts of `model`.
        places: prefixes of the towers' state-dict keys in `model`. joining: prefix of what joins them.
        fusion: joins the towers' outputs, (B, E) each.
    """

    def __init__(
        self,
        model: nn.Module | Built,
        image: Adapter,
        text: Adapter,
        *,
        places: tuple[str, str] = ("image.", "text."),
        joining: str = "fusion.",
        fusion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        name: str = "",
    ):
        self.image, self.text, self.fusion = image, text, fusion
        self._places = places
        # Of an OpenCLIP model that serves as one tower, the other half is no part of the pair.
        parts = [f"{place}{own}" for place, tower in zip(places, self._towers, strict=True) for own in tower.prefixes]
        self.prefixes = (*parts, joining)
        super().__init__(model, name=name or f"{image.name} + {text.name}", modality="image-text")

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the fusion makes of both towers' outputs.

        Args:
            inputs: {"image": (B, 3, H, W) normalised, "input_ids": (B, T), "attention_mask": (B, T)}.
        """
        image, text = self._parted(inputs)
        features = self.image.forward(image), self.text.forward(text)
        # What joins the towers was never part of a checkpoint and is held in float32.
        narrow = any(tower.dtype != torch.float32 for tower in self._towers)
        return self.fusion(*(f.float() if narrow else f for f in features))

    def _parted(self, inputs: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return {"image": inputs["image"]}, {k: v for k, v in inputs.items() if k != "image"}

    def example_inputs(self, batch: int = 2) -> dict[str, torch.Tensor]:
        """Inputs of both towers."""
        return {**self.image.example_inputs(batch), **self.text.example_inputs(batch)}

    def prepare(self, *, input_size: Size | None = None, resize: str = "auto", max_length: int | None = None) -> None:
        """Of both towers."""
        super().prepare(input_size=input_size, resize=resize, max_length=max_length)
        for tower in self._towers:
            tower.prepare(input_size=input_size, resize=resize, max_length=max_length)

    def image_transform(self, *, stretch: bool = False) -> PictureTransform:
        """The image tower's."""
        return self.image.image_transform(stretch=stretch)

    def text_transform(self) -> TextTransform:
        """The text tower's."""
        return self.text.text_transform()

    @property
    def image_size(self) -> Size:
        """The image tower's."""
        return self.image.image_size

    def attention_mask(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """Of the text tower: every token of a picture is real."""
        return self.text.attention_mask(self._parted(inputs)[1])

    def attention_masks(self, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor | None]:
        """Of each tower."""
        image, text = self._parted(inputs)
        return [self.image.attention_mask(image), self.text.attention_mask(text)]

    @property
    def fixed_length(self) -> bool:  # type: ignore[override]
        """Whether the text tower's inputs always have one length."""
        return self.text.fixed_length

    @property
    def zoo(self) -> str:
        """The towers' zoos."""
        return " and ".join(dict.fromkeys(tower.zoo for tower in self._towers))

    @property
    def parts(self) -> dict[str, Any]:
        """How both towers were built."""
        text = self.text.parts
        return {**self.image.parts, "text_backbone": text["backbone"], "text_options": text["options"]}

    def settle_types(self) -> None:
        """Of both towers."""
        for tower in self._towers:
            tower.settle_types()

    def originals(self) -> list[tuple[str, nn.Module, Original]]:
        """Of both towers, which may be parts of one checkpoint."""
        return super().originals() or [*self.image.originals(), *self.text.originals()]

    def restore_modes(self) -> None:
        """Of both towers; the image tower was adapted first."""
        self.text.restore_modes()
        self.image.restore_modes()

    @property
    def load_with(self) -> str:  # type: ignore[override]
        """What to tell a user who asks how to load an export."""
        return f"image/ with {self.image.load_with}; text/ with {self.text.load_with}"

    # --- structure ---------------------------------------------------------------------------------------

    @property
    def _towers(self) -> tuple[Adapter, Adapter]:
        return self.image, self.text

    @cached_property
    def named_blocks(self) -> list[tuple[str, nn.Module]]:
        """(state-dict path, block), the image tower's first."""
        return [(f"{p}{n}", b) for p, t in zip(self._places, self._towers, strict=True) for n, b in t.named_blocks]

    @property
    def _habits(self) -> Habits:  # type: ignore[override]
        image, text = (tower._habits for tower in self._towers)
        return Habits(
            image.called_directly + text.called_directly, image.writers + text.writers, image.arranged + text.arranged
        )

    @property
    def towers(self) -> list[range]:
        """Layers of the image tower and of the text tower."""
        first, second = (len(t.blocks()) for t in self._towers)
        return [range(first), range(first, first + second)]

    @property
    def dims(self) -> list[int]:
        """Width of what leaves each block."""
        return [*self.image.dims, *self.text.dims]

    @property
    def stem_dims(self) -> list[int]:
        """Of both towers."""
        return [*self.image.stem_dims, *self.text.stem_dims]

    @property
    def convolutional(self) -> list[bool]:
        """Of both towers."""
        return [*self.image.convolutional, *self.text.convolutional]

    def grid(self, layer: int) -> tuple[int, int] | None:
        """(height, width) of the token grid that leaves block `layer`; None in the text tower."""
        first, second = self.towers
        layer %= second.stop
        return self.image.grid(layer) if layer in first else self.text.grid(layer - second.start)

    def attention_heads(self) -> list[int]:
        """Of both towers."""
        return [*self.image.attention_heads(), *self.text.attention_heads()]

    # --- capture, recomputation --------------------------------------------------------------------------

    @contextmanager
    def _capture(self, layers, attention, keep_calls) -> Iterator[Capture]:
        with super()._capture(layers, attention, keep_calls) as seen:
            for tower in self._towers:
                tower._open_captures.append(seen)  # each tells it the size of what it reads
            try:
                yield seen
            finally:
                for tower in self._towers:
                    tower._open_captures.remove(seen)

    @contextmanager
    def recompute(self) -> Iterator[None]:
        """Inside, a forward stores block inputs only and backward recomputes block by block."""
        with ExitStack() as stack:
            for tower in self._towers:
                stack.enter_context(tower.recompute())
            yield

    # --- format ------------------------------------------------------------------------------------------

    def replace_head(self, num_outputs: int) -> None:
        """Not offered: outputs come from the fusion.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(f"{self.name} ends in a fusion of two towers: build it with the outputs you need")

    @property
    def usage(self) -> str:
        """For the card: how to load both towers, and what joins them."""
        return (
            "`image/` and `text/` are plain models of their zoos, and `fusion.safetensors` holds what joins their "
            f"outputs: a `{type(self.fusion).__name__}` of `mdpd_plugins.adapters.towers.fusion` (`{PAIR_FILE}`)."
        )

    def write(self, folder: Path) -> None:
        """Each tower in its zoo's native format in a folder of its own, and the fusion's weights."""
        from safetensors.torch import save_file

        for name, tower in (("image", self.image), ("text", self.text)):
            (folder / name).mkdir()
            tower.write(folder / name)
        state = self.model.get_submodule("fusion").state_dict()
        fusion = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        save_file(fusion, folder / FUSION_FILE, metadata=SAFETENSORS_FORMAT)
        with torch.no_grad():
            width = self.image.forward(self.image.example_inputs(1)).shape[-1]
        about = {
            "image": self.image.name,
            "text": self.text.name,
            "fusion": type(self.fusion).__name__,
            "width": width,  # outputs of either tower
        }
        (folder / PAIR_FILE).write_text(json.dumps(about, indent=2) + "\n")

    def around(self, model: nn.Module) -> PairAdapter:
        """An adapter for another pair of such towers."""
        image, text, fusion = (model.get_submodule(name) for name in ("image", "text", "fusion"))
        towers = self.image.around(image), self.text.around(text)
        return PairAdapter(replace(self.built, model=model), *towers, fusion=fusion, name=self.name)

    def load_exported(self, folder: str | Path) -> nn.Module:
        """Both towers through their zoos' own loaders, and the fusion."""
        import copy

        from safetensors.torch import load_model

        fusion = copy.deepcopy(self.model.get_submodule("fusion"))
        load_model(fusion, str(Path(folder) / FUSION_FILE))
        image, text = (t.load_exported(Path(folder) / n) for n, t in (("image", self.image), ("text", self.text)))
        return TwoTowers(image, text, fusion).eval()


def pair(image: Adapter, text: Adapter, fusion: nn.Module) -> PairAdapter:
    """An image backbone and a text backbone, built with the same number of outputs, joined by `fusion`."""
    # A pair of which one tower was not pretrained is not pretrained.
    order = sorted((("image", image), ("text", text)), key=lambda tower: not tower[1].random)
    random = f"{RANDOM}: " if order[0][1].random else ""
    origin = random + "; ".join(f"{name} tower: {tower.origin}" for name, tower in order)
    built = Built(TwoTowers(image.model, text.model, fusion), origin=origin)
    return PairAdapter(built, image, text, fusion=fusion)


__all__ = ["FUSION_FILE", "PAIR_FILE", "PairAdapter", "TwoTowers", "pair"]
