"""The hook specifications: the whole surface between this project and its plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from .registration import Register
    from .report import EnvironmentReport

PROJECT_NAME = "mdpd"
ENTRY_POINT_GROUP = "mdpd.plugins"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


class PluginHooks:
    """Every hook a plugin may implement. All are optional, but a plugin without any is refused."""

    @hookspec
    def register_backbones(self, register: Register) -> None:
        """Call ``register(BackboneSpec(...))`` once for each backbone.

        Called once per process. Nothing of the plugin is kept if this raises: it registers all of its
        backbones or none. It must not import a framework; `build` and `adapter` are lazy strings for
        that reason. ``register.unavailable(zoo, reason=..., fix=...)`` says that a whole zoo cannot be
        had here, so that asking for one of its backbones gives the fix and not "unknown name".
        """

    @hookspec(firstresult=True)
    def adapt_backbone(self, model: Any) -> Any:
        """Return an adapter for a live ``torch.nn.Module``, or None to leave it to another plugin.

        Plugins are asked from the last one loaded to the first, so that an installed plugin comes before
        the built-in zoos. Asked only for models whose spec names no adapter, or that have no spec.
        """

    @hookspec
    def check_environment(self, report: EnvironmentReport) -> None:
        """Tell `mdpd doctor` what is wrong, or worth knowing, on this machine.

        Use ``report.problem(topic, message, fix=...)``, ``report.note(...)`` and ``report.ok(...)``.
        """


HOOK_NAMES = tuple(name for name in vars(PluginHooks) if not name.startswith("_"))
