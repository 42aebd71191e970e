"""Check of the recipes that configurations name: each trains a step on a backbone, fades and exports."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from mdpd_plugins.engine import Distiller, Settings, fade
from mdpd_plugins.registry.errors import CapabilityError
from mdpd_plugins.tasks import Prediction
from mdpd_plugins.testing.outcome import NotApplicable
from mdpd_plugins.testing.specimen import NUM_CLASSES, Specimen

RECIPES = ("mdpd", "mdpd_low_rank")


def recipes(s: Specimen) -> str:
    """Each shipped recipe trains one step, fades to the plain architecture and exports."""
    said, refused = [], []
    for recipe in RECIPES:
        try:
            said.append(f"{recipe}: {_one_step(s, recipe)}")
        except CapabilityError as error:  # by name, with the recipe that fits
            refused.append(str(error))
    if refused:
        assert said, f"no recipe fits: {refused[0]}"
        raise NotApplicable(f"{'; '.join(said)}; {refused[0]}")
    return "; ".join(said)


def _one_step(s: Specimen, recipe: str) -> str:
    a = s.fresh()
    keys, labels = set(a.model.state_dict()), torch.arange(len(next(iter(s.inputs.values())))) % NUM_CLASSES
    width = a.dims[-1]
    reduction = max(r for r in range(1, width + 1) if width % r == 0 and (width // r >= 8 or r == 1))
    small = {"reduction": reduction, "bottleneck": 8, "backbone_every": 1, "warmup": 0.0, "rank": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = Settings.from_dict({"method": recipe, "shallow": [0], "deep": [], **small})
        student = Distiller(a, Prediction("single", [str(i) for i in range(NUM_CLASSES)]), settings, max_steps=2)
    optimiser = torch.optim.Adagrad([*student.side_parameters(), *student.trainable.values()], lr=1e-3)
    losses = student.backward(s.inputs, labels)
    optimiser.step()
    assert all(bool(torch.isfinite(v)) for v in losses.values()), f"{recipe}: a loss is not finite"
    model, report = fade(student, s.inputs, repeats=1)
    assert set(model.state_dict()) == keys and report.keys_equal, f"{recipe}: the faded model has other keys"
    with tempfile.TemporaryDirectory() as folder:
        a.export(Path(folder) / "out")
    return f"{report.merged} updates merged" if report.merged else "faded"


__all__ = ["recipes"]
