"""The optimiser of a run and its learning rates, also after a resume."""

import importlib.util
import json

import pytest
import torch
from running import forget, main, same, trained, weights, write_config
from small_zoo import ONE_OF_EACH

from mdpd_plugins.training.checkpoints import read_run


def rates(checkpoint):
    saved = read_run(checkpoint)["optimizer"]
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
        saved = read_run(folder / "iter_1.pth")["optimizer"]["backbone"]
        assert [(g["initial_lr"], g["weight_decay"]) for g in saved["param_groups"]] == wanted
        trained = [len(g["params"]) for g in saved["param_groups"]]
        assert all(trained)
    capsys.readouterr()


WIDE = {
    "reduction": 1,
    "method": "mdpd_low_rank",
    "rank": 64,
}  # bitsandbytes leaves tensors below 4,096 as they are
EIGHT = {"type": "adamw_8bit"}


def moments(work_dir):
    """(path, parameter, which) -> a moment of AdamW, by either optimiser's name for it."""
    saved = read_run(work_dir / "iter_4.pth")["optimizer"]
    own = {"exp_avg": 1, "exp_avg_sq": 2, "state1": 1, "state2": 2}
    flat = [
        (path, n, {**s, **s.get("__bnb_optimizer_quant_state__", {})})
        for path in saved
        for n, s in saved[path]["state"].items()
    ]
    return {(path, n, own[name]): t for path, n, state in flat for name, t in state.items() if name in own}


@pytest.mark.parametrize("key", ONE_OF_EACH)
def test_moments_of_eight_bits_take_a_byte_each_and_a_resume_is_the_same_bit_for_bit(key, tmp_path):
    pytest.importorskip("bitsandbytes")
    train = {"max_steps": 4, "checkpoint_every": 2}
    config = write_config(tmp_path, key, distill=WIDE, optim=EIGHT, train=train)
    trained(config, tmp_path / "whole")
    trained(config, tmp_path / "part")
    forget(tmp_path / "part", 4)
    assert main([config, "--work-dir", tmp_path / "part", "--resume"]) == 0
    assert same(weights(tmp_path / "part", 4), weights(tmp_path / "whole", 4))
    plain = write_config(tmp_path / "plain", key, distill=WIDE, train=train)
    trained(plain, tmp_path / "plain" / "run")
    one, other = weights(tmp_path / "whole", 4), weights(tmp_path / "plain" / "run", 4)
    before = weights(tmp_path / "plain" / "run", 2)
    # Other weights than with moments of four bytes, by far less than two steps are long.
    learned = [k for k in other if other[k].is_floating_point() and not torch.equal(other[k], before[k])]
    apart, moved = (sum(float((other[k] - w[k]).square().sum()) for k in learned) ** 0.5 for w in (one, before))
    assert 0 < apart < 0.3 * moved, (apart, moved)
    few, many = moments(tmp_path / "whole"), moments(tmp_path / "plain" / "run")
    assert few.keys() == many.keys() and 0 < sum(t.dtype == torch.uint8 for t in few.values()) < len(few)
    assert all(few[k].numel() == many[k].numel() >= 4096 for k in few if few[k].dtype == torch.uint8)
    assert all(few[k].dtype == torch.float32 for k in few if many[k].numel() < 4096)


def test_a_run_is_not_resumed_with_another_optimiser(tmp_path, capsys):
    pytest.importorskip("bitsandbytes")
    config = write_config(tmp_path, train={"max_steps": 2})
    assert main([config, "--work-dir", tmp_path / "run"]) == 0
    assert main([config, "--work-dir", tmp_path / "run", "--resume", "--cfg-options", "optim.type=adamw_8bit"]) == 2
    assert "with another optimiser: resume with the settings in" in capsys.readouterr().err


def test_moments_of_eight_bits_without_their_library_are_refused_with_the_way_to_get_it(tmp_path, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    config = write_config(tmp_path, optim=EIGHT)
    assert main([config, "--work-dir", tmp_path / "run"]) == 2
    assert "pip install 'mdpd-plugins[quantization]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
