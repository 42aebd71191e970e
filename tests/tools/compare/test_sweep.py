"""`python -m tools.compare sweep` as it is used: killed and started again, with a run that fails, with tuning."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from running import trained, write_config

from tools.compare import sweep_command

ROOT = Path(__file__).parents[3]
SPLITS = {"source": {"type": "packaged", "name": "digits", "train_size": 40, "val_size": 16, "test_size": 24}}


def sweep(*arguments):
    """(exit status, what was said on stderr) of the command, in this process; its runs have their own."""
    said = io.StringIO()
    with mock.patch.object(sys, "argv", ["sweep.py", *map(str, arguments)]), contextlib.redirect_stderr(said):
        try:
            status = sweep_command.main()
        except SystemExit as stop:
            status = stop.code
    return status, said.getvalue()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory):
    """(config, out, lines when it was killed, exit status of the second try, its stderr)."""
    folder = tmp_path_factory.mktemp("sweep")
    config, out = write_config(folder, data=SPLITS, train={"max_steps": 6}), folder / "runs.jsonl"
    methods = ["norm", "broken:method=mdpd,distill.reduction=5", "own:method=mdpd,distill.shallow=[0,2],distill.rank=4"]
    arguments = [config, "--methods", *methods, "--seeds", "0", "1", "--out", out, "--jobs", "2"]
    with open(folder / "log", "w") as log:
        command = [sys.executable, "-m", "tools.compare", "sweep", *map(str, arguments)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        while not (out.is_file() and out.read_bytes().endswith(b"\n")) and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = out.read_text()
    with out.open("a") as file:
        file.write('{"config": "cut sho')
    return config, out, before, *sweep(*arguments)


def test_a_killed_sweep_goes_on_and_repeats_nothing(killed_and_resumed):
    _, out, before, _, said = killed_and_resumed
    assert before.count("\n") >= 1 and out.read_text().startswith(before)
    found = [(run["method"], run["seed"]) for run in lines(out)]
    assert sorted(found) == [("norm", 0), ("norm", 1), ("own", 0), ("own", 1)]
    # What was there is neither run nor announced again.
    assert said.count("of training") == 4 - before.count("\n")


def test_a_failed_run_is_told_and_the_others_run(killed_and_resumed):
    config, out, _, status, said = killed_and_resumed
    assert status == 1 and "FAILED" in said
    failed = lines(out.with_name("runs.jsonl.failed"))
    assert [(run["method"], run["seed"]) for run in sorted(failed, key=lambda run: run["seed"])] == [
        ("broken", 0),
        ("broken", 1),
    ]
    assert "reduction" in failed[0]["error"] and "Traceback" not in failed[0]["error"]
    assert failed[0]["command"].startswith(f"python tools/train.py {config} --cfg-options distill.method=mdpd")


def test_a_line_says_what_ran_and_what_it_took(killed_and_resumed):
    own = next(run for run in lines(killed_and_resumed[1]) if (run["method"], run["seed"]) == ("own", 0))
    assert own["overrides"] == ["distill.method=mdpd", "distill.shallow=[0,2]", "distill.rank=4"]
    assert own["split"] == "test" and own["deploys"] == "backbone" and own["steps"] == 6
    assert {"backbone/accuracy", "side/accuracy"} <= set(own["metrics"])
    assert 0 < own["cpu_seconds"] and 0 < own["seconds"] < 60
    assert own["parameters"]["side"] > 0


def test_a_line_says_how_far_the_paths_agree(killed_and_resumed):
    for run in lines(killed_and_resumed[1]):
        assert set(run["paths"]) == ({"mean", "either", "differ"} if run["method"] == "own" else set())
        if run["paths"]:
            backbone, side = (run["metrics"][f"{path}/accuracy"] for path in ("backbone", "side"))
            # At most where they differ one is right and the other is not.
            assert max(backbone, side) <= run["paths"]["either"] <= min(backbone, side) + run["paths"]["differ"]


def test_memory_is_counted_once_a_method(killed_and_resumed):
    for run in lines(killed_and_resumed[1]):
        assert bool(run["memory"]) == (run["seed"] == 0)


def test_a_run_of_a_sweep_finds_what_training_alone_finds(killed_and_resumed, tmp_path, capsys):
    config, out, *_ = killed_and_resumed
    for run in lines(out):
        options = {"distill.method": "norm" if run["method"] == "norm" else "mdpd", "train.seed": run["seed"]}
        if run["method"] == "own":
            options |= {"distill.shallow": [0, 2], "distill.rank": 4}
        alone = trained(config, tmp_path / "run", **options, **{"data.eval_split": "test"})
        assert alone["metrics"] == run["metrics"] and alone["parameters"] == run["parameters"]
        if run["memory"]:
            assert alone["memory"] == run["memory"]
    capsys.readouterr()


def test_its_lines_make_a_page(killed_and_resumed, tmp_path):
    page, appendix = tmp_path / "results.md", tmp_path / "appendix.md"
    for file in (page, appendix):
        file.write_text("<!-- measured: written by tools/compare/results_page.py -->\n<!-- end of measured -->\n")
    command = [sys.executable, "-m", "tools.compare", "results", str(page), "--appendix", str(appendix), "--runs"]
    command.append(str(killed_and_resumed[1]))
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stderr
    assert "| own | 2 |" in appendix.read_text() and "| own | 0." in page.read_text()
    assert len(list((tmp_path / "plots").iterdir())) == 1


def test_tuning_takes_the_best_of_the_deployed_path_on_validation_and_seeds_see_test_only(tmp_path):
    config, out = write_config(tmp_path, data=SPLITS, train={"max_steps": 2}), tmp_path / "runs.jsonl"
    # The tuning runs are there already, with scores of our choice: the sweep must go by them.
    scores = {"norm": {"1": (0.5, None), "0.3": (0.7, None), "3": (0.7, None)}, "ladder": {"1": (0.9, 0.2)}}
    scores["ladder"] |= {"0.3": (0.1, 0.3), "3": (0.5, 0.6)}
    with out.open("w") as file:
        for method, by_scale in scores.items():
            for scale, (backbone, side) in by_scale.items():
                metrics = {"backbone/accuracy": backbone} | ({} if side is None else {"side/accuracy": side})
                line = {"config": str(config), "method": method, "overrides": [f"distill.method={method}"]}
                line |= {"options": [], "tuned": [f"optim.scale={scale}"], "seed": 1000, "split": "val"}
                deploys = "side" if method == "ladder" else "backbone"
                line |= {"metric": "accuracy", "metrics": metrics, "deploys": deploys}
                file.write(json.dumps(line) + "\n")
    grid = "optim.scale=1,0.3,3"
    status, said = sweep(config, "--methods", "norm", "ladder", "--seeds", 7, "--tune", grid, "--out", out)
    assert status == 0, said
    ran = lines(out)[6:]
    assert {(run["method"], run["seed"], run["split"], *run["tuned"]) for run in ran} == {
        ("norm", 7, "test", "optim.scale=0.3"),  # of equals the one given first
        ("ladder", 7, "test", "optim.scale=3"),  # by its side path
    }
    assert [run["deploys"] for run in sorted(ran, key=lambda run: run["method"])] == ["side", "backbone"]


def test_tuning_gives_every_method_the_same_grid_on_validation(tmp_path):
    config, out = write_config(tmp_path, data=SPLITS, train={"max_steps": 1}), tmp_path / "runs.jsonl"
    grid = ["optim.scale=1,2", "train.max_steps=1,2"]
    status, said = sweep(config, "--methods", "linear", "--seeds", 0, 1, "--tune", *grid, "--out", out)
    assert status == 0, said
    tuning, final = lines(out)[:4], lines(out)[4:]
    assert [run["tuned"] for run in tuning] == [
        [f"optim.scale={scale}", f"train.max_steps={steps}"] for scale in (1, 2) for steps in (1, 2)
    ]
    assert {(run["split"], run["seed"]) for run in tuning} == {("val", 1000)}
    assert [run["steps"] for run in tuning] == [1, 2, 1, 2]
    assert [(run["split"], run["seed"]) for run in final] == [("test", 0), ("test", 1)]
    best = max(tuning, key=lambda run: run["metrics"]["backbone/accuracy"])
    assert all(run["tuned"] == best["tuned"] for run in final)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "mdqd"], "method 'mdqd' is not known: did you mean 'mdpd'"),
        (["--methods", "mine:distill.rank=4"], "add method=NAME"),
        (["--methods", "mine:method"], "cannot be read"),
        (["--methods", "norm:method=mdpd,distill.rank=4"], "is the name of another method"),
        (["--methods", "norm", "norm"], "two methods are called 'norm'"),
    ],
)
def test_wrong_methods_are_refused_before_anything_runs(tmp_path, arguments, message):
    status, said = sweep(write_config(tmp_path), *arguments, "--out", tmp_path / "runs.jsonl")
    assert status == 2 and said.startswith("error: ") and message in said
    assert not (tmp_path / "runs.jsonl").exists()


def test_a_wrong_grid_and_lines_of_something_else_are_errors_of_one_line(tmp_path):
    config, out = write_config(tmp_path), tmp_path / "runs.jsonl"
    assert "KEY=VALUE,VALUE is meant" in sweep(config, "--tune", "optim.scale")[1]
    out.write_text('{"method": "norm"}\n')
    status, said = sweep(config, "--methods", "norm", "--out", out)
    assert status == 2 and said.startswith("error: a line has no 'overrides'")
    assert out.read_text() == '{"method": "norm"}\n'
