"""What `mdpd report` reads from a work directory, and what it refuses."""

from __future__ import annotations

import json

import pytest
from running import forget, trained, write_config
from running import main as train_main

from mdpd_plugins.cli.main import main
from mdpd_plugins.registry.errors import CheckpointError
from mdpd_plugins.reporting.history import read_record, read_scalars
from mdpd_plugins.reporting.progress import catch_up, loss_charts

STEPS = {"max_steps": 4, "val_every": 2, "log_every": 1, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A work directory of a run that was resumed from step 4, two times, the second time after three more steps."""
    folder = tmp_path_factory.mktemp("resumed")
    config = write_config(folder, train=STEPS, distill={"tail_blocks": None})
    arguments = [str(config), "--work-dir", str(folder / "run")]
    assert train_main(arguments) == 0
    for steps in ("6", "8"):
        assert train_main([*arguments, "--resume", "--cfg-options", f"train.max_steps={steps}"]) == 0
        if steps == "6":
            forget(folder / "run", 6)  # as if it had been killed before that was written
    return folder / "run"


def test_segments_of_a_resumed_run_are_joined(resumed):
    found = read_scalars(resumed)
    assert found.segments == 3
    assert [step for step, _ in found.losses["side/task"]] == list(range(1, 9))
    assert [step for step, _ in found.metrics["side/accuracy"]] == [2, 4, 6, 8]
    last = sorted(resumed.glob("*/vis_data/scalars.json"))[-1]
    rows = [json.loads(line) for line in last.read_text().splitlines()]
    assert found.losses["side/task"][4:] == [(r["step"], r["side/task"]) for r in rows if "loss" in r]


def test_a_term_has_points_only_where_it_had_its_turn(resumed):
    # The backbone's turn comes at every fourth step; mmengine repeats its last loss in between.
    assert [step for step, _ in read_scalars(resumed).losses["backbone/task"]] == [4, 8]


def test_a_new_run_takes_the_place_of_an_earlier_one(tmp_path, capsys):
    config = write_config(tmp_path, train={**STEPS, "max_steps": 6})
    trained(config, tmp_path / "run")
    trained(config, tmp_path / "run", **{"train.log_every": 3})
    capsys.readouterr()
    found = read_scalars(tmp_path / "run")
    assert found.segments == 1
    assert [step for step, _ in found.losses["side/task"]] == [3, 6]


def test_what_was_logged_is_compared_and_a_run_that_kept_its_best_has_a_summary(tmp_path, capsys):
    """Its weights are those of an earlier step than the newest checkpoint's."""
    train = {**STEPS, "max_steps": 4, "val_every": 2, "checkpoint_every": 2, "keep": "best"}
    config = write_config(tmp_path, train=train, optim={"scale": 30.0})
    summary = trained(config, tmp_path / "run")
    record = read_record(tmp_path / "run")
    assert record.step == 4 and record.summary["metrics"] == summary["metrics"]
    assert summary["steps"] == 2, "the last evaluation is the best one: this test asks nothing"
    path = next((tmp_path / "run").glob("*/vis_data/scalars.json"))
    path.write_text(path.read_text().replace('"side/task": ', '"side/task": 1', 1))
    with pytest.raises(CheckpointError, match=r"scalars\.json' is missing, or not what this run logged"):
        read_record(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(CheckpointError, match=r"summary\.json' is missing, and this run has ended: .*--resume"):
        read_record(tmp_path / "run")
    assert train_main([str(config), "--work-dir", str(tmp_path / "run"), "--resume"]) == 0
    assert read_record(tmp_path / "run").summary["metrics"] == summary["metrics"]


def test_a_line_cut_short_and_a_summary_of_an_earlier_run_are_left_out(resumed, tmp_path):
    record = read_record(resumed)
    assert (record.step, record.summary["steps"]) == (8, 8)
    copy = tmp_path / "run"
    folder = copy / "20300101_000000" / "vis_data"
    folder.mkdir(parents=True)
    (folder / "scalars.json").write_text('{"side/task": 2.0, "loss": 2.0, "step": 1}\n{"side/task": 1.')
    assert read_scalars(copy).losses == {"side/task": [(1, 2.0)]}
    for name in ("config.py", "iter_4.pth"):
        (copy / name).symlink_to(resumed / name) if name == "config.py" else (copy / name).touch()
    (copy / "summary.json").write_text((resumed / "summary.json").read_text())
    assert (read_record(copy).step, read_record(copy).summary) == (4, {})


def both(metric, backbone, side):
    return {f"{p}/{metric}": list(enumerate(v, 1)) for p, v in (("backbone", backbone), ("side", side))}


@pytest.mark.parametrize(
    ("metrics", "first", "still"),
    [
        (both("accuracy", [0.1, 0.5, 0.9], [0.3, 0.5, 0.8]), 2, True),
        (both("accuracy", [0.1, 0.6, 0.7], [0.3, 0.5, 0.8]), 2, False),
        (both("accuracy", [0.1, 0.2], [0.3, 0.5]), None, False),
        (both("mse", [0.9, 0.2], [0.5, 0.3]), 2, True),
        (both("mse", [0.2, 0.5], [0.5, 0.3]), 1, False),
    ],
)
def test_catching_up(metrics, first, still):
    found = catch_up(metrics)
    assert (found.first, found.still) == (first, still)


def test_catching_up_goes_by_the_tasks_metric_and_needs_both_paths():
    metrics = {**both("mse", [0.9, 0.8], [0.5, 0.4]), **both("pearson", [0.1, 0.9], [0.5, 0.4])}
    assert catch_up(metrics, "pearson").first == 2 and catch_up(metrics, "mse").first is None
    assert catch_up({"backbone/accuracy": [(1, 0.5)]}, "accuracy") is None


def test_layers_of_a_kind_share_a_chart():
    names = ["backbone/task", "side/imitation_0", "side/imitation_11", "side/task"]
    charts = loss_charts({name: [(1, 1.0)] for name in names})
    assert {kind: list(lines) for kind, lines in charts.items()} == {
        "side/imitation": ["side/imitation_0", "side/imitation_11"],
        "side/task": ["side/task"],
        "backbone/task": ["backbone/task"],
    }


def refused(capsys, *arguments) -> str:
    assert main(["report", *map(str, arguments)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    return error


def test_a_folder_without_a_run_is_refused_with_what_to_do(capsys, resumed, tmp_path):
    assert "does not exist" in refused(capsys, tmp_path / "none")
    assert "holds no config.py" in refused(capsys, tmp_path)
    (tmp_path / "config.py").write_text((resumed / "config.py").read_text())
    assert "Wait for the first one" in refused(capsys, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "config.py"]


def test_a_place_that_cannot_be_written_and_no_benchmark_are_refused(capsys, resumed, tmp_path):
    assert "a file in a folder that exists" in refused(capsys, resumed, "--out", tmp_path / "none" / "page.html")
    assert "a file in a folder that exists" in refused(capsys, resumed, "--out", tmp_path)
    for name, text in {"words.json": "no json", "plans.json": '{"plans": []}'}.items():
        (tmp_path / name).write_text(text)
        error = refused(capsys, resumed, "--bench", tmp_path / name)
        assert "holds no benchmark" in error and "mdpd bench" in error
    assert "cannot be read" in refused(capsys, resumed, "--bench", tmp_path / "none.json")
    assert not (resumed / "report.html").exists()
