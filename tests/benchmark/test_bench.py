"""`mdpd bench`: every figure of the table, on a real backbone made small."""

import json

import pytest
from running import write_config

from mdpd_plugins.benchmark.report import front
from mdpd_plugins.cli.main import main


def test_methods_are_compared_and_every_figure_is_there(tmp_path, capsys):
    config = write_config(tmp_path)
    out = tmp_path / "bench.json"
    methods = ["full", "lora", "mdpd"]
    picture = tmp_path / "bench.svg"
    asked = ["--methods", *methods, "--rounds", "1", "--json", str(out), "--plot", str(picture)]
    assert main(["bench", str(config), *asked]) == 0
    printed = capsys.readouterr().out
    assert all(method in printed for method in methods)
    assert all(f"<!-- {method} -->" in picture.read_text() for method in methods)
    found = json.loads(out.read_text())
    rows = {r["method"]: r for r in found["results"]}
    assert list(rows) == methods and found["environment"]["torch"]
    for row in rows.values():
        assert row["training_state_bytes"] > 0 and row["trainable_parameters"] > 0
        assert 0 < row["step_seconds"]["min"] <= row["step_seconds"]["median"] <= row["step_seconds"]["max"]
        assert row["inference_ratio_to_plain"] > 0
    assert rows["lora"]["step_ratio_to_lora"] == 1.0
    # Full fine-tuning keeps two moments and a gradient of every weight: more than LoRA holds altogether.
    assert rows["full"]["training_state_bytes"] > rows["lora"]["training_state_bytes"]


@pytest.mark.slow
def test_types_stand_side_by_side_with_ratios_within_each(tmp_path, capsys):
    out = tmp_path / "bench.json"
    asked = ["--methods", "lora", "--dtypes", "float32", "bfloat16", "--rounds", "1", "--json", str(out)]
    assert main(["bench", str(write_config(tmp_path)), *asked]) == 0
    printed = capsys.readouterr().out
    assert "bfloat16" in printed and "type" in printed
    rows = {r["dtype"]: r for r in json.loads(out.read_text())["results"]}
    assert list(rows) == ["float32", "bfloat16"] and {r["method"] for r in rows.values()} == {"lora"}
    for dtype, row in rows.items():
        assert row["step_ratio_to_first_dtype"] == 1.0 or dtype == "bfloat16"
        assert row["step_ratio_to_lora"] == 1.0
        # Only what was asked for differs: what trains in a narrow backbone has masters.
        assert (row["memory"]["masters"] > 0) == (dtype == "bfloat16")


def test_a_plan_takes_types_as_well(tmp_path, capsys):
    out = tmp_path / "plan.json"
    asked = ["--plan", "--methods", "mdpd", "--dtypes", "float32", "bfloat16", "--json", str(out)]
    assert main(["bench", str(write_config(tmp_path)), *asked]) == 0
    assert "mdpd, bfloat16" in capsys.readouterr().out
    plans = {r["dtype"]: r for r in json.loads(out.read_text())["plans"]}
    assert plans["bfloat16"]["weights_bytes"] < 0.6 * plans["float32"]["weights_bytes"]


def test_an_unknown_type_names_the_closest(tmp_path, capsys):
    assert main(["bench", str(tmp_path / "c.py"), "--dtypes", "bfloat"]) == 2
    assert "'bfloat16'" in capsys.readouterr().err


def test_an_unknown_method_names_the_closest(tmp_path, capsys):
    assert main(["bench", str(tmp_path / "c.py"), "--methods", "lorra"]) == 2
    assert "'lora'" in capsys.readouterr().err


@pytest.mark.parametrize("rounds", ["0", "-1"])
def test_rounds_must_be_positive(tmp_path, capsys, rounds):
    assert main(["bench", str(tmp_path / "c.py"), f"--rounds={rounds}"]) == 2
    assert "at least one" in capsys.readouterr().err


def test_what_a_process_refuses_is_said_in_one_line(tmp_path, capsys):
    config = write_config(tmp_path, distill={"sub_batch": 0})
    assert main(["bench", str(config), "--methods", "mdpd"]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and "distill.sub_batch=0" in error[0]


def test_a_missing_folder_is_said_before_the_work(tmp_path, capsys):
    assert main(["bench", str(tmp_path / "c.py"), "--json", str(tmp_path / "none" / "out.json")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_plot_needs_a_known_ending(tmp_path, capsys):
    assert main(["bench", str(tmp_path / "c.py"), "--plot", str(tmp_path / "out.doc")]) == 2
    assert ".svg" in capsys.readouterr().err


def test_the_front_holds_what_no_other_method_beats_in_both():
    memory, seconds = {"a": 1, "b": 2, "c": 3, "d": 3}, {"a": 5.0, "b": 6.0, "c": 1.0, "d": 2.0}
    assert front(memory, seconds) == ["a", "c"]
    assert front(memory, seconds, best=max) == ["a", "b"]
