"""`optim.scale`: one factor of all learning rates, also after a resume."""

import json

import torch
from running import main, write_config


def rates(checkpoint):
    saved = torch.load(checkpoint, weights_only=True)["optimizer"]
    return {name: [group["initial_lr"] for group in state["param_groups"]] for name, state in saved.items()}


def test_the_scale_multiplies_every_learning_rate_and_a_resume_follows_a_change(tmp_path, capsys):
    given = {"side_lr": 1e-3, "norm_lr": 2e-3, "head_lr": 4e-3, "scale": 0.5}
    config = write_config(tmp_path, optim=given, train={"max_steps": 4, "checkpoint_every": 2})
    run = [str(config), "--work-dir", str(tmp_path / "run")]
    assert main(run) == 0
    assert rates(tmp_path / "run" / "iter_4.pth") == {"side": [5e-4], "backbone": [1e-3, 2e-3]}
    assert main([*run, "--resume", "--cfg-options", "optim.scale=0.25", "train.max_steps=8"]) == 0
    assert rates(tmp_path / "run" / "iter_8.pth") == {"side": [2.5e-4], "backbone": [5e-4, 1e-3]}
    spent = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert spent["seconds"] > 0 and spent["cpu_seconds"] > 0
    capsys.readouterr()


def test_each_kind_of_parameter_has_its_own_rate(tmp_path, capsys):
    given = {"norm_lr": 1e-2, "low_rank_lr": 2e-2, "head_lr": 3e-2, "weight_lr": 4e-2, "head_weight_decay": 0.5}
    expected = {
        "norm": [(1e-2, 0.0), (3e-2, 0.5)],
        "mdpd_low_rank": [(1e-2, 0.0), (2e-2, 0.5), (3e-2, 0.5)],
        "lora": [(2e-2, 0.5), (3e-2, 0.5)],
        "full": [(4e-2, 0.0), (3e-2, 0.5), (4e-2, 0.5)],
    }
    for method, wanted in expected.items():
        config = write_config(tmp_path, optim=given, distill={"method": method}, train={"max_steps": 1})
        folder = tmp_path / method
        assert main([str(config), "--work-dir", str(folder)]) == 0
        saved = torch.load(folder / "iter_1.pth", weights_only=True)["optimizer"]["backbone"]
        assert [(g["initial_lr"], g["weight_decay"]) for g in saved["param_groups"]] == wanted
        trained = [len(g["params"]) for g in saved["param_groups"]]
        assert all(trained)
    capsys.readouterr()
