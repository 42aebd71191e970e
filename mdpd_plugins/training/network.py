"""`mdpd export --keep-side` and `--format`: a network in one file, beside the zoo's own export."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from mmengine.config import Config

from mdpd_plugins.data import Source, load_source
from mdpd_plugins.engine.learned import load_learned
from mdpd_plugins.exports import ExportedModel, ExportRecord, load_folder, read_record, record_of
from mdpd_plugins.exports.network import Deployed, write_network
from mdpd_plugins.files import fresh_folder
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks import Language
from mdpd_plugins.training.best import exported_state
from mdpd_plugins.training.coach import first_stage, load_coach
from mdpd_plugins.training.config import settings_of
from mdpd_plugins.training.experiment import Experiment, build_experiment, open_parts
from mdpd_plugins.training.finishing import check_free, evaluate, export_work_dir
from mdpd_plugins.training.run_record import config_of_work_dir

EXAMPLES = 5


def export_network(
    work_dir: str | Path, out: str | Path, *, kind: str, keep_side: bool, checkpoint: str | Path | None = None
) -> Path:
    """Export a work directory to `out`, with the network in one file that runs without this project.

    Args:
        kind: "onnx" or "torch" (PyTorch's exported program). keep_side: the network is the backbone with its side
            network, and outputs are the side network's; otherwise it is the faded backbone.
        checkpoint: as `export_work_dir`.

    Raises:
        ConfigError, CheckpointError: as `export_work_dir`; or there is no side network to keep.
        CapabilityError: the model's code cannot be traced.
        MissingDependencyError: what writes the format is not installed.
    """
    work_dir, out = Path(work_dir), Path(out)
    if keep_side:
        return _export_kept(work_dir, out, kind, checkpoint)
    export_work_dir(work_dir, out, checkpoint=checkpoint)
    try:
        data = config_of_work_dir(work_dir).data
        source, record = load_source(data.source, data.eval_split), read_record(out)
        exported = load_folder(out, record)
        _add(out, record, exported, Deployed(exported), kind, source)
    except BaseException:
        shutil.rmtree(out)  # it did not exist before, or was empty
        raise
    return out


def _add(
    folder: Path, record: ExportRecord, exported: ExportedModel, deployed: Deployed, kind: str, source: Source
) -> str:
    """Put a network beside the zoo's own files, and its name into the record; that name."""
    examples = [source[i][0] for i in range(min(EXAMPLES, len(source)))]
    name = write_network(folder, deployed, kind, exported.prepare, examples)
    replace(record, network=name).write(folder)
    return name


def _export_kept(work_dir: Path, out: Path, kind: str, checkpoint: str | Path | None) -> Path:
    check_free(out)
    config = config_of_work_dir(work_dir)
    experiment = _with_side(config, work_dir, checkpoint)
    distiller, adapter, side = experiment.distiller, experiment.adapter, experiment.distiller.side
    if experiment.task.kind == Language.kind:
        raise ConfigError("a language model's side network is not kept: export the faded model, without --keep-side")
    assert side is not None
    side.eval().cpu()
    adapter.model.cpu()
    distiller.masters.publish()
    distiller.trained.merge(distiller.masters)
    # Of what is exported: a backbone that was held quantised has its checkpoint's weights by now.
    metrics = {key: value for key, value in evaluate(experiment).items() if key.startswith("side/")}
    adapter.set_labels(experiment.task.classes, experiment.task.kind)
    about = {"metrics": metrics, "eval_split": config.data.eval_split, "method": distiller.settings.method}
    with fresh_folder(out) as folder:
        adapter.write(folder)
        columns = dict(experiment.source.columns)
        record = record_of(adapter, max_length=config.data.max_length, columns=columns, **about)
        exported = load_folder(folder, record)
        name = _add(folder, record, exported, Deployed(exported, side, adapter), kind, experiment.eval_source)
        _write_card(folder, experiment, name, metrics)
    return out


def _with_side(config: Config, work_dir: Path, checkpoint: str | Path | None) -> Experiment:
    """An experiment with the side network that a work directory holds, beside the backbone that it learned beside."""
    if settings_of(config).coach is not None:
        if checkpoint is not None:
            raise ConfigError("--checkpoint is of the faded backbone; the coach that is kept is the one that taught")
        experiment = first_stage(config, open_parts(config))
        load_coach(experiment, work_dir)
        return experiment
    experiment = build_experiment(config)
    if experiment.distiller.side is None:
        raise ConfigError(
            f"distill.method={experiment.distiller.settings.method!r} trains no side network, so there is none to "
            f"keep: export without --keep-side"
        )
    state = exported_state(experiment, work_dir, checkpoint)
    load_learned(experiment.distiller, state, repr(str(checkpoint or work_dir)))
    return experiment


def _write_card(folder: Path, experiment: Experiment, network: str, metrics: dict[str, float]) -> None:
    lines = "\n".join(f"| {key.removeprefix('side/')} | {value:.4f} |" for key, value in metrics.items())
    name = experiment.adapter.name
    text = f"""# {name} with a side network

`{network}` holds {name} and the side network that was trained beside it. Its inputs are what the zoo's preparation in \
this folder makes; its outputs are the side network's, for {len(experiment.task.classes)} outputs: \
{", ".join(experiment.task.classes[:50])}. `mdpd predict` and `mdpd eval` read this folder, and so does any runtime of \
that format.

The zoo's own files beside it are the backbone alone. Its output layer says nothing of this task unless the method \
trained it.

- Data: {experiment.source.description}
- Weights it started from: {experiment.adapter.origin}

| metric ({experiment.config.data.eval_split} split) | value |
| --- | --- |
{lines}
"""
    (folder / "README.md").write_text(text)


__all__ = ["export_network"]
