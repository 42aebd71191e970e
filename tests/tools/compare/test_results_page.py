"""tools/compare/results_page.py: from lines of known figures to the page and its plots."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from unittest import mock

import pytest

from tools.compare import results_page

START, END = "<!-- measured: written by tools/compare/results_page.py -->", "<!-- end of measured -->"


def line(config, method, seed, value, *, seconds=10.0, epochs=None, **more):
    """A run's line, with what a sweep writes."""
    deploys = "side" if method == "ladder" else "backbone"
    metrics = {"backbone/accuracy": value}
    if method in ("mdpd", "ladder", "mine"):
        metrics |= {"side/accuracy": value if method == "ladder" else value + 0.01}
    if method == "ladder":
        metrics["backbone/accuracy"] = 0.1
    base = "mdpd" if method == "mine" else method
    extra = ["distill.backbone_every=1"] if method == "mine" else []
    return {
        "config": f"zoo_configs/huggingface/{config}.py",
        "method": method,
        "overrides": [f"distill.method={base}", *extra],
        "options": [] if epochs is None else [f"train.max_epochs={epochs}"],
        "tuned": ["optim.scale=0.3"],
        "seed": seed,
        "split": "test",
        "metric": "accuracy",
        "metrics": metrics,
        "deploys": deploys,
        "seconds": 99.0,
        "cpu_seconds": seconds,
        "parameters": {"backbone": 1000, "backbone_trained": 12345, "side": 600 if base != "norm" else 0},
        "memory": {"total": {"norm": 8, "ladder": 2, "mdpd": 4, "mine": 4}[method] * 2**20} if seed == 0 else {},
        "weights": "package real",
        "data": "Figures.",
        "device": "cpu",
        **more,
    }


def grid():
    """Two tasks, four methods, three seeds; tuning runs that must not be counted; one task at a second length."""
    found = []
    for scale in ("1", "0.3"):
        tuning = {"tuned": [f"optim.scale={scale}"], "split": "val"}
        found += [line(c, m, 1000, 0.99, **tuning) for c in ("one", "two") for m in ("norm", "ladder", "mdpd", "mine")]
    for seed, (a, b) in enumerate([(0.80, 0.81), (0.82, 0.84), (0.84, 0.87)]):
        found += [
            line("one", "norm", seed, a, seconds=10.0),
            line("one", "mdpd", seed, b, seconds=20.0),
            line("one", "ladder", seed, a - 0.1, seconds=5.0),
            line("one", "mine", seed, a, seconds=20.0),
            line("two", "norm", seed, b),
            line("two", "mdpd", seed, a),
            line("two", "ladder", seed, 0.5),
            line("two", "mine", seed, b + 0.1),
            line("one", "mdpd", seed, a - 0.02, seconds=9.0, epochs=1),
        ]
    return found


def run(*arguments):
    """(exit status, stderr)."""
    said = io.StringIO()
    with mock.patch.object(sys, "argv", ["results_page.py", *map(str, arguments)]), contextlib.redirect_stderr(said):
        status = results_page.main()
    return status, said.getvalue()


