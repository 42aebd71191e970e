"""Runs on pictures with texts, from a table to predictions of the export: two towers, OpenCLIP's both, and ViLT."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from exporting import of_the_backbone
from picture_texts import COLOURS, QUESTIONS, READERS, config_of, picture_table, source_of
from running import assert_learned_alike, run, run_together, same, text_table, trained, weights, write_config
from small_zoo import BACKBONES

from mdpd_plugins.cli.main import main
from mdpd_plugins.exports import load_export
from mdpd_plugins.planning.plan import plan
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.training import build_experiment, load_config
from mdpd_plugins.training.experiment import first_batch

STEPS = 10
EACH = pytest.mark.parametrize("reader", READERS)
ANSWERING = [r for r, (_, _, kind) in READERS.items() if kind == "answers"]
MATCHING = [r for r in READERS if r not in ANSWERING]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return picture_table(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def runs(table, tmp_path_factory):
    """Reader -> (config, work directory, summary) of a finished run."""
    base, found = tmp_path_factory.mktemp("runs"), {}
    for reader in READERS:
        config = config_of(base / reader, reader, table, train={"checkpoint_every": 5})
        found[reader] = config, base / reader / "run", trained(config, base / reader / "run")
    return found


# --- training


@EACH
def test_a_run_ends_with_metrics_of_both_paths_and_an_export(runs, reader):
    _, work_dir, summary = runs[reader]
    assert summary["steps"] == STEPS and summary["fading"]["outputs_equal"] and summary["fading"]["keys_equal"]
    metric = "accuracy" if reader in ANSWERING else "recall_at_1"
    assert {f"{path}/{metric}" for path in ("side", "backbone")} <= summary["metrics"].keys()
    assert json.loads((work_dir / "summary.json").read_text())["metrics"] == summary["metrics"]
    assert summary["weights"].startswith("random initialisation")
    card = (work_dir / "export" / "README.md").read_text()
    assert summary["load_with"] in card and summary["backbone"] in card


def test_the_colour_of_a_picture_is_learned(table, tmp_path):
    config = config_of(tmp_path, "pair", table, train={"max_steps": 40}, distill={"backbone_every": 1})
    assert trained(config, tmp_path / "run")["metrics"]["backbone/accuracy"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["pair", "open_clip"])
def test_a_killed_run_resumes_to_the_same_weights(runs, table, tmp_path, reader):
    _, untouched, _ = runs[reader]
    log, work_dir = tmp_path / "log", tmp_path / "run"
    hooks = {"custom_hooks": [{"type": "KillHook", "step": 7, "moment": "before step"}]}
    imports = {"custom_imports": {"imports": ["kill_hook"]}}
    plain = config_of(tmp_path / "plain", reader, table, train={"checkpoint_every": 5})
    hooked = config_of(tmp_path / "hooked", reader, table, train={"checkpoint_every": 5}, **hooks, **imports)
    assert run([hooked, "--work-dir", work_dir], log) < 0
    assert not (work_dir / f"iter_{STEPS}.pth").exists()
    assert run([plain, "--work-dir", work_dir, "--resume"], log) == 0, log.read_text()
    assert same(weights(work_dir, STEPS), weights(untouched, STEPS))


@pytest.mark.parametrize("reader", ["pair", "open_clip", "vilt"])
def test_what_a_dry_run_measures_is_what_was_planned(runs, tmp_path, capsys, reader):
    from running import main as train_main

    config, _, _ = runs[reader]
    target, before = tmp_path / "plan.json", sorted(config.parent.parent.rglob("*"))
    assert (
        main(
            [
                "bench",
                str(config),
                "--plan",
                "--methods",
                "mdpd",
                *(["lora"] if reader == "open_clip" else []),
                "--json",
                str(target),
            ]
        )
        == 0
    )
    planned = {row["method"]: row for row in json.loads(target.read_text())["plans"]}
    capsys.readouterr()
    for method, row in planned.items():
        options = ["--cfg-options", f"distill.method={method}"]
        assert train_main([str(config), "--dry-run", *options]) == 0
        printed = capsys.readouterr().out
        assert f"{row['training_state_bytes'] / 2**20:.1f} MiB" in printed, printed
        assert f"weights: {row['weights_bytes'] / 2**20:.1f} MiB" in printed
    assert sorted(config.parent.parent.rglob("*")) == before


@pytest.mark.slow
def test_compiled_blocks_learn_what_plain_ones_do(runs, table, tmp_path):
    _, untouched, summary = runs["pair"]
    # aot_eager traces what inductor would compile, and computes it as written.
    config = config_of(tmp_path, "pair", table, train={"compile": "aot_eager"})
    found = trained(config, tmp_path / "run")
    assert found["fading"]["outputs_equal"] and found["metrics"].keys() == summary["metrics"].keys()
    ours, theirs = weights(tmp_path / "run", STEPS), weights(untouched, STEPS)
    assert ours.keys() == theirs.keys()
    learned = "backbone.fusion.2.weight"
    torch.testing.assert_close(ours[learned], theirs[learned], rtol=0, atol=1e-2)


# --- exports


@EACH
def test_exporting_the_checkpoint_again_gives_the_same_files(runs, tmp_path, capsys, reader):
    _, work_dir, _ = runs[reader]
    assert main(["export", str(work_dir), str(tmp_path / "again")]) == 0
    capsys.readouterr()
    first = work_dir / "export"
    names = sorted(str(p.relative_to(first)) for p in first.rglob("*") if p.is_file())
    assert names == sorted(
        str(p.relative_to(tmp_path / "again")) for p in (tmp_path / "again").rglob("*") if p.is_file()
    )
    for name in names:
        if name.endswith((".safetensors", ".json")):
            assert (first / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@EACH
def test_evaluating_the_export_gives_the_summarys_metrics(runs, tmp_path, capsys, reader):
    config, work_dir, summary = runs[reader]
    target = tmp_path / "found.json"
    assert main(["eval", str(work_dir / "export"), str(config), "--json", str(target), "--device", "cpu"]) == 0
    capsys.readouterr()
    found = json.loads(target.read_text())
    assert found["metrics"] == of_the_backbone(summary) != {}


@EACH
def test_the_zoos_loaders_compute_what_was_trained(runs, reader):
    config, work_dir, _ = runs[reader]
    experiment = build_experiment(load_config(config))
    experiment.distiller.load_state_dict(weights(work_dir, STEPS))
    batch = first_batch(experiment.val_loader)
    path = experiment.distiller(batch["inputs"])["backbone"]
    exported = load_export(work_dir / "export", "cpu")
    dataset = experiment.val_loader.dataset
    logits = exported.logits([dataset[i][0] for i in range(len(path))])
    torch.testing.assert_close(logits, path, rtol=1e-4, atol=1e-5)  # MMPretrain normalises on the scale of 0 to 255
    assert exported.record.modality == "image-text"


@pytest.mark.parametrize("reader", ANSWERING)
def test_predictions_on_a_table(runs, table, tmp_path, capsys, reader):
    _, work_dir, _ = runs[reader]
    out = tmp_path / "rows.csv"
    columns = ["--image-column", "file", "--text-column", "question", "--device", "cpu"]
    export = str(work_dir / "export")
    assert main(["predict", export, str(table), *columns, "--format", "csv", "--out", str(out)]) == 0
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["input"], r["pair"]) for r in rows[:2]] == [(str(table.parent / "00.png"), q) for q in QUESTIONS]
    assert len(rows) == 40 and {r["label"] for r in rows} <= COLOURS.keys()
    capsys.readouterr()
    assert main(["predict", export, str(table.parent / "00.png")]) == 2
    assert "reads an image with a text" in capsys.readouterr().err
    # The export knows the columns that it was trained on.
    assert main(["predict", export, str(table), "--image-column", "file", "--device", "cpu", "--format", "csv"]) == 0
    again = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(r["input"], r["pair"]) for r in again] == [(r["input"], r["pair"]) for r in rows]


@pytest.mark.parametrize("reader", MATCHING)
def test_what_was_trained_to_match_predicts_no_labels(runs, table, capsys, reader):
    _, work_dir, _ = runs[reader]
    columns = ["--image-column", "file", "--text-column", "caption"]
    assert main(["predict", str(work_dir / "export"), str(table), *columns]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "for retrieval, which has no label to predict: measure its recall" in error


@pytest.mark.parametrize("reader", ["pair", "open_clip"])
def test_a_report_is_written(runs, tmp_path, capsys, reader):
    _, work_dir, _ = runs[reader]
    assert main(["report", str(work_dir), "--out", str(tmp_path / "page.html")]) == 0
    capsys.readouterr()
    page = (tmp_path / "page.html").read_text()
    metric = "accuracy" if reader in ANSWERING else "recall_at_1"
    assert f"<h1>mdpd on {runs[reader][2]['backbone']}</h1>" in page
    assert metric in page.replace("recall at 1", "recall_at_1") and len(page) > 20_000


# --- several processes

LAUNCHER = ["--launcher", "pytorch"]


@pytest.mark.slow
def test_two_processes_answer_as_one_does(table, tmp_path):
    log, given = tmp_path / "log", {"distill": {"reduction": 4, "bottleneck": 8, "backbone_every": 2}}
    given["optim"] = {"side_lr": 3e-4, "norm_lr": 3e-3, "head_lr": 3e-3}
    one = config_of(tmp_path / "one", "pair", table, **given, data={"batch_size": 8})
    two = config_of(tmp_path / "two", "pair", table, **given, data={"batch_size": 4})
    assert run([one, "--work-dir", tmp_path / "alone"], log) == 0, log.read_text()
    assert run_together([two, "--work-dir", tmp_path / "together", *LAUNCHER], log) == [0, 0], log.read_text()
    assert_learned_alike(tmp_path / "alone", tmp_path / "together", STEPS)


@pytest.mark.slow
def test_two_processes_share_out_the_weights_of_a_pair(table, tmp_path):
    log, given = tmp_path / "log", {"distill": {"reduction": 4, "bottleneck": 8, "backbone_every": 2}}
    given["optim"] = {"side_lr": 3e-4, "norm_lr": 3e-3, "head_lr": 3e-3}
    one = config_of(tmp_path / "one", "pair", table, **given, data={"batch_size": 8})
    two = config_of(tmp_path / "two", "pair", table, **given, data={"batch_size": 4}, parallel={"shard": True})
    assert run([one, "--work-dir", tmp_path / "alone"], log) == 0, log.read_text()
    assert run_together([two, "--work-dir", tmp_path / "together", *LAUNCHER], log) == [0, 0], log.read_text()
    assert_learned_alike(tmp_path / "alone", tmp_path / "together", STEPS)
    held = json.loads((tmp_path / "together" / "summary.json").read_text())["memory"]
    assert 0 < max(held["weights_peak_by_process"]) < held["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("reader", MATCHING)
def test_each_of_two_processes_contrasts_its_own_part(table, tmp_path, reader):
    log = tmp_path / "log"
    path = config_of(tmp_path / "c", reader, table, data={"batch_size": 4})
    for work_dir in ("one", "other"):
        assert run_together([path, "--work-dir", tmp_path / work_dir, *LAUNCHER], log) == [0, 0], log.read_text()
    # No process's loss depends on the others' samples, and the whole is the same every time.
    assert same(weights(tmp_path / "one", STEPS), weights(tmp_path / "other", STEPS))
    metrics = json.loads((tmp_path / "one" / "summary.json").read_text())["metrics"]
    assert 0 <= metrics["backbone/recall_at_1"] <= 1


# --- what does not go together


@pytest.fixture
def refused(tmp_path, capsys):
    """Run a configuration that cannot work; its one line of error."""

    def call(config, *arguments):
        from running import main as train_main

        before = sorted(tmp_path.rglob("*"))
        assert train_main([str(config), "--work-dir", str(tmp_path / "run"), *map(str, arguments)]) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and sorted(tmp_path.rglob("*")) == before
        return errors[0]

    return call


def test_texts_alone_on_what_reads_both(tmp_path, refused):
    texts = {"type": "table", "path": str(text_table(tmp_path / "texts.csv"))}
    source = {**texts, "text_column": "text", "label_column": "label"}
    said = refused(config_of(tmp_path / "c", "pair", tmp_path / "none", data={"source": source}))
    assert "reads images with texts, but the data is texts" in said and "--modality text" in said


def test_pictures_with_texts_on_an_image_backbone(table, tmp_path, refused):
    said = refused(write_config(tmp_path / "c", "hf-vit", data={"source": source_of(table, "answers")}))
    assert "reads images, but the data is images with texts" in said and "text_backbone.name" in said


def test_an_unknown_text_backbone(table, tmp_path, refused):
    said = refused(
        config_of(tmp_path / "c", "pair", table), "--cfg-options", "text_backbone.name=huggingface/minilm-l7"
    )
    assert "'huggingface/minilm-l7'" in said and "did you mean 'huggingface/minilm-l6'" in said


def test_towers_on_the_wrong_side(table, tmp_path, refused):
    name, options = BACKBONES["hf-vit"]
    said = refused(config_of(tmp_path / "c", "pair", table, text_backbone={"name": name, "options": options}))
    assert f"text_backbone.name={name!r} reads images" in said and "--modality text" in said
    name, options = BACKBONES["hf-minilm"]
    said = refused(config_of(tmp_path / "d", "pair", table, backbone={"name": name, "options": options}))
    assert f"backbone.name={name!r} reads texts" in said and "--modality image" in said


def test_labels_for_both_towers_of_one_model(table, tmp_path, refused):
    source = source_of(table, "answers")
    said = refused(config_of(tmp_path / "c", "open_clip", table, data={"source": source}))
    assert "tower='both'" in said and "retrieval" in said and "text_backbone" in said


def test_matching_on_what_has_no_two_towers(table, tmp_path, refused):
    said = refused(config_of(tmp_path / "c", "vilt", table, data={"source": source_of(table, "matches")}))
    assert "two towers" in said


def test_a_coach_of_two_towers_is_planned_without_kept_features_and_refused_where_it_cannot_teach(table, tmp_path):
    coach = {"distill.method": "mdpd_coach"}
    found = plan(load_config(config_of(tmp_path / "c", "pair", table), coach))
    assert found.first is not None and found.first.features == 0 < found.first.side
    with pytest.raises(ConfigError, match="a coach teaches examples one by one"):
        plan(load_config(config_of(tmp_path / "d", "open_clip", table), coach))


def test_classes_on_an_export_that_answers_others(runs, table, tmp_path, capsys):
    config, work_dir, _ = runs["pair"]
    options = ["--cfg-options", "data.source.classes=[red,green,blue]"]
    assert main(["eval", str(work_dir / "export"), str(config), *options]) == 2
    assert "in another order" in capsys.readouterr().err
