"""The hook specifications: the whole surface between this project and its plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from .environment_report import EnvironmentReport
    from .registration import Register

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
        that reason. ``register.unavailable(zoo, reason=..., fix=...)`` says that a whole zoo is not
        available here, so that asking for one of its backbones gives the fix and not "unknown name".
        """

    @hookspec
    def register_sources(self, register: Register) -> None:
        """Call ``register(SourceSpec(...))`` once for each type of labelled data, ``data.source.type``.

        As `register_backbones`: called once, all or none is kept, and `open` is a lazy string.
        """

    @hookspec(firstresult=True)
    def adapt_backbone(self, model: Any) -> Any:
        """Return an adapter for a live ``torch.nn.Module``, or None to leave it to another plugin.

        Plugins are asked from the last one loaded to the first, so that an installed plugin comes before
        the built-in zoos. Asked only for models whose spec names no adapter, or that have no spec.
        """

    @hookspec(firstresult=True)
    def load_export(self, folder: Path, record: Any) -> Any:
        """Load an exported folder with the library that its files are for, or return None.

        ``record`` is the folder's ``mdpd_plugins.exports.ExportRecord``; ``record.zoo`` says whose it is. The answer is
        a ``mdpd_plugins.exports.ExportedModel``. Without this hook a backbone is rebuilt by its registered name, and
        its adapter's `load_exported` reads the weights. What the hook raises is what the user sees.
        """

    @hookspec
    def check_environment(self, report: EnvironmentReport) -> None:
        """Tell `mdpd doctor` what is wrong, or worth knowing, on this machine.

        Use ``report.problem(topic, message, fix=...)``, ``report.note(...)`` and ``report.ok(...)``.
        """


HOOK_NAMES = tuple(name for name in vars(PluginHooks) if not name.startswith("_"))
