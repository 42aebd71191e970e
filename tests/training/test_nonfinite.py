"""A loss that is not finite stops a run, which names step and term and can be resumed from what was good."""

from __future__ import annotations

import re

import pytest
import torch
from running import image_folder, main, text_table, weights, write_config

from mdpd_plugins.training.checkpoints import read_run

HUGE = 1e30


@pytest.fixture
def stopped(tmp_path, capsys):
    """Run, expect a stop, and return (step, term, the whole line)."""

    def run(config, *options):
        assert main([str(config), "--work-dir", str(tmp_path / "run"), *options]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        found = re.match(r"error: step (\d+): the (?:loss term|weight|gradient of) (\S+) is ", line)
        assert found, line
        return int(found[1]), found[2], line

    return run


def config(tmp_path, name, **optim):
    distill = {"reduction": 4, "bottleneck": 8, "backbone_every": 2, "tail_blocks": None, "warmup": 0.0}
    train = {"max_steps": 10, "checkpoint_every": 1}
    data = {"data_root": str(tmp_path / "pictures")} if (tmp_path / "pictures").exists() else {}
    return write_config(tmp_path / name, distill=distill, optim=optim, train=train, **data)


def finite(state):
    return all(bool(torch.isfinite(v).all()) for v in state.values())


def checkpoints(work_dir):
    return sorted(int(p.stem[5:]) for p in work_dir.glob("iter_*.pth"))


def test_a_learning_rate_that_breaks_the_backbone_stops_at_the_next_step(tmp_path, stopped, capsys):
    image_folder(tmp_path / "pictures")
    step, term, line = stopped(config(tmp_path, "broken", norm_lr=HUGE))
    # The second step is the first that updates norm parameters; the third meets them.
    assert step == 3 and term.startswith(("side/", "backbone/"))
    work_dir = tmp_path / "run"
    # What the second step made is set aside: nothing could go on from it.
    assert checkpoints(work_dir) == [1] and finite(weights(work_dir, 1))
    assert (work_dir / "nonfinite_iter_2.pth").is_file()
    assert f"--resume goes on from {work_dir / 'iter_1.pth'}" in line
    assert not (work_dir / "export").exists() and not (work_dir / "summary.json").exists()
    assert main([str(config(tmp_path, "mended", norm_lr=1e-3)), "--work-dir", str(work_dir), "--resume"]) == 0
    last = read_run(work_dir / "iter_10.pth")
    assert finite(last["state_dict"])
    assert last["optimizer"]["backbone"]["param_groups"][0]["initial_lr"] == 1e-3


def test_a_learning_rate_that_breaks_the_side_network_names_its_term(tmp_path, stopped):
    step, term, _ = stopped(config(tmp_path, "broken", side_lr=HUGE))
    assert step == 2 and term.startswith("side/")
    assert finite({k: v for k, v in weights(tmp_path / "run", 1).items() if k.startswith("backbone.")})


def test_weights_that_are_not_finite_are_not_saved(tmp_path, stopped):
    # An overflow in a gradient leaves such weights behind a loss that was finite; here a hook plants one.
    hooks, imports = [{"type": "PoisonHook", "step": 3}], {"imports": ["kill_hook"]}
    train = {"max_steps": 6, "checkpoint_every": 1}
    step, term, line = stopped(
        write_config(tmp_path / "config", train=train, custom_hooks=hooks, custom_imports=imports)
    )
    assert step == 3 and term == "side.head.output.weight" and "this step is not saved" in line
    assert checkpoints(tmp_path / "run")[-1] == 2 and finite(weights(tmp_path / "run", 2))
    assert "--resume goes on from" in line and "iter_2.pth" in line


@pytest.mark.parametrize("name", ["side.head.output.weight", "backbone.classifier.bias"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_in_its_step_and_is_named(tmp_path, stopped, name, clip):
    """Every loss is finite. With a largest norm to clip to, all other gradients of the path would become zero."""
    hooks, imports = [{"type": "PoisonHook", "step": 3, "gradient": name}], {"imports": ["kill_hook"]}
    train = {"max_steps": 6, "checkpoint_every": 1}
    more = {"custom_hooks": hooks, "custom_imports": imports, "optim": {"clip_grad": clip}}
    step, term, line = stopped(write_config(tmp_path / "config", train=train, **more))
    assert step == 3 and term == name and "although every loss term is" in line
    assert checkpoints(tmp_path / "run") == [1] and finite(weights(tmp_path / "run", 1))
    assert (tmp_path / "run" / "nonfinite_iter_2.pth").is_file()


def test_a_label_that_is_not_finite_stops_before_any_update(tmp_path, stopped):
    table = text_table(tmp_path / "texts.csv", 20)
    rows = table.read_text().replace(",a", ",0.5").replace(",b", ",1.5").splitlines()
    table.write_text("\n".join([*rows, *["cold red,1e39"] * 20]) + "\n")
    source = {"type": "table", "path": str(table), "text_column": "text", "label_column": "label"}
    source |= {"label_kind": "float"}
    path = write_config(tmp_path / "config", "hf-minilm", data={"source": source}, train={"max_steps": 4})
    step, term, _ = stopped(path)
    assert step == 1 and term == "side/task"
    assert checkpoints(tmp_path / "run") == []
