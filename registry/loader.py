"""Finds the plugins among the installed distributions and loads them one by one.

pluggy's own loader stops at the first entry point that fails. Here each plugin is loaded, validated and
called by itself, so that one broken package costs its own backbones and nothing else.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pluggy

from .errors import DuplicateBackboneError, PluginError, closest
from .foreign import PLUGIN_ERRORS, foreign_code
from .hooks import ENTRY_POINT_GROUP, HOOK_NAMES, PROJECT_NAME, PluginHooks

OWN_DISTRIBUTION = "mdpd-plugins"
ONLY, DISABLE = "MDPD_ONLY_PLUGINS", "MDPD_DISABLE_PLUGINS"


_ENTRY_POINT_VALUE = re.compile(r"\s*[\w.]+\s*(:\s*[\w.]+\s*)?(\[.*\])?\s*")


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that was set aside: which one, the reason in one line, and the whole traceback.

    unfinished: it was not loaded, because a load of it before never came back.
    """

    plugin: str
    distribution: str
    reason: str
    traceback: str
    version: str = ""
    unfinished: bool = False

    def __str__(self) -> str:
        package = f"{self.distribution} {self.version}".strip() or "an unnamed distribution"
        return f"plugin {self.plugin!r} of {package}: {self.reason}"


@dataclass(frozen=True)
class PluginInfo:
    """A plugin that works. module: what its entry point names; seconds: what loading it took."""

    plugin: str
    distribution: str
    version: str
    module: str
    backbones: int
    seconds: float


@dataclass(frozen=True)
class Candidate:
    """One entry point of the group, not yet loaded."""

    plugin: str
    distribution: str
    version: str
    entry_point: importlib.metadata.EntryPoint
    location: str = ""

    @property
    def key(self) -> str:
        """Unique among candidates: two distributions may both call their plugin 'vision'."""
        return f"{self.distribution}:{self.plugin}"

    def failure(self, reason: str, error: BaseException | None = None) -> PluginFailure:
        return PluginFailure(self.plugin, self.distribution, reason, format_error(error) if error else "", self.version)


def strict() -> bool:
    """Whether MDPD_STRICT_PLUGINS asks for failures to be fatal."""
    return os.environ.get("MDPD_STRICT_PLUGINS", "").strip().lower() in {"1", "true", "yes", "on"}


def describe_error(error: BaseException) -> str:
    """The exception's class and the first line of its message."""
    try:
        first = str(error).strip().splitlines()
    except Exception:  # its own __str__ fails
        first = []
    return printable(f"{type(error).__name__}: {first[0]}" if first else type(error).__name__)


def format_error(error: BaseException) -> str:
    """The whole traceback. Python itself says `<exception str() failed>` where an exception cannot be written."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return describe_error(error)


def printable(text: object) -> str:
    """`text` in characters that any terminal and encoding can take: the others as Python writes them in a string."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


@dataclass(frozen=True)
class Choice:
    """Which plugins the environment asks for, by name, distribution, or "distribution:name".

    Attributes:
        only: MDPD_ONLY_PLUGINS; None where it is not set: all. disabled: MDPD_DISABLE_PLUGINS.
    """

    only: frozenset[str] | None
    disabled: frozenset[str]

    @classmethod
    def from_environment(cls) -> Choice:
        """What both variables say; names are between commas."""
        only, disabled = (os.environ.get(name) for name in (ONLY, DISABLE))
        return cls(_names(only) if only is not None and only.strip() else None, _names(disabled or ""))

    def turned_off(self, candidate: Candidate) -> str:
        """The variable that keeps a plugin out, as it was set, or ""."""
        called = {candidate.plugin, candidate.distribution, candidate.key}
        if self.only is not None and not self.only & called:
            return f"{ONLY}={','.join(sorted(self.only))}"
        return f"{DISABLE}={','.join(sorted(self.disabled))}" if self.disabled & called else ""

    def unknown(self, candidates: list[Candidate]) -> list[str]:
        """The names that no installed plugin or distribution has."""
        known = {name for c in candidates for name in (c.plugin, c.distribution, c.key)}
        return sorted((self.disabled | (self.only or frozenset())) - known)


