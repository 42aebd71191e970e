"""The options of the command line, and what a run says of itself at its end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from running import image_folder, main, run, trained, weights, write_config

from mdpd_plugins.training import load_config
from mdpd_plugins.training.checkpoints import read_run
from mdpd_plugins.training.experiment import build_experiment

ONE_OF_EACH = ("hf-vit", "mm-vit", "oc-image")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, pictures):
    """(work directory, all that was printed, what of it to stderr) of a run with the command line's options."""
    folder, logs = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("logs")
    config = write_config(folder, train={"max_steps": 4})
    options = ["--cfg-options", f"data_root={pictures}", "train.log_every=2"]
    assert run([config, "--work-dir", folder / "run", *options], logs / "log") == 0, (logs / "log").read_text()
    assert {p.name for p in folder.iterdir()} == {"config.py", "run"}, "something was written elsewhere"
    return folder / "run", (logs / "log").read_text(), (logs / "log.err").read_text()


def test_the_summary_names_metrics_parameters_memory_origin_and_export(first_run):
    work_dir, _, _ = first_run
    summary = json.loads((work_dir / "summary.json").read_text())
    assert set(summary["metrics"]) == {f"{p}/{m}" for p in ("backbone", "side") for m in ("accuracy", "macro_f1")}
    assert all(0 <= value <= 1 for value in summary["metrics"].values())
    state = weights(work_dir, 4)
    backbone = sum(v.numel() for k, v in state.items() if k.startswith("backbone."))
    side = sum(v.numel() for k, v in state.items() if k.startswith(("side.", "features.")))
    norms = 7 * 2 * 32 + 32 * 3 + 3  # seven LayerNorms of width 32, and a head of three classes
    assert summary["parameters"] == {"backbone": backbone, "backbone_trained": norms, "side": side}
    memory = summary["memory"]
    assert memory["side_parameters"] == 4 * side
    assert memory["total"] == memory["side_parameters"] + memory["optimiser"] + memory["transient"]
    assert memory["transient"] > 0 and memory["optimiser"] >= 2 * 4 * (side + norms)
    assert summary["weights"] == "random initialisation (asked for)"
    assert summary["export"] == str(work_dir / "export") and Path(summary["export"]).is_dir()
    assert summary["classes"] == ["bright", "dark", "striped"] and "'pictures'" in summary["data"]
    assert summary["steps"] == 4


def test_the_same_summary_is_printed(first_run):
    work_dir, out, _ = first_run
    summary = json.loads((work_dir / "summary.json").read_text())
    table = " ".join(out[out.index("mdpd on ") :].replace("│", " ").split())
    for path in ("backbone", "side"):
        assert f"accuracy, {path} path {summary['metrics'][path + '/accuracy']:.4f}" in table
    assert f"{summary['parameters']['backbone_trained']:,} in the backbone" in table
    assert f"{summary['memory']['total'] / 2**20:.1f} MiB" in table
    assert "weights from random initialisation" in table and "exported to" in table
    assert "from_pretrained" in table


def test_random_weights_are_announced_on_the_screen_in_the_log_the_summary_and_the_card(first_run):
    work_dir, out, err = first_run
    log = next(work_dir.glob("*/*.log")).read_text()
    card = (work_dir / "export" / "README.md").read_text()
    for text in (err, log, out, card):
        assert "RANDOM WEIGHTS: the backbone was not pretrained" in " ".join(text.split())
    assert "'pictures'" in card and "backbone/accuracy" in card and "random initialisation" in card


def test_the_screen_shows_progress_and_no_noise_of_the_libraries(first_run):
    _, out, err = first_run
    assert "\nstep 2/4  left 0:00:0" in out and "evaluated after step 4/4  backbone/accuracy 0." in out
    assert "building " in err.splitlines()[0] and "Iter(train)" not in out
    log = next(first_run[0].glob("*/*.log")).read_text()
    assert "Iter(train) [2/4]" in log and "eta:" in log
    assert [line for line in (out + err).splitlines() if len(line) > 120 and "UserWarning" not in line] == []
    # The libraries' own warning about a start method is owed to how this test starts the process.
    for noise in ("Writing model shards", "FileClient", "deprecated", "Traceback", "scheduler.step"):
        assert noise not in out + err, noise


def test_weights_that_were_given_are_no_reason_for_a_notice(tmp_path, pictures, capsys, first_run):
    export = first_run[0] / "export"
    config = write_config(tmp_path, data_root=str(pictures), train={"max_steps": 2})
    options = load_config(config)
    summary = trained(config, tmp_path / "run", **{"backbone.pretrained": str(export), "backbone.options": {}})
    assert options.backbone.pretrained is None
    captured = capsys.readouterr()
    assert "RANDOM" not in captured.out + captured.err + (tmp_path / "run" / "export" / "README.md").read_text()
    assert summary["weights"] == f"folder {export}"


