"""Names of what a sweep compares: rows of the engine's METHODS, FixMatch, and recipes under a label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mdpd_plugins.engine import METHODS
from mdpd_plugins.registry.errors import ConfigError, closest
from tools.compare.fixmatch import NAME

# A comma that another key follows; those inside a value, such as distill.shallow=[0,1], are the value's.
BETWEEN = re.compile(r",(?=[A-Za-z_][\w.]*=)")


@dataclass(frozen=True)
class Method:
    """A name in tables and plots, and the `--cfg-options` that make it.

    Attributes:
        label: the name. overrides: KEY=VALUE pairs, `distill.method` first.
    """

    label: str
    overrides: tuple[str, ...]

    @property
    def text(self) -> str:
        """What `read_method` reads this method from."""
        if self.label in METHODS and _named(self.label) == self.overrides:
            return self.label
        recipe = ",".join(pair.removeprefix("distill.") if i == 0 else pair for i, pair in enumerate(self.overrides))
        return f"{self.label}:{recipe}"


def read_method(text: str) -> Method:
    """A method from what was typed: `name`, or `label:method=NAME,distill.KEY=VALUE,optim.KEY=VALUE,...`.

    Raises:
        ConfigError: an unknown name, a recipe without the method it starts from, or no KEY=VALUE.
    """
    label, colon, recipe = text.partition(":")
    if not colon:
        return Method(label, _named(label))
    pairs = [pair.partition("=") for pair in BETWEEN.split(recipe)]
    given = {key: value for key, _, value in pairs}
    if not label or any(not (key and equals and value) for key, equals, value in pairs):
        raise ConfigError(f"method {text!r} cannot be read: label:method=mdpd,distill.backbone_every=1 is meant")
    if "method" not in given:
        raise ConfigError(f"method {text!r} does not say what it starts from: add method=NAME, such as method=mdpd")
    base = _named(given.pop("method"))
    if label in METHODS:
        raise ConfigError(f"method {text!r}: {label!r} is the name of another method, so choose another label")
    # A recipe's own key wins over the one that its base brings along.
    kept = [pair for pair in base if pair.partition("=")[0] not in given]
    return Method(label, (*kept, *(f"{key}={value}" for key, value in given.items())))


def read_methods(texts: Sequence[str]) -> list[Method]:
    """Several methods, each under a label of its own.

    Raises:
        ConfigError: as `read_method`, and a label that is given twice.
    """
    methods = [read_method(text) for text in texts]
    labels = [method.label for method in methods]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"two methods are called {label!r}: give each a label of its own")
    return methods


def _named(name: str) -> tuple[str, ...]:
    known = [*METHODS, NAME]
    if name not in known:
        raise ConfigError(f"method {name!r} is not known: {closest(name, known)}")
    return (f"distill.method={name}",)


__all__ = ["Method", "read_method", "read_methods"]
