"""run.json names a run and what it was made of; the run can be repeated from it, bit for bit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from running import image_folder, main, same, text_table, trained, weights, write_config

from mdpd_plugins.cli.main import main as mdpd
from mdpd_plugins.data.fingerprint import fingerprint
from mdpd_plugins.data.load import load_source
from mdpd_plugins.files import write_signed
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.training import config_of_run, load_config, read_run
from mdpd_plugins.training.checkpoints import SUMS
from mdpd_plugins.training.run_record import RUN_FILE, differences

FOUR = {"max_steps": 4, "checkpoint_every": 2, "val_every": 2, "keep": "best"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one configuration and another seed; "again" is the first one repeated from its run.json."""
    base = tmp_path_factory.mktemp("runs")
    pictures = image_folder(base / "pictures")
    config = write_config(base, data_root=str(pictures), data={"augment": "crop+flip"}, train=FOUR)
    for seed in (0, 1):
        trained(config, base / str(seed), **{"train.seed": seed})
    return base


@pytest.fixture
def work_dir(runs, tmp_path):
    return shutil.copytree(runs / "0", tmp_path / "run")


def test_it_says_what_the_run_was_made_of_and_what_came_out(runs):
    run = json.loads((runs / "0" / RUN_FILE).read_text())
    assert run["versions"]["torch"] == torch.__version__ and "mdpd-plugins" in run["versions"]
    assert run["config"]["train"]["max_steps"] == 4 and run["seeds"] == {"train": 0, "splits": 0}
    assert run["data"]["train"]["examples"] == run["data"]["train"]["read"] > 8
    assert run["data"]["train"]["sha256"] != run["data"]["val"]["sha256"]
    assert run["weights"]["origin"] == "random initialisation (asked for)"
    summary = json.loads((runs / "0" / "summary.json").read_text())
    assert run["result"]["steps"] == 4 and run["result"]["metrics"] == summary["metrics"]
    other = json.loads((runs / "1" / RUN_FILE).read_text())
    assert run["run"] != other["run"]
    for key in ("weights", "result"):
        assert run[key]["sha256"] != other[key]["sha256"]
    assert run["data"] == other["data"]
    found = differences(run, other)
    assert [line.partition(":")[0] for line in found] == ["config.train.seed", "seeds.train", "weights.sha256"]
    assert torch.load(runs / "0" / "iter_4.pth", weights_only=True)["meta"]["run"] == run["run"]


def test_it_is_repeated_bit_for_bit_and_said_to_be(runs, tmp_path, capsys):
    arguments = ["--from-run", runs / "0" / RUN_FILE, "--work-dir", tmp_path / "again"]
    assert main(arguments) == 0
    said, first = capsys.readouterr().err, read_run(runs / "0")["run"]
    assert f"repeats run {first}: versions, configuration, data and weights are the same" in said
    assert f"the exported weights are those of run {first}, bit for bit" in said
    assert same(weights(tmp_path / "again", 4), weights(runs / "0", 4))
    assert not same(weights(tmp_path / "again", 4), weights(runs / "1", 4))
    assert read_run(tmp_path / "again")["run"] != first


def test_what_differs_is_said_before_it_trains(runs, tmp_path, capsys):
    then = read_run(runs / "0" / RUN_FILE)
    then["versions"]["torch"] = "1.0"
    then["weights"]["sha256"] = "0" * 64
    write_signed(tmp_path / RUN_FILE, then)
    source = load_source({"type": "image_folder", "root": str(runs / "pictures")}, "train")
    picture = source.inputs[0]
    kept = picture.read_bytes()
    Image.fromarray(255 - np.asarray(Image.open(picture))).save(picture)
    try:
        assert main(["--from-run", tmp_path / RUN_FILE, "--dry-run", "--cfg-options", "optim.scale=0.5"]) == 0
    finally:
        picture.write_bytes(kept)
    said = capsys.readouterr().err
    assert f"versions.torch: '1.0' then, '{torch.__version__}' now" in said
    assert "config.optim.scale: 1.0 then, 0.5 now" in said
    assert "weights.sha256: " in said and "data.train.sha256: " in said and "data.val.sha" not in said
    assert "things differ" in said and not (runs / "0-again").exists()


