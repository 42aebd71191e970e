"""Checks of the method on a backbone: gradients, one distillation iteration, fading and export."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.engine import Distiller, Settings, fade
from mdpd_plugins.tasks import Prediction
from mdpd_plugins.testing.outcome import NotApplicable
from mdpd_plugins.testing.specimen import NUM_CLASSES, Specimen

STEPS = 8
# The first step of Adagrad moves every weight by the rate: too far for an output layer that reads thousands of numbers
# without a norm before it (VGG), so then a smaller one is tried.
RATES = (1e-2, 1e-4)


def norm_gradients(s: Specimen) -> str:
    """Gradients of norm parameters through recomputation equal plain autograd's bit for bit."""
    if not s.pristine.norm_parameters():
        raise NotApplicable("it has no affine normalisation")
    plain, exact = (_gradients(s, recompute=r) for r in (False, True))
    assert plain, "no gradient reaches any norm parameter"
    assert plain.keys() == exact.keys(), f"gradients are missing: {sorted(plain.keys() ^ exact.keys())[:3]}"
    wrong = [k for k in plain if not torch.equal(plain[k], exact[k])]
    assert not wrong, f"{len(wrong)} of {len(plain)} gradients differ: {wrong[:3]}"
    return f"{len(plain)} tensors"


def _gradients(s: Specimen, *, recompute: bool) -> dict[str, torch.Tensor]:
    a = s.fresh()
    norms = a.norm_parameters()
    for p in a.model.parameters():
        p.requires_grad_(False)
    for p in norms.values():
        p.requires_grad_(True)
    with torch.enable_grad():
        if recompute:
            with a.recompute():
                logits = a.forward(s.inputs)
        else:
            logits = a.forward(s.inputs)
        # Squared, so that no gradient vanishes by symmetry where a norm follows the output.
        logits.float().square().sum().backward()
    return {k: p.grad for k, p in norms.items() if p.grad is not None}


def distillation(s: Specimen) -> str:
    """Side and backbone phases on one batch: finite losses that fall, and norms and head alone change."""
    start = s.pristine.model.state_dict()
    for rate in RATES:
        a = s.fresh()
        student, optimiser, labels = _set_up(a, s.inputs, rate)
        losses: list[float] = []
        while len(losses) < STEPS and not (losses and min(losses) < losses[0]):
            terms = student.backward(s.inputs, labels)
            optimiser.step()
            optimiser.zero_grad()
            losses.append(float(terms["side/task"] + terms["backbone/task"]))
        if min(losses) < losses[0]:
            break
    allowed = {**a.norm_parameters(), **a.head_parameters()}
    moved = {id(p) for p in allowed.values()}
    # By identity: tied parameters have several keys.
    names = {n: p for n, p in a.model.named_parameters(remove_duplicate=False)}
    changed = {k for k, v in a.model.state_dict().items() if not torch.equal(v, start[k])}
    wrong = sorted(k for k in changed if k not in names or id(names[k]) not in moved)
    assert not wrong, f"training changed more than norms and head: {wrong[:3]}"
    norms = a.norm_parameters()
    assert not norms or any(k in changed for k in norms), "training changed no norm parameter"
    assert any(k in changed for k in a.head_parameters()), "training did not change the output layer"
    assert min(losses[1:]) < losses[0], f"the task losses do not fall on a fixed batch: {losses}"
    fall = f"{losses[0]:.3f} to {min(losses[1:]):.3f} in {len(losses)} steps"
    return f"task losses {fall}, {len(changed)} tensors changed"


def _set_up(a: Adapter, inputs, rate: float = RATES[0]) -> tuple[Distiller, torch.optim.Optimizer, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        count, width = len(a.blocks()), a.dims[-1]
        # A side network of 8 to 15 channels, whatever the backbone's width.
        reduction = max(r for r in range(1, width + 1) if width % r == 0 and (width // r >= 8 or r == 1))
        settings = Settings.from_dict(
            {
                "reduction": reduction,
                "bottleneck": 8,
                "shallow": [0],
                "deep": [-1] if count > 1 else [],
                "backbone_every": 1,
                "warmup": 0.0,
            }
        )
        task = Prediction("single", [str(i) for i in range(NUM_CLASSES)])
        student = Distiller(a, task, settings, max_steps=STEPS)
    # Adagrad is Adam with half its memory.
    optimiser = torch.optim.Adagrad([*student.side_parameters(), *student.trainable.values()], lr=rate)
    return student, optimiser, torch.arange(len(next(iter(inputs.values())))) % NUM_CLASSES


def export(s: Specimen) -> str:
    """Trained, faded, exported and read back by the zoo's own loader: the same outputs, bit for bit."""
    a = s.fresh()
    student, optimiser, labels = _set_up(a, s.inputs)
    student.backward(s.inputs, labels)
    optimiser.step()
    model, report = fade(student, s.inputs, repeats=1)
    del student, optimiser  # an output layer of 120 million weights (VGG) has three times that in here
    with torch.no_grad():
        reference = a.forward(s.inputs)
    assert not torch.equal(reference, s.logits), "one step of training changed no output"
    with tempfile.TemporaryDirectory() as folder:
        target = a.export(Path(folder) / "out")
        files = sorted(p.name for p in target.iterdir())
        loaded = a.load_exported(target)
        assert isinstance(loaded, nn.Module) and loaded is not model, "load_exported returned no model of its own"
        theirs, ours = loaded.state_dict(), model.state_dict()
        assert report.keys_equal and set(theirs) == set(ours), "the state dict's keys differ"
        wrong = [k for k in ours if not torch.equal(theirs[k], ours[k])]
        assert not wrong, f"{len(wrong)} tensors were read back with other values: {wrong[:3]}"
        for module in loaded.modules():
            module.training = False
        # Same numbers in memory of its own: kernels round differently where a file's mapping is not aligned.
        for p in [*loaded.parameters(), *loaded.buffers()]:
            p.data = p.data.clone()
        # While the folder is there: a model that reads colours finds them in it.
        with torch.no_grad():
            logits = a.around(loaded).forward(s.inputs)
    assert torch.equal(logits, reference), f"outputs differ by up to {(logits - reference).abs().max():.1e}"
    return ", ".join(files)


__all__ = ["distillation", "export", "norm_gradients"]