def written(folder, lines):
    runs = folder / "runs.jsonl"
    runs.write_text("".join(json.dumps(found) + "\n" for found in lines))
    page = folder / "results.md"
    page.write_text(f"prose before\n{START}\nold\n{END}\nprose after\n")
    return page, runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(page, runs) after the command."""
    page, runs = written(tmp_path_factory.mktemp("page"), grid())
    assert run(page, "--runs", runs) == (0, "")
    return page, runs


def test_prose_around_the_marks_stays_and_what_was_between_goes(made):
    text = made[0].read_text()
    assert text.startswith(f"prose before\n{START}\n") and text.endswith(f"{END}\nprose after\n")
    assert "old" not in text


def test_a_task_has_mean_and_deviation_of_the_deployed_path_and_its_cost(made):
    text = made[0].read_text()
    assert "### huggingface/one" in text and "### huggingface/two" in text
    assert "training (CPU seconds) |" in text
    assert "| norm | 3 | 0.8200 ± 0.0200 | - | optim.scale=0.3 | 12,345 | 8.0 | 10.0 |" in text
    assert "| mdpd | 3 | 0.8400 ± 0.0300 | 0.8500 ± 0.0300 | optim.scale=0.3 | 12,945 | 4.0 | 20.0 |" in text
    # The ladder's result is its side path.
    assert "| ladder | 3 | 0.7200 ± 0.0200 | 0.7200 ± 0.0200 | optim.scale=0.3 | 12,945 | 2.0 | 5.0 |" in text


def test_comparisons_pair_the_seeds(made):
    text = made[0].read_text()
    # Differences 0.01, 0.02, 0.03: as in test_statistics, a hundredth of 1, 2, 3.
    assert "| mdpd - norm | 3 | +0.0200 | -0.0048 to +0.0448 | 0.0742 | - |" in text
    assert "| mine - norm | 3 | +0.0000 | - | - | - |" in text


def test_the_fronts_are_of_time_and_of_memory(made):
    text = made[0].read_text()
    assert "- Front of accuracy and time: ladder, norm, mdpd." in text
    assert "- Front of accuracy and memory: ladder, mdpd." in text


def test_equal_time_takes_the_longest_training_that_fits(made):
    text = made[0].read_text()
    assert "| method | within norm's 10.0 s | within ladder's 5.0 s |" in text
    # Two epochs take 20 seconds, one takes 9.
    assert "| mdpd | 0.8000 ± 0.0200 in 9.0 s | - |" in text


def test_all_tasks_together_have_ranks_and_wins(made):
    text = made[0].read_text()
    # one: mdpd, then norm and mine alike, then ladder; two: mine, norm, mdpd, ladder.
    assert "| mdpd | 2.00 | 0.8400 | 0.8200 |" in text
    assert "| norm | 2.25 | 0.8200 | 0.8400 |" in text
    assert "| mine | 1.75 | 0.8200 | 0.9400 |" in text
    assert "| mdpd - norm | 1 | 0 | 1 | +0.0000 |" in text
    assert "| mine - norm | 1 | 1 | 0 | +0.0500 |" in text


def test_lines_that_know_both_paths_get_a_table_of_what_they_are_together(tmp_path):
    lines = [run for run in grid() if run["seed"] != 1000 and not run["options"]]
    for found in lines:
        if found["method"] == "mdpd" and found["seed"]:
            found["paths"] = {"mean": 0.85, "either": 0.90, "differ": 0.1 * found["seed"]}
    page, runs = written(tmp_path, lines)
    assert run(page, "--runs", runs) == (0, "")
    text = page.read_text()
    header = "| method | seeds | backbone | side | mean of both | right by either | differ |"
    row = "| mdpd | 2 | 0.8550 ± 0.0212 | 0.8650 ± 0.0212 | 0.8500 ± 0.0000 | 0.9000 ± 0.0000 | 0.1500 ± 0.0707 |"
    assert f"{header}\n| --- | --- | --- | --- | --- | --- | --- |\n{row}\n" in text
    assert text.count(header) == 2  # a task each


def test_what_teaching_brings_stands_beside_the_room_it_has(tmp_path):
    def untaught(config, seed, value, mean, tuned="optim.scale=0.3"):
        return line(config, "mdpd", seed, value) | {
            "method": "blind",
            "tuned": [tuned],
            "overrides": ["distill.method=mdpd", "distill.logits_distillation=False"],
            "paths": {"mean": mean, "either": 0.9, "differ": 0.2},
        }

    # On "one" at the same rate; on "two" at another, which tells nothing of teaching.
    lines = [*grid(), *(untaught("one", seed, 0.80, 0.83 + seed / 100) for seed in (0, 1, 2))]
    lines += [untaught("two", seed, 0.80, 0.83, "optim.scale=1") for seed in (0, 1, 2)]
    page, runs = written(tmp_path, lines)
    assert run(page, "--runs", runs, "--ablations", "mdpd=blind,norm", "mine=blind") == (0, "")
    after = page.read_text().split("What teaching brings")[1].split("On validation")[0]
    # Taught 0.81, 0.84, 0.87 and untaught 0.80; their teacher 0.83, 0.84, 0.85.
    assert "| huggingface/one | mdpd - blind | 3 | +0.0400 | +0.0400 | 0.1472 |" in after
    assert "huggingface/two" not in after and "norm" not in after
    assert "mine - blind" not in after  # which differ in their rhythm besides


def test_ablations_are_compared_with_their_own_recipe_only(tmp_path):
    page, runs = written(tmp_path, grid())
    arguments = ("--compare", "mdpd", "mine", "--against", "norm", "--ablations", "mine=ladder,mdpd")
    assert run(page, "--runs", runs, *arguments) == (0, "")
    names = [row.split(" | ")[0].removeprefix("| ") for row in page.read_text().splitlines() if row.startswith("| ")]
    of_one = ["mdpd - norm", "mine - norm", "mine - ladder", "mine - mdpd"]
    assert [name for name in names if " - " in name] == of_one * 3  # two tasks and all together


def test_what_is_no_list_of_ablations_is_refused(tmp_path):
    page, runs = written(tmp_path, grid())
    with pytest.raises(SystemExit):
        run(page, "--runs", runs, "--ablations", "mine=ladder,")
    assert "old" in page.read_text()


@pytest.mark.parametrize("arguments", [("--ablations", "mine=laddr"), ("--compare", "laddr")])
def test_a_name_that_no_run_has_is_an_error_with_the_closest(tmp_path, arguments):
    page, runs = written(tmp_path, grid())
    status, said = run(page, "--runs", runs, *arguments)
    assert status == 2 and "no run of 'laddr'" in said and "did you mean 'ladder'" in said and "old" in page.read_text()


def test_the_validation_table_has_the_best_rate_of_methods_with_the_whole_grid(tmp_path):
    def tuning(method, values, config):
        grid = zip(("1", "0.3"), values, strict=False)
        return [line(config, method, 1000, v, split="val", tuned=[f"optim.scale={s}"]) for s, v in grid]

    lines = grid()
    for config in ("one", "two"):
        lines = [found for found in lines if found["seed"] != 1000 or config not in found["config"]]
        lines += tuning("norm", (0.70, 0.60), config) + tuning("mine", (0.50, 0.75), config)
        lines += tuning("mdpd", (0.99,), config)  # one rate only
    page, runs = written(tmp_path, lines)
    assert run(page, "--runs", runs) == (0, "")
    after = page.read_text().split("On validation,")[1]
    assert "| mine | 1.00 | 0.7500 | 0.7500 |\n| norm | 2.00 | 0.7000 | 0.7000 |" in after
    assert "| mdpd |" not in after


def test_the_commands_are_worked_out_from_the_lines(made):
    page, runs = made
    recipe = "mine:method=mdpd,distill.backbone_every=1"
    configs = "zoo_configs/huggingface/one.py zoo_configs/huggingface/two.py"
    methods = f"--methods ladder mdpd {recipe} norm --seeds 0 1 2"
    assert (
        f"python -m tools.compare sweep {configs} {methods} --tune optim.scale=1,0.3 --out {runs}\n" in page.read_text()
    )


def test_the_same_lines_give_the_same_page_and_plots(made):
    page, runs = made
    plots = sorted((page.parent / "plots").iterdir())
    assert [p.name for p in plots] == [
        "results_huggingface_one.svg",
        "results_huggingface_one_over_time.svg",
        "results_huggingface_two.svg",
    ]
    before = [p.read_bytes() for p in (page, *plots)]
    other = page.with_name("few.md")
    other.write_text(before[0].decode())
    assert run(other, "--runs", runs) == (0, "")
    assert "(plots/few_huggingface_two.svg)" in other.read_text()
    assert [p.read_bytes() for p in (page, *plots)] == before  # another page's plots are left alone
    for plot in plots:
        plot.unlink()
    assert run(page, "--runs", runs) == (0, "")
    assert [p.read_bytes() for p in (page, *plots)] == before


def test_of_an_error_less_is_better(tmp_path):
    lines = [run for run in grid() if not run["options"]]
    for found in lines:
        found["metric"] = "mse"
        found["metrics"] = {key.replace("accuracy", "mse"): value for key, value in found["metrics"].items()}
    page, runs = written(tmp_path, lines)
    assert run(page, "--runs", runs) == (0, "")
    text = page.read_text()
    assert "| mdpd - norm | 3 | -0.0200 | -0.0448 to +0.0048 | 0.0742 | - |" in text
    assert "- Front of mse and memory: ladder." in text
    assert "| ladder | 1.00 |" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overrides": None}, "a line has no 'overrides'"),
        ({"overrides": ["distill.method=norm", "distill.recompute=True"]}, "two different runs of norm"),
        ({"split": "val"}, "no run on the test split yet"),
        (None, "no runs in"),
    ],
)
def test_lines_that_cannot_be_tabled_are_an_error_and_the_page_stays(tmp_path, change, message):
    lines = [] if change is None else [line("one", "norm", 0, 0.5), line("one", "norm", 1, 0.5)]
    if change and "split" in change:
        lines = [{**found, **change} for found in lines]
    elif change:
        lines[1] |= change
        if change["overrides"] is None:
            del lines[1]["overrides"]
    page, runs = written(tmp_path, lines)
    before = page.read_text()
    status, said = run(page, "--runs", runs)
    assert status == 2 and said.startswith("error: ") and message in said and said.count("\n") == 1
    assert page.read_text() == before


def test_a_page_without_marks_is_left_alone(tmp_path):
    page, runs = written(tmp_path, grid())
    page.write_text("mine\n")
    status, said = run(page, "--runs", runs)
    assert status == 2 and START in said and page.read_text() == "mine\n"


def test_one_configuration_under_different_options_is_several_tasks(tmp_path):
    lines = [
        line(config, method, seed, 0.5 + seed / 10, options=[f"data.max_length={length}"])
        for config, length in (("one", 8), ("one", 16), ("two", 8))
        for method in ("norm", "mdpd")
        for seed in (0, 1)
    ]
    page, runs = written(tmp_path, lines)
    assert run(page, "--runs", runs) == (0, "")
    text = page.read_text()
    assert "### huggingface/one data.max_length=8\n" in text and "### huggingface/one data.max_length=16\n" in text
    # Alone it needs no long name, and says what it ran with all the same.
    assert "### huggingface/two\n" in text and text.count("Here with `data.max_length=8`.") == 2