def test_loader_processes_and_a_second_time_in_one_process_change_nothing(runs, tmp_path):
    for workers in (0, 2):
        trained(runs / "config.py", tmp_path / str(workers), **{"data.num_workers": workers})
        assert same(weights(tmp_path / str(workers), 4), weights(runs / "0", 4)), workers


def test_a_resumed_run_keeps_its_name_and_says_what_changed(runs, work_dir):
    name = read_run(work_dir)["run"]
    arguments = [runs / "config.py", "--work-dir", work_dir, "--resume", "--cfg-options"]
    assert main([*arguments, "train.max_steps=6"]) == 0
    run = read_run(work_dir)
    assert run["run"] == name and run["config"]["train"]["max_steps"] == 4
    assert run["result"]["metrics"] == json.loads((work_dir / "summary.json").read_text())["metrics"]
    (went_on,) = run["resumed"]
    assert went_on["config"]["train"]["max_steps"] == 6
    (work_dir / RUN_FILE).unlink()  # its checkpoints still say it
    assert main([*arguments, "train.max_steps=7"]) == 0
    assert read_run(work_dir)["run"] == name
    assert main([runs / "config.py", "--work-dir", work_dir, "--cfg-options", "train.max_steps=1"]) == 0
    assert read_run(work_dir)["run"] != name == read_run(work_dir / "previous")["run"]


def whole_set(source, target):
    for file in [*source.glob("*.pth"), source / SUMS, source / "evaluations.json"]:
        shutil.copy(file, target)


@pytest.mark.parametrize("command", ["resume", "export", "report"])
def test_a_whole_set_of_another_runs_checkpoints_is_refused_by_name(runs, work_dir, tmp_path, capsys, command):
    whole_set(runs / "1", work_dir)
    before = {p: p.stat().st_mtime_ns for p in work_dir.rglob("*")}
    if command == "resume":
        status = main([runs / "config.py", "--work-dir", work_dir, "--resume"])
    else:
        status = mdpd([command, str(work_dir), *([str(tmp_path / "out")] if command == "export" else [])])
    said = capsys.readouterr().err
    own, other = (read_run(runs / seed)["run"] for seed in "01")
    assert status == 2 and f"was written by run {other}" in said and f"belongs to run {own}" in said
    assert {p: p.stat().st_mtime_ns for p in work_dir.rglob("*")} == before and not (tmp_path / "out").exists()


def test_evaluations_of_another_run_are_refused(runs, work_dir, tmp_path, capsys):
    for file in [*runs.glob("1/best_*.pth"), runs / "1" / "evaluations.json"]:
        shutil.copy(file, work_dir)
    assert mdpd(["export", str(work_dir), str(tmp_path / "out")]) == 2
    assert "evaluations.json' was written by run" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["damaged", "of another run", "missing"])
def test_export_compares_the_sum_of_the_checkpoint_that_is_named(runs, work_dir, tmp_path, capsys, kind):
    file = work_dir / "iter_2.pth"
    export = ["export", str(work_dir), "--checkpoint", str(file)]
    assert mdpd([*export, str(tmp_path / "good")]) == 0
    if kind == "damaged":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))
    elif kind == "of another run":
        export[3] = str(runs / "1" / "iter_2.pth")
    else:
        file.unlink()
    capsys.readouterr()
    assert mdpd([*export, str(tmp_path / "out")]) == 2
    expected = {"damaged": "is not what its run wrote", "of another run": "was written by run", "missing": "has iter_4"}
    assert expected[kind] in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"run": 3}', '{"run": "a", "config": {}, "data": []}', "[" * 9999]
)
def test_a_damaged_record_is_named(work_dir, text, runs, capsys):
    (work_dir / RUN_FILE).write_text(text)
    for arguments in (["--from-run", work_dir / RUN_FILE], [runs / "config.py", "--work-dir", work_dir, "--resume"]):
        assert main(arguments) == 2
        assert "run.json' is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", [RUN_FILE, "summary.json"])
