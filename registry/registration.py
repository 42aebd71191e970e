"""The `register` object that a plugin's `register_backbones` hook is called with."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import DuplicateBackboneError, PluginError
from .spec import BackboneSpec


@dataclass(frozen=True)
class UnavailableZoo:
    """A zoo that a plugin knows and that cannot be used here.

    reason says what is missing, fix is the command that gets it.
    """

    zoo: str
    reason: str
    fix: str


class Register:
    """Collects what one plugin registers. The catalogue takes it over only when the hook has returned."""

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin
        self._specs: dict[str, BackboneSpec] = {}
        self._unavailable: list[UnavailableZoo] = []
        self._open = True

    def __call__(self, spec: BackboneSpec) -> None:
        """Register one backbone.

        Raises PluginError for anything but a BackboneSpec, DuplicateBackboneError for a name twice.
        """
        self._check_open()
        if not isinstance(spec, BackboneSpec):
            raise PluginError(
                f"register() takes a BackboneSpec, got {type(spec).__name__} {str(spec)[:80]!r}; "
                "write register(BackboneSpec('zoo/model', build='package.module:function'))"
            )
        if spec.name in self._specs:
            raise DuplicateBackboneError(f"plugin {self._plugin!r} registers {spec.name!r} twice")
        self._specs[spec.name] = spec

    def unavailable(self, zoo: str, *, reason: str, fix: str) -> None:
        """Say that `zoo` cannot be had here. Asking for ``zoo/anything`` then shows `reason` and `fix`."""
        self._check_open()
        for name, value in (("zoo", zoo), ("reason", reason), ("fix", fix)):
            if not isinstance(value, str) or not value:
                raise PluginError(f"register.unavailable(): {name} must be a non-empty string, got {value!r}")
        self._unavailable.append(UnavailableZoo(zoo, reason, fix))

    def close(self) -> tuple[list[BackboneSpec], list[UnavailableZoo]]:
        """Take no more, and hand over what was registered."""
        self._open = False
        return list(self._specs.values()), list(self._unavailable)

    def _check_open(self) -> None:
        if not self._open:
            raise PluginError(
                f"plugin {self._plugin!r} called register() after its register_backbones hook had returned; "
                "register everything inside the hook"
            )