@pytest.mark.parametrize("backbone", ONE_OF_EACH)
def test_a_dry_run_reports_memory_and_writes_nothing(tmp_path, capsys, monkeypatch, backbone):
    config = write_config(tmp_path / "config", backbone)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    assert main([str(config), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "one side step and one backbone step ran; 10 steps would" in out
    assert "total: " in out and "MiB" in out
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [config]


@pytest.mark.parametrize("backbone", ONE_OF_EACH)
def test_amp_trains_under_bfloat16_and_keeps_weights_in_float32(tmp_path, capsys, backbone):
    config = write_config(tmp_path, backbone, distill={"backbone_every": 2}, train={"max_steps": 4})
    assert main([str(config), "--work-dir", str(tmp_path / "amp"), "--amp"]) == 0
    trained(config, tmp_path / "full")
    capsys.readouterr()
    amp, full = weights(tmp_path / "amp", 4), weights(tmp_path / "full", 4)
    assert all(v.dtype != torch.bfloat16 for v in amp.values())
    assert any(not torch.equal(v, full[k]) for k, v in amp.items()), "nothing was computed otherwise"
    assert load_config(tmp_path / "amp" / "config.py").train.amp is True


def test_cfg_options_reach_every_section(tmp_path, capsys, pictures):
    config = write_config(tmp_path)
    options = ["train.max_steps=3", "distill.backbone_every=1", "optim.clip_grad=0.5", f"data_root={pictures}"]
    assert main([str(config), "--work-dir", str(tmp_path / "run"), "--cfg-options", *options]) == 0
    capsys.readouterr()
    kept = load_config(tmp_path / "run" / "config.py")
    assert kept.train.max_steps == 3 and kept.distill.backbone_every == 1 and kept.optim.clip_grad == 0.5
    assert kept.data.source == {"type": "image_folder", "root": str(pictures)}
    assert weights(tmp_path / "run", 3)["step"] == 3


def test_without_a_work_dir_a_run_goes_where_its_config_is_named_after(tmp_path, capsys, monkeypatch):
    config = write_config(tmp_path, train={"max_steps": 1})
    monkeypatch.chdir(tmp_path)
    assert main(["config.py"]) == 0
    capsys.readouterr()
    assert (tmp_path / "work_dirs" / "config" / "summary.json").is_file()
    assert config.is_file()


def test_resuming_follows_a_changed_learning_rate_and_length(tmp_path, capsys):
    config = write_config(tmp_path, train={"max_steps": 4, "checkpoint_every": 2})
    arguments = [str(config), "--work-dir", str(tmp_path / "run")]
    assert main(arguments) == 0
    options = ["--cfg-options", "train.max_steps=8", "optim.side_lr=1e-4"]
    assert main([*arguments, "--resume", *options]) == 0
    capsys.readouterr()
    last = read_run(tmp_path / "run" / "iter_6.pth")
    (group,) = last["optimizer"]["side"]["param_groups"]
    # The cosine of 8 steps, three quarters through: (1 + cos(0.75 pi)) / 2.
    assert group["initial_lr"] == 1e-4 and group["lr"] == pytest.approx(1e-4 * 0.14644661)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 8


def test_the_split_that_is_evaluated_on_can_be_chosen(tmp_path):
    source = {"type": "packaged", "name": "digits", "train_size": 24, "val_size": 16, "test_size": 12}
    config = write_config(tmp_path, data={"source": source}, train={"max_steps": 2})
    shown = {}
    for split in ("val", "test"):
        experiment = build_experiment(load_config(config, {"data.eval_split": split}))
        shown[split] = [image.tobytes() for image, _ in experiment.val_loader.dataset]
    assert {k: len(v) for k, v in shown.items()} == {"val": 16, "test": 12}
    assert not set(shown["val"]) & set(shown["test"])
    summary = trained(config, tmp_path / "run", **{"data.eval_split": "test"})
    assert summary["eval_split"] == "test"
    assert "metric (test split)" in (tmp_path / "run" / "export" / "README.md").read_text()


@pytest.mark.parametrize(
    "option, said",
    [
        ("data.input_size=3", "does not run with .*data.input_size=3: RuntimeError"),
        ("backbone.options.image_size=(0,)", "vit-base-patch16-224 (cannot be built|does not run) with .*image_size"),
        ("data.source.type=[0,1]", r"data type \[0, 1\] is no name; choose one of"),
    ],
)
def test_values_that_a_library_refuses_late_are_named(tmp_path, capsys, option, said):
    config = write_config(tmp_path)
    assert main([str(config), "--dry-run", "--cfg-options", option]) == 2
    assert re.search(said, " ".join(capsys.readouterr().err.split()))
