"""mmengine's visualiser backends (TensorBoard, Weights & Biases, ...), checked before a run has written anything."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from mmengine.registry import VISBACKENDS, VISUALIZERS

from mdpd_plugins.registry.errors import ConfigError, MissingDependencyError, closest

# What mmengine's backends import when the first value comes, after the run's folder has been made.
PACKAGES = {
    "TensorboardVisBackend": "tensorboard",
    "WandbVisBackend": "wandb",
    "MLflowVisBackend": "mlflow",
    "ClearMLVisBackend": "clearml",
    "NeptuneVisBackend": "neptune",
    "DVCLiveVisBackend": "dvclive",
    "AimVisBackend": "aim",
}


def check_visualizer(visualizer: Mapping[str, Any] | None) -> None:
    """Check the `visualizer` section of a configuration; nothing is started and nothing is written.

    Raises:
        ConfigError: its type, or that of a backend, is missing or not known, or does not take what is given.
        MissingDependencyError: a backend's package is not installed.
    """
    if not visualizer:
        return
    _known("visualizer", visualizer, VISUALIZERS)
    for place, backend in enumerate(visualizer.get("vis_backends") or ()):
        name = _known(f"visualizer.vis_backends[{place}]", backend, VISBACKENDS)
        package = PACKAGES.get(name)
        if package and find_spec(package) is None:
            raise MissingDependencyError(f"{name} needs the package {package}: pip install {package}")


def _known(where: str, section: Any, registry) -> str:
    kind = section.get("type") if isinstance(section, Mapping) else None
    built = registry.get(kind) if isinstance(kind, str) else kind  # mmengine takes the class itself as well
    if not inspect.isclass(built):
        names = list(registry.module_dict)
        raise ConfigError(f"{where}.type={kind!r} is not known to mmengine: {closest(str(kind), names)}")
    try:
        inspect.signature(built).bind_partial(**{k: v for k, v in section.items() if k != "type"})
    except TypeError as error:
        raise ConfigError(f"{where}: {built.__name__} does not take this: {error}") from error
    return built.__name__


__all__ = ["check_visualizer"]
