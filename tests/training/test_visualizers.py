"""TensorBoard and Weights & Biases through mmengine's own visualiser backends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import main, trained, write_config

STEPS = {"max_steps": 8, "val_every": 4, "log_every": 2}
METRICS = {"backbone/accuracy", "side/accuracy"}
TERMS = {"side/task", "side/imitation_0", "side/imitation_1", "side/generation_2", "backbone/task"}


def visualizer(*backends):
    return {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}, *backends]}


def logged(work_dir: Path) -> list[dict]:
    """The rows of mmengine's own log of the run."""
    (path,) = work_dir.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tensorboard_gets_both_paths_metrics_and_every_loss_term(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = write_config(tmp_path, train=STEPS, visualizer=visualizer({"type": "TensorboardVisBackend"}))
    trained(config, tmp_path / "run")
    capsys.readouterr()
    (folder,) = {path.parent for path in (tmp_path / "run").rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert METRICS | TERMS | {"backbone/distillation"} <= set(events.Tags()["scalars"])
    for name in METRICS | TERMS:
        theirs = [(event.step, event.value) for event in events.Scalars(name)]
        ours = [(row["step"], row[name]) for row in logged(tmp_path / "run") if name in row]
        assert [step for step, _ in theirs] == [step for step, _ in ours] != []
        assert [value for _, value in theirs] == pytest.approx([value for _, value in ours], rel=1e-6)


@pytest.mark.slow  # its own process takes a while to start and to end
def test_weights_and_biases_gets_them_without_a_network(tmp_path, capfd, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    backend = {"type": "WandbVisBackend", "init_kwargs": {"mode": "offline", "project": "mdpd"}}
    config = write_config(tmp_path, train=STEPS, visualizer=visualizer(backend))
    trained(config, tmp_path / "run")
    capfd.readouterr()
    (record,) = (tmp_path / "run").rglob("run-*.wandb")
    text = record.read_bytes()
    assert {name for name in METRICS | TERMS if name.encode() not in text} == set()
    assert {p.name for p in tmp_path.iterdir()} == {"config.py", "run"}, "something was written elsewhere"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vis_backends": []}, "visualizer.type=None"),
        (visualizer({"type": "TensorBoardVisBackend"}), "did you mean 'TensorboardVisBackend'"),
        (visualizer({"type": "TensorboardVisBackend", "folder": "x"}), "'folder'"),
        (visualizer({"type": "NeptuneVisBackend"}), "pip install neptune"),
    ],
)
def test_a_backend_that_cannot_be_had_is_said_before_anything_is_written(tmp_path, capsys, given, message):
    config = write_config(tmp_path, train=STEPS, visualizer=given)
    assert main([str(config), "--work-dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error and [line.partition(" ")[0] for line in error.splitlines()] == ["building", "error:"]
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [config]
