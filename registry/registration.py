"""The `register` object that a plugin's `register_backbones` and `register_sources` hooks are called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from .errors import DuplicateBackboneError, PluginError
from .spec import BackboneSpec, SourceSpec

Spec = TypeVar("Spec", BackboneSpec, SourceSpec)
EXAMPLES = {
    BackboneSpec: "BackboneSpec('zoo/model', build='package.module:function')",
    SourceSpec: "SourceSpec('type', open='package.module:function')",
}


@dataclass(frozen=True)
class UnavailableZoo:
    """A zoo that a plugin knows and that cannot be used here.

    reason says what is missing, fix is the command that gets it.
    """

    zoo: str
    reason: str
    fix: str


class Register(Generic[Spec]):
    """Collects what one plugin registers. The catalogue takes it over only when the hook has returned.

    Args:
        plugin: name of the plugin, for messages. hook: the hook that is called. kind: what it registers.
    """

    def __init__(self, plugin: str, hook: str, kind: type[Spec]) -> None:
        self._plugin, self._hook = plugin, hook
        self._kind: type[Spec] = kind
        self._specs: dict[str, Spec] = {}
        self._unavailable: list[UnavailableZoo] = []
        self._open = True

    def __call__(self, spec: Spec) -> None:
        """Register one backbone, or one type of data.

        Raises PluginError for anything but a spec of that kind, DuplicateBackboneError for a name twice.
        """
        self._check_open()
        if not isinstance(spec, self._kind):
            raise PluginError(
                f"register() takes a {self._kind.__name__}, got {type(spec).__name__} {str(spec)[:80]!r}; "
                f"write register({EXAMPLES[self._kind]})"
            )
        if spec.name in self._specs:
            raise DuplicateBackboneError(f"plugin {self._plugin!r} registers {spec.name!r} twice")
        self._specs[spec.name] = spec

    def unavailable(self, zoo: str, *, reason: str, fix: str) -> None:
        """Say that `zoo` is not available here. Asking for ``zoo/anything`` then shows `reason` and `fix`."""
        self._check_open()
        for name, value in (("zoo", zoo), ("reason", reason), ("fix", fix)):
            if not isinstance(value, str) or not value:
                raise PluginError(f"register.unavailable(): {name} must be a non-empty string, got {value!r}")
        self._unavailable.append(UnavailableZoo(zoo, reason, fix))

    def close(self) -> tuple[list[Spec], list[UnavailableZoo]]:
        """Take no more, and hand over what was registered."""
        self._open = False
        return list(self._specs.values()), list(self._unavailable)

    def _check_open(self) -> None:
        if not self._open:
            raise PluginError(
                f"plugin {self._plugin!r} called register() after its {self._hook} hook had returned; "
                "register everything inside the hook"
            )
