"""Autocast and compiled blocks change rounding, and nothing else."""

from __future__ import annotations

import pytest
import torch
from running import run, trained, weights, write_config
from small_zoo import batch_of, small_distiller

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


@pytest.mark.parametrize("small_backbone", ["hf-vit", "mm-vit", "oc-image"])
def test_autocast_follows_full_precision(small_backbone):
    plain, plain_optim = small_distiller(small_backbone)
    half, optim = small_distiller(small_backbone, amp=True)
    batch = batch_of(plain.adapter)
    for _ in range(5):
        expected, found = plain.train_step(batch, plain_optim), half.train_step(batch, optim)
        for name, value in expected.items():
            # bfloat16 keeps eight bits; a few blocks multiply that by a few.
            torch.testing.assert_close(found[name], value, rtol=5e-2, atol=5e-2, msg=name)
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert any(not torch.equal(p, plain.trainable[name]) for name, p in half.trainable.items())
