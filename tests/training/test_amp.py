"""Autocast and compiled blocks change rounding, and nothing else."""

from __future__ import annotations

import pytest
import torch
from running import forget, main, run, same, trained, weights, write_config
from small_zoo import batch_of, changed, small_distiller, snapshot

from mdpd_plugins.training.compiling import compiled

SETTINGS = [
    ("hf-vit", {}),
    ("mm-vit", {"norm_gradient": "local"}),
    ("oc-image", {"shallow": "auto", "deep": "auto", "auto_batches": 2}),
    ("hf-minilm", {"method": "norm", "recompute": True}),
]


@pytest.mark.parametrize("small_backbone, settings", SETTINGS)
def test_compiled_blocks_learn_what_plain_ones_learn(small_backbone, settings):
    plain, plain_optim = small_distiller(small_backbone, **settings)
    ours, optim = small_distiller(small_backbone, **settings)
    keys, batch = list(ours.state_dict()), batch_of(plain.adapter)
    torch._dynamo.reset()
    with compiled(ours, "aot_eager"):
        for _ in range(3):
            expected, found = plain.train_step(batch, plain_optim), ours.train_step(batch, optim)
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=name)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
        assert list(ours.state_dict()) == keys
    assert not any("forward" in block.__dict__ for block in ours.adapter.blocks())
    for name, parameter in ours.trainable.items():
        # At a rate of 1e-2, Adam's first steps make signs of gradients visible; a wrong one would differ by 2e-2.
        torch.testing.assert_close(parameter, plain.trainable[name], rtol=0, atol=1e-4, msg=name)


@pytest.mark.slow
def test_the_usual_compiler_does_too(tmp_path, capsys):
    ends = []
    for name, backend in (("plain", None), ("compiled", "inductor")):
        path = write_config(tmp_path / name, train={"max_steps": 4, "compile": backend})
        trained(path, tmp_path / name / "run")
        ends.append(weights(tmp_path / name / "run", 4))
    capsys.readouterr()
    for key, value in ends[0].items():
        if not key.endswith("qkv.bias"):  # of keys: its gradient is rounding noise
            torch.testing.assert_close(ends[1][key], value, rtol=0, atol=1e-4, msg=key)


def test_an_unknown_compiler_names_the_closest(tmp_path):
    log = tmp_path / "log"
    assert run([write_config(tmp_path, train={"compile": "inducto"}), "--work-dir", tmp_path / "run"], log) == 2
    assert "'inductor'" in log.read_text()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("small_backbone", ["hf-vit", "mm-vit", "oc-image"])
def test_autocast_follows_full_precision(small_backbone, dtype):
    plain, plain_optim = small_distiller(small_backbone)
    half, optim = small_distiller(small_backbone, amp=dtype)
    for scaler in (wrapper.scaler for wrapper in optim.values() if wrapper.scaler):
        scaler.load_state_dict({**scaler.state_dict(), "scale": 128.0})  # at which nothing overflows from the start
    batch = batch_of(plain.adapter)
    for _ in range(5):
        expected, found = plain.train_step(batch, plain_optim), half.train_step(batch, optim)
        for name, value in expected.items():
            # bfloat16 keeps eight bits; a few blocks multiply that by a few.
            torch.testing.assert_close(found[name], value, rtol=5e-2, atol=5e-2, msg=name)
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert any(not torch.equal(p, plain.trainable[name]) for name, p in half.trainable.items())
    assert all((wrapper.scaler is not None) == (dtype is torch.float16) for wrapper in optim.values())


def test_a_float16_step_that_overflowed_is_left_out_and_the_scale_lowered():
    distiller, optim = small_distiller("hf-vit", amp=torch.float16)
    batch = batch_of(distiller.adapter)
    distiller.train_step(batch, optim)
    scaler = optim["backbone"].scaler
    before = snapshot(distiller.backbone)
    scaler.load_state_dict({**scaler.state_dict(), "scale": 1e30, "backoff_factor": 1e-28})
    distiller.train_step(batch, optim)
    assert not changed(before, distiller.backbone)
    assert scaler.get_scale() == pytest.approx(100)
    distiller.train_step(batch, optim)
    assert changed(before, distiller.backbone)


def test_a_float16_run_resumes_to_the_same_weights(tmp_path, capsys):
    path = write_config(tmp_path, train={"max_steps": 6, "checkpoint_every": 3, "amp": "float16"})
    trained(path, tmp_path / "whole")
    trained(path, tmp_path / "half", **{"train.max_steps": 6})
    forget(tmp_path / "half", 6)
    assert main([str(path), "--work-dir", str(tmp_path / "half"), "--resume"]) == 0
    assert same(weights(tmp_path / "whole", 6), weights(tmp_path / "half", 6))


def test_an_unknown_precision_names_the_closest(tmp_path, capsys):
    path = write_config(tmp_path, train={"amp": "bfloat"})
    assert main([str(path), "--work-dir", str(tmp_path / "run")]) == 2
    assert "'bfloat16'" in capsys.readouterr().err
