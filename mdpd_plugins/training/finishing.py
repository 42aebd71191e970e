"""The end of a run: evaluation, fading and the export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mdpd_plugins.adapters.quantized import NONE, quantized_layers
from mdpd_plugins.engine import fade
from mdpd_plugins.engine.learned import load_learned
from mdpd_plugins.exports import check_reloads, record_of
from mdpd_plugins.files import fresh_folder
from mdpd_plugins.freed_memory import give_back
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks import Language, by_class
from mdpd_plugins.training.announcing import described
from mdpd_plugins.training.best import exported_state
from mdpd_plugins.training.card import print_summary, write_card
from mdpd_plugins.training.checkpoints import read_summary
from mdpd_plugins.training.coach_files import read_coach
from mdpd_plugins.training.experiment import Experiment, build_experiment, first_batch
from mdpd_plugins.training.run_record import config_of_work_dir
from mdpd_plugins.training.two_opinions import paths_of

# Samples that fading compares and times both paths on: enough to compare, few enough to be over soon on a CPU.
COMPARED = 16


def evaluate(experiment: Experiment) -> dict[str, float]:
    """Metrics of both paths on the split that `data.eval_split` names."""
    results: list[dict] = []
    for data in experiment.eval_loader:
        results += experiment.distiller.val_step({k: data[k] for k in ("inputs", "labels")})
    return experiment.metric.compute_metrics(results)


def _evaluate_plain(experiment: Experiment) -> dict[str, float]:
    """Metrics of the plain model that fading left."""
    adapter, task, results = experiment.adapter, experiment.task, []
    for data in experiment.eval_loader:
        with torch.no_grad():
            outputs = adapter.forward({k: v.to(adapter.device) for k, v in data["inputs"].items()}).float().cpu()
        scores = task.scored(outputs, data["labels"])
        results += [{"label": label, "backbone": scores[i]} for i, label in enumerate(data["labels"])]
    return experiment.metric.compute_metrics(results)


def finish(
    experiment: Experiment,
    metrics: dict[str, float],
    export_dir: Path,
    memory: dict[str, int],
    examples: dict[str, Any],
    coach: dict[str, Any],
) -> dict[str, Any]:
    """Fade, export with a card, and return the summary.

    Args:
        coach: what is known of the coach, if one taught.

    Raises:
        CheckpointError: the export, loaded once more, is not the model that was trained; nothing has its name then.
    """
    config, adapter = experiment.config, experiment.adapter
    give_back()
    parameters, paths = parameters_of(experiment), paths_of(experiment)
    batch = first_batch(experiment.eval_loader)["inputs"]
    inputs = {k: v[:COMPARED].to(adapter.device) for k, v in batch.items()}
    by_class = _by_class(experiment)
    _, report = fade(experiment.distiller, inputs, quantized=config.backbone.quantized_export)
    if torch.cuda.is_available():
        memory = {**memory, "cuda_peak": torch.cuda.max_memory_allocated()}
    give_back()
    with fresh_folder(export_dir) as folder:
        adapter.write(folder)
        quantized: dict[str, float] = {}
        if report.quantization != NONE:  # another model than was measured; it has been written as it is by now
            plain = _evaluate_plain(experiment)
            quantized = {key: metrics[key] for key in plain if key in metrics}
            metrics, by_class = {**metrics, **plain}, _by_class(experiment)
        summary = {
            "backbone": adapter.name,
            "zoo": adapter.zoo,
            "method": config.distill.get("method", "mdpd"),
            "metrics": metrics,
            "paths": paths,
            "quantized_metrics": quantized,
            "by_class": by_class,
            "eval_split": config.data.eval_split,
            "parameters": parameters,
            "memory": memory,
            "fading": report.as_dict(),
            "weights": adapter.origin,
            "data": experiment.source.description,
            "examples": examples,
            "coach": coach,
            "classes": list(experiment.task.classes),
            "steps": int(experiment.distiller.step),
            "seed": config.train.seed,
            "export": str(export_dir),
            "load_with": adapter.load_with,
            "usage": getattr(adapter, "usage", ""),  # where the zoo's loader alone gives no logits
        }
        about = {key: summary[key] for key in ("metrics", "eval_split", "method")}
        columns = dict(experiment.source.columns)
        record_of(adapter, max_length=config.data.max_length, columns=columns, **about).write(folder)
        write_card(folder, summary)
        check_reloads(folder, export_dir, adapter, inputs, _examples(experiment))
    return summary


def _by_class(experiment: Experiment) -> dict[str, Any]:
    """Scores of each class by the deployed path, of the last evaluation."""
    found = experiment.metric.evaluated
    if not found:
        return {}
    path = "side" if experiment.distiller.settings.backbone_update == "none" and "side" in found[0] else "backbone"
    logits, labels = (torch.stack([sample[key] for sample in found]) for key in (path, "label"))
    return by_class(experiment.task.kind, logits, labels, experiment.task.classes)


def _examples(experiment: Experiment) -> list[Any] | None:
    """The samples that fading compared, as they came; a language model's are no examples but blocks of them."""
    if experiment.task.kind == Language.kind:
        return None
    indices = next(iter(experiment.eval_loader.batch_sampler))[:COMPARED]  # type: ignore[arg-type]
    return [experiment.eval_source[i][0] for i in indices]


def export_work_dir(work_dir: str | Path, out: str | Path, *, checkpoint: str | Path | None = None) -> Path:
    """Fade a checkpoint of a work directory and export it to `out`. The work directory stays as it is.

    Args:
        checkpoint: one of the directory's files; by default what the run itself exports: the newest iter_N.pth, or the
            best evaluation's weights with train.keep="best".

    Raises:
        ConfigError: the folder holds no run of this project, or `out` is in use.
        CheckpointError: the checkpoint does not exist, is not what this run wrote, or does not fit the run's config.
    """
    work_dir, out = Path(work_dir), Path(out)
    config = config_of_work_dir(work_dir)
    check_free(out)
    experiment = build_experiment(config)
    state = exported_state(experiment, work_dir, checkpoint)
    load_learned(experiment.distiller, state, repr(str(checkpoint or work_dir)))
    memory = read_summary(work_dir).get("memory", {})
    about = read_coach(work_dir) if experiment.distiller.settings.coach else {}
    print_summary(finish(experiment, evaluate(experiment), out, memory, described(config, experiment.parts), about))
    return out


def check_free(out: Path) -> None:
    """Raise ConfigError if a folder to export to holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{str(out)!r} exists and is not empty: give a folder that does not exist yet")


def parameters_of(experiment: Experiment) -> dict[str, int]:
    """How many parameters the backbone has, how many of them are trained, and how many the side network has."""
    adapter = experiment.adapter
    packed = sum(layer.in_features * layer.out_features for _, layer in quantized_layers(adapter.model))
    return {
        "backbone": sum(p.numel() for p in adapter.parameters().values()) + packed,
        "backbone_trained": sum(p.numel() for p in experiment.distiller.trainable.values()),
        "side": sum(p.numel() for p in experiment.distiller.side_parameters()),
    }


__all__ = ["check_free", "evaluate", "export_work_dir", "finish", "parameters_of"]
