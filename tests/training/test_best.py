"""train.keep="best" and train.patience: what is exported, when a run ends, and what a resume makes of it."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from running import forget, main, same, trained, weights, write_config

from mdpd_plugins.cli.main import main as mdpd
from mdpd_plugins.exports import load_export
from mdpd_plugins.files import read_signed, write_signed
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.training import build_experiment, export_work_dir, load_config
from mdpd_plugins.training.best import HISTORY_FILE, best_weights, read_history

# Rates so high that the first evaluations are better than the last ones.
WILD = {"optim": {"scale": 30.0}, "train": {"max_steps": 12, "val_every": 2, "checkpoint_every": 4, "keep": "best"}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(config, work directory, summary) of a run that gets worse."""
    folder = tmp_path_factory.mktemp("best")
    config = write_config(folder, **WILD)
    return config, folder / "run", trained(config, folder / "run")


def test_the_best_evaluation_is_what_is_reported_and_exported(run):
    config, work_dir, summary = run
    history = read_history(work_dir)
    assert [entry["step"] for entry in history] == [2, 4, 6, 8, 10, 12]
    best = max(history, key=lambda entry: entry["score"])
    assert best["step"] < 12, "the last evaluation is the best one: this test asks nothing"
    assert summary["metrics"]["backbone/accuracy"] == best["score"] > history[-1]["score"]
    experiment = build_experiment(load_config(config))
    experiment.distiller.load_state_dict(torch.load(best_weights(work_dir), weights_only=True))
    dataset = experiment.val_loader.dataset
    inputs = experiment.val_loader.collate_fn([dataset[i] for i in range(8)])["inputs"]
    ours = load_export(work_dir / "export", "cpu").logits([dataset[i][0] for i in range(8)])
    torch.testing.assert_close(ours, experiment.distiller(inputs)["backbone"], rtol=1e-4, atol=1e-5)


def test_an_evaluation_that_a_kill_cut_off_is_made_up_for(run, tmp_path):
    config, work_dir, _ = run
    whole = tmp_path / "run"
    trained(config, whole)
    # As after a kill between the checkpoint of step 8 and its evaluation.
    forget(whole, 12)
    history = read_signed(whole / HISTORY_FILE)
    kept = [entry for entry in history["evaluations"] if entry["step"] < 8]
    write_signed(whole / HISTORY_FILE, {**history, "evaluations": kept})
    assert main([config, "--work-dir", whole, "--resume"]) == 0
    assert read_history(whole) == read_history(work_dir)
    assert same(weights(whole, 12), weights(work_dir, 12))


def test_the_best_weights_are_those_that_were_kept(run, tmp_path):
    _, work_dir, _ = run
    copy = shutil.copytree(work_dir, tmp_path / "run")
    path = best_weights(copy)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=rf"{path.name}' is not what this run wrote"):
        export_work_dir(copy, tmp_path / "out")
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{path.name}', are missing"):
        export_work_dir(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda found: None,
            "is missing or older than the checkpoints beside it.* after step 2 and 4 and 6 and 8 and 10,",
        ),
        (lambda found: {**found, "evaluations": found["evaluations"][:2]}, "after step 6 and 8 and 10,"),
        (lambda found: {**found, "run": "another"}, "was written by run another"),
    ],
    ids=["lost", "an older one", "of another run"],
)
@pytest.mark.parametrize("command", ["resume", "export"])
def test_evaluations_that_a_checkpoint_knows_of_are_not_lost_in_silence(
    run, tmp_path, capsys, change, message, command
):
    config, work_dir, _ = run
    copy = shutil.copytree(work_dir, tmp_path / "run")
    found = change(read_signed(copy / HISTORY_FILE))
    (copy / HISTORY_FILE).unlink()
    if found is not None:
        write_signed(copy / HISTORY_FILE, found)
    ways = {"resume": ["train", config, "--work-dir", copy, "--resume"], "export": ["export", copy, tmp_path / "out"]}
    assert mdpd([str(word) for word in ways[command]]) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert HISTORY_FILE in said and re.search(message, said), said
    assert not (tmp_path / "out").exists()


def test_a_changed_score_is_found(run, tmp_path):
    _, work_dir, _ = run
    copy = shutil.copytree(work_dir, tmp_path / "run")
    text = (copy / HISTORY_FILE).read_text()
    (copy / HISTORY_FILE).write_text(text.replace('"score": 0.', '"score": 1.', 1))
    with pytest.raises(ConfigError, match=f"{HISTORY_FILE}' is damaged"):
        export_work_dir(copy, tmp_path / "out")


def test_patience_ends_a_run_that_does_not_get_better(tmp_path):
    options = {**WILD, "train": {**WILD["train"], "max_steps": 40, "patience": 2}}
    summary = trained(write_config(tmp_path, **options), tmp_path / "run")
    history = read_history(tmp_path / "run")
    best = history.index(max(history, key=lambda entry: entry["score"]))
    assert len(history) - 1 - best == 2 and history[-1]["step"] < 40
    assert summary["metrics"]["backbone/accuracy"] == history[best]["score"]


def test_any_checkpoint_can_be_exported(run, tmp_path):
    _, work_dir, _ = run
    export_work_dir(work_dir, tmp_path / "best")
    export_work_dir(work_dir, tmp_path / "last", checkpoint=work_dir / "iter_12.pth")
    one, other = (load_export(tmp_path / name, "cpu").model.state_dict() for name in ("best", "last"))
    exported = load_export(work_dir / "export", "cpu").model.state_dict()
    assert same(one, exported) and not same(other, exported)