def _names(text: str) -> frozenset[str]:
    return frozenset(name for part in text.split(",") if (name := part.strip()))


def find_candidates() -> tuple[list[Candidate], list[PluginFailure]]:
    """Every entry point of the group, the project's own first and the others by distribution name.

    The order is fixed so that a duplicate name is always charged to the same plugin, and never to a
    built-in one. Metadata that cannot be read is a failure of that distribution only.
    """
    found: dict[str, list[Candidate]] = {}
    failures: list[PluginFailure] = []
    first: dict[str, tuple[str, str]] = {}  # version and folder of the one that is used
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except OSError:
            continue
        except UnicodeDecodeError as error:
            if ENTRY_POINT_GROUP.encode() in error.object:
                reason = f"its entry points cannot be read: {describe_error(error)}"
                failures.append(PluginFailure("?", printable(_folder_of(distribution)), reason, ""))
            continue
        if ENTRY_POINT_GROUP not in text:
            continue
        name, version = "", ""
        try:
            name, version = printable(distribution.metadata["Name"] or ""), printable(distribution.version or "")
            entry_points = [e for e in distribution.entry_points if e.group == ENTRY_POINT_GROUP]
        except PLUGIN_ERRORS as error:
            reason = f"its metadata cannot be read: {describe_error(error)}"
            failures.append(PluginFailure("?", name, reason, format_error(error), version))
            continue
        canonical = re.sub(r"[-_.]+", "-", name).lower()
        location = str(distribution.locate_file(""))
        candidates = [Candidate(printable(e.name), name, version, e, location) for e in entry_points]
        if canonical not in found:
            found[canonical], first[canonical] = candidates, (version, location)
        elif version != first[canonical][0]:
            # The import system takes whatever comes first on sys.path, so the second never runs.
            used, folder = first[canonical]
            failures.extend(
                c.failure(
                    f"this version, in {location}, is shadowed: version {used} of {name}, in "
                    f"{folder}, comes first on sys.path and is the one that is used; remove one with "
                    f"`pip uninstall {name}`"
                )
                for c in candidates
            )
    ordered = sorted(found, key=lambda canonical: (canonical != OWN_DISTRIBUTION, canonical))
    return [c for canonical in ordered for c in sorted(found[canonical], key=lambda c: c.plugin)], failures


def _folder_of(distribution: importlib.metadata.Distribution) -> str:
    # The metadata's own folder says more than nothing where the name in it cannot be trusted.
    return os.path.basename(str(getattr(distribution, "_path", "?")))


