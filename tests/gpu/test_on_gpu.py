"""Training on a GPU is training on a CPU: gradients, steps, fading, autocast, types, exports and measurements."""

import json

import pytest
import torch
from running import trained, write_config
from small_zoo import batch_of, inputs_of, small, small_distiller

import mdpd_plugins as mdpd
from mdpd_plugins.cli.main import main
from mdpd_plugins.engine import fade

pytestmark = pytest.mark.gpu

KEYS = ("hf-vit", "hf-minilm", "mm-vit", "mm-resnet", "mm-swin", "oc-image", "oc-text")
METHODS = ("mdpd", "mdpd_low_rank", "full")


def pair(key, device, **settings):
    """(CPU's, the device's), each a distiller with its optimisers, of the same weights."""
    return small_distiller(key, **settings), moved(small_distiller(key, **settings), device)


def moved(both, device):
    both[0].to(device)
    return both


def on(batch, device):
    return {"inputs": {k: v.to(device) for k, v in batch["inputs"].items()}, "labels": batch["labels"].to(device)}


def losses(found):
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("key", KEYS)
def test_gradients_are_those_of_a_cpu(device, key, method):
    (cpu, cpu_optim), (gpu, gpu_optim) = pair(key, device, method=method)
    batch = batch_of(cpu.adapter)
    wanted = losses(cpu.accumulate(batch["inputs"], batch["labels"], cpu_optim))
    there = on(batch, device)
    found = losses(gpu.accumulate(there["inputs"], there["labels"], gpu_optim))
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    ours = {n: p.grad for n, p in cpu.named_parameters() if p.grad is not None}
    theirs = {n: p.grad for n, p in gpu.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys() != set()
    largest = max(float(g.abs().max()) for g in ours.values())
    for name, gradient in ours.items():
        assert theirs[name].device.type == device.type
        torch.testing.assert_close(theirs[name].cpu(), gradient, rtol=1e-3, atol=1e-4 * largest)


@pytest.mark.parametrize("key", KEYS)
def test_steps_learn_as_on_a_cpu_and_fading_leaves_the_plain_model(device, key):
    (cpu, cpu_optim), (gpu, gpu_optim) = pair(key, device, method="mdpd_low_rank")
    batch = batch_of(cpu.adapter)
    for _ in range(3):
        wanted = losses(cpu.train_step(batch, cpu_optim))
        found = losses(gpu.train_step(batch, gpu_optim))  # takes the batch to its device itself
    assert found == pytest.approx(wanted, rel=2e-2, abs=1e-3)
    inputs = inputs_of(cpu.adapter)
    there = {k: v.to(device) for k, v in inputs.items()}
    model, report = fade(gpu, there, repeats=1)  # raises where outputs differ
    assert report.keys_equal and report.merged and next(model.parameters()).device.type == device.type
    with torch.no_grad():
        plain = gpu.adapter.forward(there).cpu()
        model.cpu()
        torch.testing.assert_close(gpu.adapter.forward(inputs), plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("key", KEYS)
def test_autocast_follows_full_precision(device, key, dtype):
    cpu, cpu_optim = small_distiller(key)
    gpu, gpu_optim = moved(small_distiller(key, amp=dtype), device)
    for scaler in (wrapper.scaler for wrapper in gpu_optim.values() if wrapper.scaler):
        scaler.load_state_dict({**scaler.state_dict(), "scale": 128.0})  # at which nothing overflows from the start
    batch = batch_of(cpu.adapter)
    for _ in range(2):
        wanted, found = losses(cpu.train_step(batch, cpu_optim)), losses(gpu.train_step(batch, gpu_optim))
        assert found["loss"] == pytest.approx(wanted["loss"], rel=5e-2)
    assert all(p.dtype == torch.float32 for p in gpu.parameters())


@pytest.mark.parametrize("key", ["hf-vit", "hf-minilm", "mm-vit", "oc-image"])
def test_weights_of_bfloat16_learn_on_the_device(device, key):
    gpu, optim = moved(small_distiller(small(key, dtype="bfloat16"), method="mdpd_low_rank"), device)
    cpu, cpu_optim = small_distiller(key, method="mdpd_low_rank")
    batch = batch_of(cpu.adapter)
    wanted, found = losses(cpu.train_step(batch, cpu_optim)), losses(gpu.train_step(batch, optim))
    assert found["loss"] == pytest.approx(wanted["loss"], rel=5e-2)
    assert gpu.adapter.dtype == torch.bfloat16
    masters = list(gpu.masters.parameters())
    assert masters and all(p.dtype == torch.float32 and p.device.type == device.type for p in masters)


@pytest.mark.parametrize("amp", [False, "bfloat16", "float16"])
@pytest.mark.parametrize("key", ["hf-vit", "mm-resnet", "oc-image"])
def test_a_run_exports_a_model_that_a_cpu_reads(device, tmp_path, key, amp):
    config = write_config(tmp_path, key, train={"max_steps": 4, "amp": amp})
    summary = trained(config, tmp_path / "run")
    assert 0 <= summary["metrics"]["backbone/accuracy"] <= 1
    if device.type == "cuda":
        assert summary["memory"]["cuda_peak"] > 0
    folder = tmp_path / "run" / "export"
    here, there = (mdpd.adapt(mdpd.load(folder, device=where)) for where in ("cpu", device.type))
    inputs = inputs_of(here)
    with torch.no_grad():
        found = there.forward({k: v.to(device) for k, v in inputs.items()}).cpu()
        torch.testing.assert_close(found, here.forward(inputs), rtol=1e-3, atol=1e-3)


def test_the_benchmark_measures_on_the_device(device, tmp_path):
    out = tmp_path / "bench.json"
    asked = ["--methods", "lora", "mdpd", "--rounds", "1", "--device", device.type, "--json", str(out)]
    assert main(["bench", str(write_config(tmp_path)), *asked]) == 0
    for row in json.loads(out.read_text())["results"]:
        assert row["training_state_bytes"] > 0 and row["plain_state_dict"]
        assert ("cuda_peak" in row["memory"]) == (device.type == "cuda")
