"""What exists: the hook specifications, the backbone specification, the plugin loader and the catalogue.

Import it as ``mdpd_plugins.registry``. Only pluggy and the standard library are used here, so that
listing every backbone loads no framework. A plugin needs two names of it::

    from mdpd_plugins.registry import BackboneSpec, hookimpl

    @hookimpl
    def register_backbones(register):
        register(BackboneSpec("acme/tiny", build="acme_models:build_tiny"))

and one entry point in the group ``mdpd.plugins`` that names its module.
"""

if __name__ == "registry":
    # A top-level `registry` is shadowed by any registry.py in a user's folder, and loading this folder
    # under two names would give two catalogues and two sets of error classes.
    raise ImportError(
        "this folder is the package 'mdpd_plugins.registry', not a package called 'registry': "
        "write `import mdpd_plugins.registry` (after `pip install -e .` in the project's folder)"
    )

from .catalogue import Catalogue, load_catalogue
from .environment_report import EnvironmentReport, Finding
from .errors import (
    BackboneSpecError,
    CapabilityError,
    CheckpointError,
    ConfigError,
    DataError,
    DataWarning,
    DuplicateBackboneError,
    MDPDError,
    MissingDependencyError,
    OutOfMemory,
    PluginError,
    UnknownBackboneError,
    UsageError,
    closest,
)
from .hooks import ENTRY_POINT_GROUP, PROJECT_NAME, hookimpl, hookspec
from .loader import PluginFailure, PluginInfo
from .references import resolve
from .registration import Register, UnavailableZoo
from .spec import MODALITIES, BackboneSpec, Registered, RegisteredSource, SourceSpec

__all__ = [
    "ENTRY_POINT_GROUP",
    "MODALITIES",
    "PROJECT_NAME",
    "BackboneSpec",
    "BackboneSpecError",
    "CapabilityError",
    "Catalogue",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DataWarning",
    "DuplicateBackboneError",
    "EnvironmentReport",
    "Finding",
    "MDPDError",
    "MissingDependencyError",
    "OutOfMemory",
    "PluginError",
    "PluginFailure",
    "PluginInfo",
    "Register",
    "Registered",
    "RegisteredSource",
    "SourceSpec",
    "UnavailableZoo",
    "UnknownBackboneError",
    "UsageError",
    "closest",
    "hookimpl",
    "hookspec",
    "load_catalogue",
    "resolve",
]