class Loader:
    """Loads candidates into a pluggy manager and calls their hooks one plugin at a time."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(PROJECT_NAME)
        self.manager.add_hookspecs(PluginHooks)
        self.candidates: dict[str, Candidate] = {}
        self.failures: list[PluginFailure] = []

    def load(self, candidate: Candidate) -> bool:
        """Import and validate one plugin. False, and a failure kept, when it cannot be used."""
        value = candidate.entry_point.value
        try:
            if not _ENTRY_POINT_VALUE.fullmatch(value):
                raise PluginError(f"its entry point {value!r} is neither 'module' nor 'module:attribute'")
            with foreign_code(loading=True):
                plugin = candidate.entry_point.load()
        except PluginError as error:
            self.set_aside(candidate, str(error), error)
            return False
        except PLUGIN_ERRORS as error:
            reason = f"it cannot be imported: {describe_error(error)}"
            if isinstance(error, ModuleNotFoundError) and error.name:
                own_module = value.partition(":")[0].strip()
                if not (own_module == error.name or own_module.startswith(error.name + ".")):
                    reason = f"it needs the package {error.name!r}, which is not installed"
            self.set_aside(candidate, reason, error)
            return False
        try:
            # inspect.signature, called by pluggy, may run the plugin's own descriptors.
            with foreign_code(loading=True):
                if plugin is None or self.manager.register(plugin, name=candidate.key) is None:
                    raise PluginError(f"its entry point {candidate.entry_point.value!r} names {plugin!r}")
                self._check_hooks(plugin, candidate)
        except PLUGIN_ERRORS as error:
            reason = str(error) if isinstance(error, PluginError) else _signature_reason(error)
            self.set_aside(candidate, reason, error)
            return False
        self.candidates[candidate.key] = candidate
        return True

    def _check_hooks(self, plugin: Any, candidate: Candidate) -> None:
        implementations = [
            (caller, impl)
            for caller in self.manager.get_hookcallers(plugin) or []
            for impl in caller.get_hookimpls()
            if impl.plugin is plugin
        ]
        if not implementations:
            raise PluginError(
                f"{candidate.entry_point.value!r} implements no hook; decorate one of "
                f"{', '.join(HOOK_NAMES)} with @hookimpl of mdpd_plugins.registry"
            )
        for caller, impl in implementations:
            if not caller.has_spec():
                if impl.optionalhook:
                    continue
                hint = closest(caller.name, HOOK_NAMES)
                raise PluginError(f"it implements an unknown hook {caller.name!r}; {hint}")
            if impl.wrapper or impl.hookwrapper:
                raise PluginError(
                    f"its hook {caller.name!r} is a wrapper; each plugin is called by itself here, so that a "
                    "failure stays its own, and a wrapper has nothing to wrap"
                )
            if caller.spec is not None and tuple(impl.argnames) != tuple(caller.spec.argnames):
                expected = ", ".join(caller.spec.argnames)
                raise PluginError(
                    f"its hook {caller.name!r} has the wrong signature: it takes "
                    f"({', '.join(impl.argnames)}), and must take ({expected})"
                )

    def call(self, hook: str, function: Callable[[Candidate, Callable[..., Any]], Any], *, last_first: bool) -> Any:
        """Call ``function(candidate, implementation)`` for each plugin until one gives something but None."""
        implementations = getattr(self.manager.hook, hook).get_hookimpls()
        for impl in reversed(implementations) if last_first else implementations:
            result = function(self.candidates[impl.plugin_name], impl.function)
            if result is not None:
                return result
        return None

    def leave_out(self, candidate: Candidate, reason: str) -> None:
        """Keep why a plugin is not even loaded. Raises instead when MDPD_STRICT_PLUGINS is set."""
        failure = replace(candidate.failure(reason), unfinished=True)
        self.failures.append(failure)
        raise_if_strict(failure, PluginError(reason))

    def set_aside(self, candidate: Candidate, reason: str, error: BaseException) -> PluginFailure:
        """Drop a plugin and keep why. Raises instead when MDPD_STRICT_PLUGINS is set."""
        failure = candidate.failure(reason, error)
        self.failures.append(failure)
        self.candidates.pop(candidate.key, None)
        plugin = self.manager.get_plugin(candidate.key)
        if plugin is not None:
            self.manager.unregister(plugin, name=candidate.key)
        raise_if_strict(failure, error)
        return failure


def raise_if_strict(failure: PluginFailure, error: BaseException) -> None:
    """Under MDPD_STRICT_PLUGINS=1: raise the failure as a PluginError, or as a DuplicateBackboneError."""
    if not strict():
        return
    kind = DuplicateBackboneError if isinstance(error, DuplicateBackboneError) else PluginError
    raise kind(f"{failure} (fatal because MDPD_STRICT_PLUGINS is set)") from error


def _signature_reason(error: BaseException) -> str:
    if isinstance(error, pluggy.PluginValidationError):
        text = " ".join(str(error).split())
        return f"a hook of it has the wrong signature: {text}"
    return f"it cannot be registered: {describe_error(error)}"