def test_a_changed_number_and_the_file_of_another_run_are_named(runs, work_dir, tmp_path, capsys, name):
    path = work_dir / name
    text = path.read_text()
    path.write_text(text.replace('"steps": 4', '"steps": 5', 1))
    assert path.read_text() != text
    assert mdpd(["report", str(work_dir), "--out", str(tmp_path / "page.html")]) == 2
    assert f"{name}' is damaged (it is not what was written)" in capsys.readouterr().err
    shutil.copy(runs / "1" / name, path)
    assert mdpd(["report", str(work_dir), "--out", str(tmp_path / "page.html")]) == 2
    said = capsys.readouterr().err
    assert "was written by run" in said or "config.py' is not what this run wrote" in said
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("command", ["export", "report"])
def test_a_config_that_is_not_the_runs_any_more_is_refused(work_dir, tmp_path, capsys, command):
    """Another number of heads fits the same weights, and is another model."""
    path = work_dir / "config.py"
    text = path.read_text()
    assert "num_attention_heads=4" in text
    path.write_text(text.replace("num_attention_heads=4", "num_attention_heads=2"))
    out = [str(tmp_path / "out")] if command == "export" else []
    assert mdpd([command, str(work_dir), *out]) == 2
    said = capsys.readouterr().err
    assert "config.py' is not what this run wrote (config.backbone.options.num_attention_heads: 4 then, 2 now)" in said
    path.write_text(text.replace("bottleneck=8", "botuleneck=8"))
    assert mdpd([command, str(work_dir), *out]) == 2
    said = capsys.readouterr().err
    assert "config.py': " in said and "botuleneck" in said
    path.write_text(text)
    assert mdpd([command, str(work_dir), *out]) == 0


def test_one_of_config_and_run_is_asked_for(runs, capsys, tmp_path):
    for arguments in ([], [runs / "config.py", "--from-run", runs / "0" / RUN_FILE]):
        assert main(arguments) == 2
        assert "one of the two" in capsys.readouterr().err
    assert main(["--from-run", tmp_path / "nowhere.json"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_configuration_comes_back_as_it_was(tmp_path):
    """Tuples, keys that are no text; and what is no plain value is said when it is repeated."""
    from mdpd_plugins.training.run_record import _written

    config = load_config(write_config(tmp_path, "mm-swin"))
    config.backbone.options.names = {0: "a", 1: ("b", {"c": (1, 2)})}
    content = {"run": "a", "config": json.loads(json.dumps(_written(config.to_dict())))}
    (tmp_path / RUN_FILE).write_text(json.dumps(content))
    assert config_of_run(tmp_path).backbone.to_dict() == config.backbone.to_dict()
    assert type(config_of_run(tmp_path).backbone.options.backbone.out_indices) is tuple
    content["config"]["data"]["source"] = {"(other)": "<function f>"}
    (tmp_path / RUN_FILE).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="<function f> in its configuration is no plain value"):
        config_of_run(tmp_path)


def test_a_fingerprint_is_of_contents_and_not_of_places(tmp_path):
    table = text_table(tmp_path / "texts.csv")
    source = {"type": "table", "path": str(table), "text_column": "text", "label_column": "label"}

    def found(**options):
        return fingerprint(load_source({**source, **options}, "train"))["sha256"]

    one = found()
    shutil.copy(table, tmp_path / "other.csv")
    assert found(path=str(tmp_path / "other.csv")) == one != found(split_seed=1)
    table.write_text(table.read_text().replace("green", "greem", 1))
    assert found() != one
    pictures = image_folder(tmp_path / "a")
    shutil.copytree(pictures, tmp_path / "b")
    ends = [fingerprint(load_source({"type": "image_folder", "root": str(tmp_path / n)}, "train")) for n in "ab"]
    assert ends[0] == ends[1]
