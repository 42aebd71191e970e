"""MDPD plugins: Masked Dual Path Distillation for the backbones of any model zoo.

    import mdpd_plugins as mdpd

    adapter = mdpd.adapt(model)  # or mdpd.create("huggingface/minilm-l6", num_classes=5)
    student = mdpd.distill(adapter, steps=300)
    optimizer = torch.optim.AdamW(student.parameter_groups())
    for inputs, labels in loader:
        student.backward(inputs, labels)
        optimizer.step()
        optimizer.zero_grad()
    model, report = mdpd.fade(student)
    mdpd.export(adapter, "out")

Names are loaded when they are first used, so importing this package loads no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdpd_plugins.adapters import Adapter as Adapter
    from mdpd_plugins.adapters import adapt as adapt
    from mdpd_plugins.adapters import build_backbone as create
    from mdpd_plugins.api import distill as distill
    from mdpd_plugins.api import export as export
    from mdpd_plugins.api import load as load
    from mdpd_plugins.engine import METHODS as METHODS
    from mdpd_plugins.engine import Distiller as Distiller
    from mdpd_plugins.engine import FadingReport as FadingReport
    from mdpd_plugins.engine import NonFiniteLossError as NonFiniteLossError
    from mdpd_plugins.engine import Rates as Rates
    from mdpd_plugins.engine import Settings as Settings
    from mdpd_plugins.engine import Taught as Taught
    from mdpd_plugins.engine import fade as fade
    from mdpd_plugins.registry import MDPDError as MDPDError

# Name -> (module, its name there).
_PUBLIC = {
    "adapt": ("mdpd_plugins.adapters", "adapt"),
    "create": ("mdpd_plugins.adapters", "build_backbone"),
    "distill": ("mdpd_plugins.api", "distill"),
    "fade": ("mdpd_plugins.engine", "fade"),
    "export": ("mdpd_plugins.api", "export"),
    "load": ("mdpd_plugins.api", "load"),
    "Adapter": ("mdpd_plugins.adapters", "Adapter"),
    "Distiller": ("mdpd_plugins.engine", "Distiller"),
    "FadingReport": ("mdpd_plugins.engine", "FadingReport"),
    "Rates": ("mdpd_plugins.engine", "Rates"),
    "Settings": ("mdpd_plugins.engine", "Settings"),
    "METHODS": ("mdpd_plugins.engine", "METHODS"),
    "Taught": ("mdpd_plugins.engine", "Taught"),
    "MDPDError": ("mdpd_plugins.registry", "MDPDError"),
    "NonFiniteLossError": ("mdpd_plugins.engine", "NonFiniteLossError"),
}

__all__ = [  # noqa: F822 (each is made by __getattr__)
    "METHODS",
    "Adapter",
    "Distiller",
    "FadingReport",
    "MDPDError",
    "NonFiniteLossError",
    "Rates",
    "Settings",
    "Taught",
    "__version__",
    "adapt",
    "create",
    "distill",
    "export",
    "fade",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, attribute = _PUBLIC[name]
        return getattr(import_module(module), attribute)
    if name == "__version__":
        # Reading the installed metadata takes longer than importing the package, so it waits until asked for.
        from importlib.metadata import version

        return version("mdpd-plugins")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
