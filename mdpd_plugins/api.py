"""What people call from Python: begin a distillation, export what came out, load it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.engine import Distiller, Settings
from mdpd_plugins.engine.low_rank import computes_its_weight
from mdpd_plugins.engine.precision import autocast_dtype
from mdpd_plugins.exports import check_reloads, check_replaceable, load_export, read_record, record_of
from mdpd_plugins.files import fresh_folder
from mdpd_plugins.registry.errors import CapabilityError, CheckpointError, ConfigError, UsageError
from mdpd_plugins.tasks import KINDS, make_task


def distill(
    adapter: Adapter,
    *,
    steps: int,
    task: str = "single",
    classes: Sequence[str] | None = None,
    method: str = "mdpd_low_rank",
    accumulate: int = 1,
    seed: int = 0,
    amp: bool | str = False,
    width: int = 256,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    **settings: Any,
) -> Distiller:
    """Put a side network beside a backbone and say what of it trains. What comes back is trained in any loop.

    The side network's first weights come from PyTorch's global generator: call `torch.manual_seed` before, for a run
    that can be repeated.

    Args:
        adapter: of `adapt` or `create`.
        steps: batches of the whole training; the warm-up is a share of them.
        task: kind of label: "single", "multi", "float", "pair" (retrieval), or "language".
        classes: names of the outputs, in order; by default those that the model knows, or their numbers. `fade` writes
            them where the model's library keeps them.
        method: a row of `METHODS`, such as "mdpd_low_rank", "mdpd" (the paper's recipe), "ladder", "norm" or "lora".
        accumulate: batches that one optimiser step takes together. Divide the loss by it yourself, or let Accelerate.
        seed: of the masks of feature distillation.
        amp: run forwards under autocast: True for bfloat16, or "float16".
        width: of the joint space of retrieval, which has no classes.
        label_smoothing: share of a label that is spread over all classes. class_weights: what the loss of each class's
            samples is multiplied by. Labels of kind "single" may be shares of each class, (B, C), as mixup makes them.
        settings: any field of `Settings` besides, such as `backbone_every=4` or `sub_batch=8`.

    Returns:
        The student. `student.backward(inputs, labels)` takes gradients, `fade(student)` gives the plain model back,
        `student.close()`, or leaving a `with` block before fading, leaves the model exactly as it came.

    Raises:
        ConfigError: an unknown task, method or setting, a model without an output layer, or names that do not fit it.
        CapabilityError: the backbone cannot do what the settings ask for.
        UsageError: an earlier student of this adapter is neither faded nor closed.
    """
    if not isinstance(adapter, Adapter):
        what = "a live model: call adapt(model) first" if isinstance(adapter, nn.Module) else type(adapter).__name__
        raise ConfigError(f"distill() takes an adapter, and was given {what}")
    check_no_student(adapter, "distill")
    adapter.stand_still()
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"steps={steps!r}: the number of batches of the whole training is meant, at least 1")
    given = Settings.from_dict({"method": method, **settings})
    if task in KINDS:
        count = adapter.num_outputs
        classes = adapter.class_names(count) if classes is None else tuple(classes)
        if len(classes) != count:
            raise ConfigError(
                f"{len(classes)} classes were named, but {adapter.name} has {count} outputs: name {count}, or give it "
                f"an output layer for {len(classes)} with adapt(model, num_classes={len(classes)})"
            )
    student = Distiller(
        adapter,
        make_task(task, classes or (), width=width, label_smoothing=label_smoothing, class_weights=class_weights),
        given,
        max_steps=steps,
        accumulate=accumulate,
        seed=seed,
        amp=autocast_dtype(amp),
        restorable=True,
    )
    adapter.student = student
    return student


def export(adapter: Adapter, folder: str | Path) -> Path:
    """Write a model in its zoo's own format, with `mdpd.json` beside it, by which `load` and `mdpd predict` know it.

    A zoo's model is read back once by the zoo's loader, and has to put out what the model in memory does.

    Args:
        adapter: of a plain model: after `fade`.
        folder: must not exist, be empty, or hold an earlier export, which is replaced. It appears whole or not at all.

    Raises:
        ConfigError: the folder holds something else, or the model does not say how to write it.
        CheckpointError: what was written, read back, is not the model in memory.
        CapabilityError: so it is, because layers work their weight out from other tensors.
        UsageError: its student is neither faded nor closed.
    """
    check_no_student(adapter, "export")
    folder = Path(folder)
    check_replaceable(folder)
    with fresh_folder(folder) as temporary:
        adapter.write(temporary)
        record_of(adapter).write(temporary)
        if adapter.zoo:  # a model of no zoo is put together by its owner's code
            try:
                check_reloads(temporary, folder, adapter, adapter.example_inputs())
            except CheckpointError as error:
                if not (name := _worked_out(adapter)):
                    raise
                raise CapabilityError(
                    f"{name} of {adapter.name} works its weight out from other tensors (pruning, weight or spectral "
                    f"normalisation), and its library builds a model that does not. Make it plain, with "
                    f"torch.nn.utils.prune.remove or torch.nn.utils.parametrize.remove_parametrizations, and export it "
                    f"again"
                ) from error
    return folder


def check_no_student(adapter: Adapter, call: str) -> None:
    """Raise UsageError if a student of this adapter is neither faded nor closed."""
    if adapter.student is not None:
        raise UsageError(
            f"{call}() was called while an earlier student of {adapter.name} still has its side network: call "
            f"fade(student) to keep what it learned, or student.close() to leave the model as it came"
        )


def _worked_out(adapter: Adapter) -> str:
    """The first layer that makes its weight from other tensors at each forward; "" for none."""
    return next((name for name, module in adapter.model.named_modules() if computes_its_weight(module)), "")


def load(folder: str | Path, model: nn.Module | None = None, *, device: str | None = None) -> nn.Module:
    """The model of an exported folder, in eval mode.

    Args:
        folder: what `export` or a training run wrote.
        model: of the same architecture, for exports of models that belong to no zoo: it is filled and returned. Not
            needed, and not used, where the folder is in a zoo's own format.
        device: by default a GPU if there is one.

    Raises:
        ConfigError: the folder is no export, or a model is needed and none was given.
        CheckpointError: its files cannot be read, or do not fit together or into `model`.
    """
    record = read_record(folder)
    if record.zoo:
        return load_export(folder, device).model
    if model is None:
        raise ConfigError(
            f"{str(folder)!r} holds the weights of {record.backbone}, a model that belongs to no zoo: give a model of "
            f"that architecture to put them into, load(folder, model)"
        )
    record.check_files(Path(folder))
    from mdpd_plugins.adapters.adapter import WEIGHTS_FILE
    from mdpd_plugins.adapters.storage.checkpoint import check_keys, read_state_dict

    path = Path(folder) / WEIGHTS_FILE
    state, own = read_state_dict(path), model.state_dict()
    shared = {k for k in own if k not in state}  # tied weights lie in the file once
    stored = {own[k].data_ptr() for k in state if k in own}
    check_keys(
        repr(str(path)),
        type(model).__name__,
        [k for k in shared if own[k].data_ptr() not in stored],
        [k for k in state if k not in own],
        [k for k in state if k in own and own[k].shape != state[k].shape],
    )
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{str(path)!r} does not fit {type(model).__name__}: {error}") from error
    return model.eval()


__all__ = ["distill", "export", "load"]
