"""Every section and key that a configuration may have: its type, default, range and meaning, in one place.

The `distill` section is `mdpd_plugins.engine.Settings`. None of these defaults is repeated in zoo_configs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mdpd_plugins.adapters.quantized import QUANTIZATIONS
from mdpd_plugins.adapters.storage.precision import CHOICES
from mdpd_plugins.adapters.transform import RESIZE
from mdpd_plugins.checked import setting
from mdpd_plugins.data import AUGMENTS, MIXES
from mdpd_plugins.engine import Rates
from mdpd_plugins.training.schedules import SCHEDULES

ADAMW_8BIT = "adamw_8bit"
OPTIMISERS = ("adamw", ADAMW_8BIT)


@dataclass(frozen=True)
class Tower:
    """A backbone: `backbone`, and `text_backbone` for images with texts."""

    name: str | None = setting(None, "registered name, <zoo>/<model>: `mdpd list-backbones`")
    pretrained: str | None = setting("auto", "auto, a checkpoint (file, folder, hub id, tag), or None for random")
    dtype: str = setting(
        "auto", "of the weights in training: the checkpoint's own, or another; the export has its own", choices=CHOICES
    )
    quantization: str = setting(
        "none",
        "of the frozen linear layers in the blocks, in training: int8, or nf4 with 4 bits; the export has none",
        choices=QUANTIZATIONS,
    )
    quantized_export: bool = setting(
        False, "leave the export quantised, as transformers saves it; by default it has the checkpoint's own weights"
    )
    options: dict[str, Any] = setting({}, "arguments of the backbone's build")


@dataclass(frozen=True)
class TaskSection:
    """What is learned."""

    kind: str | None = setting(None, "None: what the data's labels are (single, multi, float, pair); or language")
    width: int = setting(256, "outputs of each of two towers, which are then joined or compared", at_least=1)
    label_smoothing: float = setting(0.0, "share of a label that is spread over all classes", at_least=0, at_most=0.99)
    class_weights: Any = setting(
        None, 'what each class counts in the loss: a list of numbers, "balanced" for each class alike, or None'
    )


@dataclass(frozen=True)
class DataSection:
    """What is learned from."""

    source: dict[str, Any] = setting({}, "type of data and its keys: docs/data.md")
    unlabelled: dict[str, Any] = setting(
        {},
        'inputs without labels, for a coach to teach on: a type of data, "images" (a folder), "texts" (a file) or '
        '"rest" (what train_size leaves), with its keys, and size',
    )
    batch_size: int = setting(16, "samples of a training step", at_least=1)
    eval_batch_size: int | None = setting(
        None,
        "samples of an evaluation step; None: as many as pass through a training step together (distill.sub_batch, "
        "else batch_size), so that an evaluation does not need more memory than training",
        at_least=1,
    )
    num_workers: int = setting(0, "processes that read data beside the training", at_least=0)
    input_size: int | None = setting(None, "side of images in pixels; None: the backbone's own", at_least=1)
    resize: str = setting(
        "auto", "pictures of another shape: as the backbone's zoo does it; or stretched", choices=RESIZE
    )
    max_length: int = setting(128, "tokens that texts are cut to", at_least=1)
    augment: str = setting("auto", f"auto: what the data says is safe; or {', '.join(AUGMENTS[1:])}", choices=AUGMENTS)
    mix: str = setting("none", "training pictures mixed with others of their batch, and so their labels", choices=MIXES)
    eval_split: str = setting("val", "evaluated on: val while tuning, test for final numbers", choices=("val", "test"))


@dataclass(frozen=True)
class OptimSection(Rates):
    """Learning rates and weight decays of each kind of parameter (`Rates`), and the optimiser's step."""

    type: str = setting(
        "adamw", "PyTorch's AdamW, or bitsandbytes', whose moments take a byte instead of four", choices=OPTIMISERS
    )
    schedule: str = setting("cosine", "of all learning rates; the first two end at zero", choices=SCHEDULES)
    warmup: float = setting(
        0.0, "share of all steps in which learning rates rise in a line, before the schedule", at_least=0, at_most=0.9
    )
    clip_grad: float | None = setting(None, "largest gradient norm, per path", at_least=0)
    accumulate: int = setting(1, "batches per optimiser step", at_least=1)


@dataclass(frozen=True)
class TrainSection:
    """How long, and what is written on the way."""

    max_epochs: float = setting(3, "epochs; half an epoch may well be meant", above=0)
    max_steps: int | None = setting(None, "batches; wins over max_epochs", at_least=1)
    val_every: int | None = setting(None, "steps between evaluations; None: once an epoch", at_least=1)
    checkpoint_every: int | None = setting(None, "steps between checkpoints; None: once an epoch", at_least=1)
    keep: str = setting(
        "last",
        "what is faded and exported: the last step, or the best evaluation on val by the deployed path's main metric",
        choices=("last", "best"),
    )
    patience: int | None = setting(
        None, "evaluations on val without a better one after which training stops; None: never", at_least=1
    )
    ema: float | None = setting(
        None,
        "decay of a moving average of what trains, such as 0.999; the average is then what is measured and exported",
        above=0,
        at_most=0.99999,
    )
    log_every: int = setting(10, "steps between lines of the log", at_least=1)
    seed: int = setting(0, "of weights, order, masks and augmentation", at_least=0, at_most=2**32 - 1)
    amp: bool | str = setting(False, 'True or "bfloat16": forwards under autocast; "float16" with loss scaling')
    compile: str | None = setting(None, "a backend of torch.compile for the blocks, such as inductor")


@dataclass(frozen=True)
class CoachSection:
    """The first stage of methods with a coach: it learns alone, and its best evaluation on `val` teaches."""

    max_epochs: float = setting(60, "epochs of its training", above=0)
    patience: int | None = setting(
        10, "evaluations without a better one after which it has learned; None: never", at_least=1
    )
    batch_size: int = setting(64, "samples of a step: of a ladder on kept features, many cost little more", at_least=1)
    memory: int = setting(2000, "MiB of main memory for the frozen backbone's features", at_least=0)


@dataclass(frozen=True)
class ParallelSection:
    """Several processes."""

    shard: bool = setting(False, "share out the frozen weights, block by block")


@dataclass(frozen=True)
class RunSections:
    """A whole configuration."""

    backbone: Tower
    text_backbone: Tower
    task: TaskSection
    data: DataSection
    optim: OptimSection
    train: TrainSection
    coach: CoachSection
    parallel: ParallelSection
    data_root: str | None = setting(None, "an image folder instead of data.source")
    distill: dict[str, Any] = setting({}, "settings of the method: the distill section")
    work_dir: str | None = setting(None, "for checkpoints, logs and the export; None: work_dirs/<config name>")
    export_dir: str | None = setting(None, "None: WORK_DIR/export")
    visualizer: dict[str, Any] | None = setting(None, "an mmengine visualiser config, such as TensorBoard's")
    custom_hooks: list = setting([], "mmengine hook configs")
    custom_imports: Any = setting(None, "mmengine's: modules to import first, that register such hooks")


__all__ = ["RunSections"]
