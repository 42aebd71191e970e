"""The adapter: what makes one backbone look like every other.

`Adapter` serves any classifier that takes one tensor or keyword inputs and returns logits. A zoo's adapter
overrides only what that zoo does differently. An adapter is not an `nn.Module` and adds nothing to a state dict.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.built import RANDOM, Built, as_built
from mdpd_plugins.adapters.inspection.blocks import norm_modules
from mdpd_plugins.adapters.inspection.capture import Capture, capture
from mdpd_plugins.adapters.inspection.direct_calls import called_through
from mdpd_plugins.adapters.inspection.layout import first_tensor, from_tokens, with_first_tensor
from mdpd_plugins.adapters.inspection.reach import reached
from mdpd_plugins.adapters.inspection.recompute import passed_by, patched_forward, protected, recompute, step_by_step
from mdpd_plugins.adapters.inspection.structure import (
    Anatomy,
    Habits,
    NamedBlocks,
    Probe,
    Structure,
    anatomy,
    habits,
    ordered_blocks,
)
from mdpd_plugins.adapters.original import Original
from mdpd_plugins.adapters.output_layer import replace_output_layer
from mdpd_plugins.adapters.outputs import logits_of
from mdpd_plugins.adapters.preparation import Preparation
from mdpd_plugins.adapters.quantized import NONE, quantized_layers
from mdpd_plugins.adapters.storage.checkpoint import SAFETENSORS_FORMAT
from mdpd_plugins.adapters.storage.precision import weight_type
from mdpd_plugins.adapters.transform import Tensors
from mdpd_plugins.files import fresh_folder
from mdpd_plugins.registry.errors import CapabilityError, ConfigError

WEIGHTS_FILE = "model.safetensors"


class Adapter(Preparation):
    """One live backbone with its output layer.

    Args:
        model: the zoo's own module, or what building it handed over (`Built`). It is put in eval mode: no dropout in a
            teacher, frozen running statistics.
        name: registered name, for messages and cards.
        modality: "image" or "text".

    Attributes:
        origin: one phrase, where the weights came from.
        original: the checkpoint, where the weights are held in another form than it has; None otherwise.
        labels: (kind of label, class names) of what the model was trained for, once `set_labels` was called.
        student: what `distill` made of it, until that is faded or closed; None otherwise.
        load_with: what to tell a user who asks how to load an export.
    """

    load_with = "mdpd_plugins.load(FOLDER, model)"

    def __init__(self, model: nn.Module | Built, *, name: str = "", modality: str = "image"):
        self.built = as_built(model)
        self.model = self.built.model
        self.name = name or type(self.model).__name__
        self.modality = modality
        self.origin = self.built.origin or "unknown"
        self.original: Original | None = None
        self.options: dict[str, Any] = {}  # what a registered backbone was built with
        self.labels: tuple[str, tuple[str, ...]] | None = None
        self.student: Any = None
        self._open_captures: list[Capture] = []
        self._modes = {m: m.training for m in self.model.modules()}
        self.stand_still()

    @property
    def zoo(self) -> str:
        """The part of the name before the slash; "" for a model of no zoo."""
        zoo, slash, _ = self.name.partition("/")
        return zoo if slash else ""

    @property
    def random(self) -> bool:
        """Whether the weights are known to be a random initialisation."""
        return self.origin.startswith(RANDOM)

    def stand_still(self) -> None:
        """Evaluation mode, module by module: no dropout, and no running statistic moves."""
        self.model.eval()  # LeViT keeps what it needs then; MMPretrain's backbones return None, and skip some modules
        for module in self.model.modules():
            module.training = False

    def originals(self) -> list[tuple[str, nn.Module, Original]]:
        """(name, part of the model, its checkpoint) of what is held in another form than its checkpoint has."""
        return [] if self.original is None else [(self.name, self.model, self.original)]

    def held_quantized(self) -> str:
        """How linear layers of the blocks are held: "none", "int8" or "nf4"; of two towers that differ, both."""
        return " and ".join(dict.fromkeys(layer.kind for _, layer in quantized_layers(self.model))) or NONE

    def check_quantized_export(self) -> None:
        """Raise CapabilityError unless the zoo's library has a form for the model's quantised layers."""
        raise CapabilityError(
            f"{self.zoo or type(self.model).__name__} has no files for quantised weights, as transformers has: export "
            f"{self.name} with its checkpoint's own weights, without quantized_export"
        )

    def keep_quantized(self) -> None:
        """Give quantised layers the form that the zoo's library saves and loads; see `check_quantized_export`."""
        raise NotImplementedError

    def restore_modes(self) -> None:
        """Put every module into the mode, training or evaluation, that it was in before it was adapted."""
        for module, training in self._modes.items():
            module.training = training

    # --- forward -----------------------------------------------------------------------------------------

    prefixes: tuple[str, ...] = ("",)
    """State-dict prefixes of what belongs to the backbone and its head: one tower of two, otherwise everything."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Native state-dict key -> parameter of the backbone and its head; not those that are held quantised."""
        named = self.model.named_parameters()
        return {n: p for n, p in named if n.startswith(self.prefixes) and p.is_floating_point()}

    def forward(self, inputs: Tensors) -> torch.Tensor:
        """Logits (B, num_outputs), in the type of the weights.

        Args:
            inputs: {"image": (B, 3, H, W) normalised} or {"input_ids": (B, T), "attention_mask": (B, T)}.
        """
        if not self._open_captures:
            return self._run(inputs)
        with self.watched(inputs):
            return self._run(inputs)

    @contextmanager
    def watched(self, inputs: Tensors) -> Iterator[None]:
        """Inside, a call of the model itself on these inputs fills the captures that are open, as `forward` does."""
        first = next(iter(inputs.values()))
        for seen in self._open_captures:
            seen.batch = first.shape[0]  # it tells samples from positions
            # Beside words (ViLT), patches are a part of one sequence and lie on no grid of their own.
            seen.image_size = (first.shape[-2], first.shape[-1]) if self.modality == "image" else None
        # Hooks must see every block, and what a block was given must stay what it was.
        with (
            protected(self._habits.writers),
            called_through(self._habits.called_directly),
            step_by_step(self._passed_by),
        ):
            yield

    def _run(self, inputs: Tensors) -> torch.Tensor:
        own = self.dtype
        given = {k: v.to(own) if v.is_floating_point() else v for k, v in inputs.items()}
        mixed = torch.autocast(self.device.type, own) if self.mixes_types else nullcontext()
        with step_by_step(self._passed_by), mixed:
            return self._call(given)

    @cached_property
    def _passed_by(self) -> bool:
        return passed_by([self.model])

    mixes_types = False
    """Whether the model's own code makes float32 tensors that it joins with its narrower ones (MMPretrain's Swin, its
    masks). PyTorch refuses that, so forwards run under autocast, which brings both to one type."""

    def settle_types(self) -> None:
        """Find out whether a model of narrow weights runs in their type alone. One forward, if they are narrow.

        Asked again when their type has changed.

        Raises:
            CapabilityError: it runs neither so nor under autocast.
        """
        self.mixes_types = False
        if (own := self.dtype) == torch.float32:
            return
        try:
            with torch.no_grad():
                self._run(self.example_inputs(1))
        except (RuntimeError, TypeError) as error:
            self.mixes_types = True
            try:
                with torch.no_grad():
                    self._run(self.example_inputs(1))
            except (RuntimeError, TypeError):
                raise CapabilityError(
                    f"{self.name} does not run with weights of {own} on this device "
                    f"({str(error).splitlines()[0]}): hold them in another type; float32 always runs"
                ) from error

    def _call(self, inputs: Tensors) -> torch.Tensor:
        """What a zoo's adapter overrides: `inputs` to logits."""
        return logits_of(self.model(inputs["image"]) if inputs.keys() == {"image"} else self.model(**inputs))

    def set_labels(self, classes: tuple[str, ...], kind: str = "single") -> None:
        """Write class names and `task.kind` where the zoo keeps them; a library without such a place keeps none."""
        self.labels = (kind, tuple(classes))

    def class_names(self, count: int) -> tuple[str, ...]:
        """Names of `count` outputs: those that the model knows, or their numbers."""
        return tuple(map(str, range(count)))

    def words(self, ids: Sequence[int]) -> list[str]:
        """Readable forms of tokens; none where no tokenizer says so. What a zoo's adapter overrides."""
        return []

    @property
    def parts(self) -> dict[str, Any]:
        """What an export's record says of how the backbone was built."""
        return {"backbone": self.name, "options": self.options}

    @property
    def num_outputs(self) -> int:
        """C of the logits (B, C), by trying.

        Raises:
            ConfigError: the model puts out no logits.
        """
        with torch.no_grad():
            outputs = self.forward(self.example_inputs(2))
        if outputs.dim() != 2 or len(outputs) != 2:
            raise ConfigError(
                f"{self.name} has no output layer for classes: for 2 samples it puts out {tuple(outputs.shape)}, and "
                f"(2, classes) is needed. Give it one: adapt(model, num_classes=...)"
            )
        return outputs.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the backbone's parameters are."""
        return next(iter(self.parameters().values())).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the backbone's weights, which floating inputs are cast to."""
        return weight_type(self.model, self.prefixes)

    def attention_mask(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """(B, T) bool, True for real tokens of padded text; None where every token is real.

        So it is where the blocks start from learned latents, the same for every text (Perceiver): none is padding.
        """
        mask = inputs.get("attention_mask")
        return None if mask is None or self._anatomy.latents else mask.bool()

    def attention_masks(self, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor | None]:
        """`attention_mask` of each tower."""
        return [self.attention_mask(inputs)]

    # --- structure ---------------------------------------------------------------------------------------

    @property
    def named_blocks(self) -> NamedBlocks:
        """(state-dict path, block), in execution order."""
        return self._structure.named

    @cached_property
    def _structure(self) -> Structure:
        # All that takes a forward to find out at once, so that none runs when somebody already watches.
        named = ordered_blocks(self.model, self.prefixes, self._probe.run)
        return Structure(named, habits([block for _, block in named], self._probe))

    @cached_property
    def _habits(self) -> Habits:
        blocks = self.blocks()  # a subclass may list others than those that would be found
        return self._structure.habits if "_structure" in vars(self) else habits(blocks, self._probe)

    @property
    def _probe(self) -> Probe:
        return Probe(self._run, self.example_inputs, self._copied)

    def _copied(self) -> tuple[Probe, Callable[[nn.Module], Any]] | None:
        shared = {id(t): t for t in [*self.model.parameters(), *self.model.buffers()]}
        try:
            twin = copy.deepcopy(self, shared)
        except Exception:  # some models hold what cannot be copied
            return None
        return twin._probe, lambda module: shared[id(module)]

    def blocks(self) -> list[nn.Module]:
        """The repeated blocks in execution order.

        Raises:
            CapabilityError: there are none.
        """
        if not (named := self.named_blocks):
            raise CapabilityError(f"{self.name} has no blocks: its adapter's named_blocks is empty")
        return [block for _, block in named]

    @property
    def towers(self) -> list[range]:
        """Layers of each tower. Two towers read different inputs; every other backbone has one."""
        return [range(len(self.blocks()))]

    @property
    def last_layers(self) -> list[int]:
        """The last layer of each tower."""
        return [layers[-1] for layers in self.towers]

    def declared_blocks(self) -> int | None:
        """How many blocks the library's own configuration says there are; None where it does not say."""
        return None

    def norm_parameters(self) -> dict[str, nn.Parameter]:
        """Native state-dict key -> affine parameter of every normalisation layer."""
        # By identity: a tensor that several layers share has one key here, its first.
        keys = {id(p): n for n, p in self.model.named_parameters()}
        return {
            keys[id(parameter)]: parameter
            for _, module in self._norm_modules()
            for parameter in module.parameters(recurse=False)
        }

    def _norm_modules(self) -> list[tuple[str, nn.Module]]:
        return [(n, m) for n, m in norm_modules(self.model) if f"{n}.".startswith(self.prefixes)]

    def _observe(self) -> Capture:
        """One forward of the example inputs, with every block's call."""
        with torch.no_grad(), self.capture(keep_calls=True) as seen:
            self.forward(self.example_inputs())
        missing = [i for i in range(len(self.blocks())) if i not in seen.calls]
        if missing:
            raise CapabilityError(
                f"blocks {missing} of {self.name} did not run in a forward: give it an adapter whose blocks() "
                f"lists only those that do, in execution order"
            )
        return seen

    @cached_property
    def _anatomy(self) -> Anatomy:
        return anatomy(self._observe(), len(self.blocks()))

    @property
    def dims(self) -> list[int]:
        """Width D_i of what leaves each block."""
        return list(self._anatomy.dims)

    @property
    def stem_dims(self) -> list[int]:
        """Width D_0 of what enters the first block of each tower."""
        return [self._anatomy.stem_dim]

    @property
    def convolutional(self) -> list[bool]:
        """Whether the blocks of each tower put out feature maps (B, C, H, W) rather than tokens."""
        # CvT begins with maps and ends with a class token beside them.
        maps = all(layout.prefix == 0 and layout.grid for layout in self._anatomy.layouts)
        return [self._anatomy.starts_with_maps and maps]

    @property
    def num_prefix_tokens(self) -> int:
        """Special tokens (class, distillation, register) before the grid of the last block."""
        return self._anatomy.layouts[-1].prefix

    def grid(self, layer: int) -> tuple[int, int] | None:
        """(height, width) of the token grid that leaves block `layer` at the model's own input size."""
        return self._anatomy.layouts[layer % len(self._anatomy.layouts)].grid

    def tail_parameters(self) -> dict[str, nn.Parameter]:
        """Native key -> parameter of what lies between the last block and the logits: final norms, pool and head.

        Found in the graph of logits with every block's output held constant, so it needs no names.
        """
        named = self.parameters()
        flags = {n: p.requires_grad for n, p in named.items()}
        seen = self._observe()
        try:
            for p in named.values():
                p.requires_grad_(True)
            with torch.enable_grad():
                last = [seen.hidden[i] for i in self.last_layers]
                leaves = reached(self.forward_head(self.example_inputs(), seen, *last))
        finally:
            for n, p in named.items():
                p.requires_grad_(flags[n])
        return {n: p for n, p in named.items() if id(p) in leaves}

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Native key -> parameter of the output layer: the tail without its norms (BERT's pooler belongs to it)."""
        norms = {id(p) for p in self.norm_parameters().values()}
        return {n: p for n, p in self.tail_parameters().items() if id(p) not in norms}

    def attention_heads(self) -> list[int]:
        """Heads of each block's attention over all tokens, by capturing its maps once.

        Raises:
            CapabilityError: the backbone has no global attention.
        """
        with torch.no_grad(), self.capture(attention=True) as seen:
            self.forward(self.example_inputs())
        return [seen.attention[i].shape[1] for i in range(len(self.blocks()))]

    def describe(self) -> dict[str, Any]:
        """What `mdpd show` prints. Every capability in it was exercised just now."""
        try:
            heads = self.attention_heads()
            attention = f"{min(heads)}-{max(heads)} heads" if len(set(heads)) > 1 else f"{heads[0]} heads"
        except CapabilityError:
            attention = "none over all tokens"
        norms = self.norm_parameters()
        return {
            "name": self.name,
            "class": type(self.model).__name__,
            "blocks": len(self.blocks()),
            "dims": sorted(set(self.dims)),
            "tokens": self._anatomy.tokens,
            "prefix_tokens": self.num_prefix_tokens,
            "grid": self.grid(-1),
            "norm_layers": len(self._norm_modules()),
            "norm_parameters": sum(p.numel() for p in norms.values()),
            "head_parameters": sum(p.numel() for p in self.head_parameters().values()),
            "parameters": sum(p.numel() for p in self.parameters().values()),
            "capabilities": {"attention": attention, "modality": self.modality, "weights": self.origin},
        }

    # --- capture, recomputation, replay ------------------------------------------------------------------

    def capture(
        self, layers: Iterable[int] | None = None, *, attention: bool = False, keep_calls: bool = False
    ) -> AbstractContextManager[Capture]:
        """Record hidden states (and attention maps) of forwards made inside; see `capture.Capture`."""
        return self._capture(layers, attention, keep_calls)

    @contextmanager
    def _capture(self, layers, attention, keep_calls) -> Iterator[Capture]:
        arranged = self._habits.arranged  # found before anything is watched
        starts = [layers_of[0] for layers_of in self.towers]
        with capture(
            self.blocks(), layers, arranged=arranged, starts=starts, attention=attention, keep_calls=keep_calls
        ) as seen:
            self._open_captures.append(seen)
            try:
                yield seen
            finally:
                self._open_captures.remove(seen)

    def recompute(self) -> AbstractContextManager[None]:
        """Inside, a forward stores block inputs only and backward recomputes block by block."""
        return recompute(self.blocks(), self._habits.writers)

    def forward_features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, T, D): what leaves the last block, before the final norm."""
        last = len(self.blocks()) - 1
        with self.capture([last]) as seen:
            self.forward(inputs)
        return seen.hidden[last]

    def forward_head(self, inputs: dict[str, torch.Tensor], seen: Capture, *hidden: torch.Tensor) -> torch.Tensor:
        """Logits from the last hidden state of each tower through the zoo's own final norm, pool and head.

        The model's own forward runs with every block standing in for itself: each returns what it returned in
        `seen`, the last one of each tower returns `hidden`. So no zoo's tail has to be written again.

        Args:
            inputs: the inputs `seen` was captured from.
            seen: a capture made with `keep_calls=True`.
            hidden: (B, T, D) of each tower's last block.
        """
        given = dict(zip(self.last_layers, hidden, strict=True))
        missing = [i for i in range(len(self.blocks())) if i not in seen.calls]
        if missing:
            raise ConfigError("forward_head needs a capture made with keep_calls=True over one whole forward")

        def stand_in(index, _):
            output = seen.calls[index][2]
            if index in given:
                like = first_tensor(output)
                native = from_tokens(given[index].to(like.dtype), seen.axes[index], like.shape)
                output = with_first_tensor(output, native)
            return lambda *args, **kwargs: output

        with patched_forward(self.blocks(), stand_in):
            return self.forward(inputs)

    # --- the zoo's own head and format -------------------------------------------------------------------

    def replace_head(self, num_outputs: int) -> None:
        """Give the model a fresh output layer of `num_outputs`, of the zoo's own kind.

        Raises:
            CapabilityError: no linear layer or convolution is known to be this model's output layer.
        """
        replace_output_layer(self.model, self.head_parameters(), num_outputs, self.name)

    def with_outputs(self, num_outputs: int) -> Adapter:
        """An adapter of this model with `num_outputs` outputs: this one, unless the model has to be wrapped for it.

        Raises:
            CapabilityError: as `replace_head`.
        """
        self.replace_head(num_outputs)
        return self

    def export(self, folder: str | Path) -> Path:
        """Write the model in its zoo's native format. The folder appears whole or not at all."""
        with fresh_folder(folder) as temporary:
            self.write(temporary)
        return Path(folder)

    def write(self, folder: Path) -> None:
        """Write the model's files into an existing folder. What a zoo's adapter overrides."""
        from safetensors.torch import save_model

        save_model(self.model, str(folder / WEIGHTS_FILE), metadata=SAFETENSORS_FORMAT)
        (folder / "backbone.json").write_text(json.dumps({"name": self.name}, indent=2) + "\n")

    def around(self, model: nn.Module) -> Adapter:
        """An adapter like this one for another model of the same kind, such as one read back from its export."""
        return type(self)(replace(self.built, model=model), name=self.name, modality=self.modality)

    def load_exported(self, folder: str | Path) -> nn.Module:
        """The exported model, read back; for a model without a zoo format: its weights into a copy."""
        from safetensors.torch import load_model

        model = copy.deepcopy(self.model)
        load_model(model, str(Path(folder) / WEIGHTS_FILE))
        return model


__all__ = ["Adapter"]
