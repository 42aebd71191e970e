"""The catalogue: every backbone that the installed plugins register."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from .attempts import Attempts
from .environment_report import EnvironmentReport
from .errors import (
    ConfigError,
    DuplicateBackboneError,
    MissingDependencyError,
    PluginError,
    UnknownBackboneError,
    closest,
)
from .foreign import PLUGIN_ERRORS, foreign_code
from .loader import (
    OWN_DISTRIBUTION,
    Candidate,
    Choice,
    Loader,
    PluginFailure,
    PluginInfo,
    describe_error,
    find_candidates,
    raise_if_strict,
)
from .registration import Register, UnavailableZoo
from .spec import MODALITIES, BackboneSpec, Registered, RegisteredSource, SourceSpec


class _HookError(Exception):
    """A plugin's hook raised; the cause is what."""


class Catalogue:
    """What is registered, by whom, and what was set aside. Made by `load_catalogue`."""

    def __init__(self) -> None:
        self._loader = Loader()
        self._backbones: dict[str, Registered] = {}
        self._sources: dict[str, RegisteredSource] = {}
        self._unavailable: dict[str, UnavailableZoo] = {}
        self._plugins: list[PluginInfo] = []
        self._turned_off: list[tuple[Candidate, str]] = []
        self._unknown_choice: list[str] = []
        self._load()

    # ---- queries

    @property
    def skipped(self) -> list[PluginFailure]:
        """The plugins that were set aside, in the order in which they failed."""
        return list(self._loader.failures)

    @property
    def plugins(self) -> list[PluginInfo]:
        """The plugins that work, in the order in which they were loaded."""
        return list(self._plugins)

    @property
    def turned_off(self) -> list[PluginFailure]:
        """The plugins that MDPD_DISABLE_PLUGINS or MDPD_ONLY_PLUGINS keeps out, with which of them says so."""
        return [candidate.failure(f"left out by {variable}") for candidate, variable in self._turned_off]

    @property
    def unknown_choice(self) -> list[str]:
        """The names in those variables that no installed plugin or distribution has."""
        return list(self._unknown_choice)

    @property
    def unavailable(self) -> list[UnavailableZoo]:
        """The zoos that a plugin knows and cannot offer here, with the way to get them."""
        return list(self._unavailable.values())

    @property
    def zoos(self) -> list[str]:
        """The zoos that have at least one backbone, sorted."""
        return sorted({registered.zoo for registered in self._backbones.values()})

    def __len__(self) -> int:
        return len(self._backbones)

    def __contains__(self, name: object) -> bool:
        return name in self._backbones

    def get(self, name: str) -> Registered:
        """The backbone of that name.

        Raises UnknownBackboneError with the closest names, or MissingDependencyError with the command to
        run when the name belongs to a zoo whose framework is not installed.
        """
        found = self._backbones.get(name)
        if found is not None:
            return found
        zoo = str(name).partition("/")[0]
        self._check_available(zoo, f"backbone {name!r}")
        raise UnknownBackboneError(
            f"no backbone is called {name!r}: {self._nearest(str(name))} "
            f"(`mdpd list-backbones` shows all {len(self)}){self._skipped_hint()}"
        )

    def select(
        self,
        zoo: str | None = None,
        modality: str | None = None,
        *,
        family: str | None = None,
        search: str | None = None,
    ) -> list[Registered]:
        """The backbones that meet every condition given; all of them by default. Sorted by name.

        family and search do not tell upper from lower case. search: words that all stand somewhere in the
        name, family or summary.

        Raises UnknownBackboneError for a zoo or family that nobody registers, MissingDependencyError for one whose
        framework is not installed, ConfigError for a modality that does not exist.
        """
        if modality is not None and modality not in MODALITIES:
            raise ConfigError(f"there is no modality {modality!r}; {closest(modality, MODALITIES)}")
        if zoo is not None and zoo not in self.zoos:
            self._check_available(zoo, f"zoo {zoo!r}")
            known = [*self.zoos, *self._unavailable]
            raise UnknownBackboneError(
                f"no plugin registers a zoo called {zoo!r}: {closest(zoo, known)}{self._skipped_hint()}"
            )
        chosen = [
            registered
            for registered in self._backbones.values()
            if (zoo is None or registered.zoo == zoo) and (modality is None or registered.spec.modality == modality)
        ]
        if family is not None:
            families = {registered.spec.family for registered in chosen} - {""}
            if family.casefold() not in {known.casefold() for known in families}:
                raise UnknownBackboneError(f"no backbone is of family {family!r}: {closest(family, families)}")
            chosen = [r for r in chosen if r.spec.family.casefold() == family.casefold()]
        for word in (search or "").casefold().split():
            chosen = [r for r in chosen if word in f"{r.name} {r.spec.family} {r.spec.summary}".casefold()]
        return sorted(chosen, key=lambda registered: registered.name)

    @property
    def sources(self) -> dict[str, RegisteredSource]:
        """The types of data that plugins register, by name, sorted."""
        return dict(sorted(self._sources.items()))

    def source(self, name: str) -> RegisteredSource:
        """The type of data of that name. Raises ConfigError with the closest names."""
        if name not in self._sources:
            raise ConfigError(f"data type {name!r} does not exist: {closest(str(name), self._sources)}")
        return self._sources[name]

    def load_export(self, folder: Any, record: Any) -> Any:
        """What the first plugin that knows an exported folder loads it as, or None. What it raises is raised."""

        def ask(_: Candidate, hook: Callable[..., Any]) -> Any:
            with foreign_code():
                return hook(folder, record)

        return self._loader.call("load_export", ask, last_first=True)

    def adapt(self, model: Any, kind: type = object) -> Any:
        """The first adapter that a plugin's `adapt_backbone` gives for a live model, or None.

        A plugin that raises, or returns anything but a `kind`, is passed over with a warning, and the next is asked.
        """

        def ask(candidate: Candidate, hook: Callable[..., Any]) -> Any:
            try:
                with foreign_code():
                    adapter = hook(model)
                if adapter is not None and not isinstance(adapter, kind):
                    raise PluginError(f"it returned {type(adapter).__name__}; {kind.__name__} or None was expected")
                return adapter
            except PLUGIN_ERRORS as error:
                self._hook_failed(candidate, "adapt_backbone", error)
                return None

        return self._loader.call("adapt_backbone", ask, last_first=True)

    def check_environment(self, report: EnvironmentReport) -> None:
        """Let every plugin add to the report. A plugin that raises becomes an entry of `skipped`."""
        asked: dict[str, Candidate] = {}

        def add(candidate: Candidate, function: Callable[[], Any]) -> None:
            report.plugin = candidate.plugin
            try:
                with foreign_code():
                    function()
            except PLUGIN_ERRORS as error:
                self._hook_failed(candidate, "check_environment", error)
            finally:
                report.plugin = ""

        def ask(candidate: Candidate, hook: Callable[..., Any]) -> None:
            asked[candidate.plugin] = candidate
            add(candidate, lambda: hook(report))

        self._loader.call("check_environment", ask, last_first=False)
        for plugin, function in report.tried_imports():
            add(asked[plugin], function)

    # ---- loading

    def _load(self) -> None:
        candidates, failures = find_candidates()
        self._loader.failures.extend(failures)
        for failure in failures:
            raise_if_strict(failure, PluginError(failure.reason))
        choice, attempts = Choice.from_environment(), Attempts()
        self._unknown_choice = choice.unknown(candidates)
        for candidate in candidates:
            if variable := choice.turned_off(candidate):
                self._turned_off.append((candidate, variable))
            elif candidate.distribution == OWN_DISTRIBUTION:
                self._load_one(candidate)
            elif reason := attempts.unfinished(*_identity(candidate)):
                self._loader.leave_out(candidate, reason)
            else:
                with attempts.loading(*_identity(candidate)):
                    self._load_one(candidate)

    def _load_one(self, candidate: Candidate) -> None:
        start = time.perf_counter()
        if self._loader.load(candidate):
            self._register(candidate, start)

    def _register(self, candidate: Candidate, start: float) -> None:
        try:
            specs, unavailable = self._collect(candidate, "register_backbones", BackboneSpec)
            sources, _ = self._collect(candidate, "register_sources", SourceSpec)
            self._check_duplicates(candidate, "backbone", specs, self._backbones)
            self._check_duplicates(candidate, "data type", sources, self._sources)
        except _HookError as failed:
            error = failed.__cause__ or failed
            reason = f"it raised in {failed}: {describe_error(error)}"
            if isinstance(error, DuplicateBackboneError):
                reason = str(error)
            self._loader.set_aside(candidate, reason, error)
            return
        except DuplicateBackboneError as error:
            self._loader.set_aside(candidate, str(error), error)
            return
        # Only now, with every spec known to be good: a plugin registers all that it has or nothing.
        about = (candidate.plugin, candidate.distribution, candidate.version)
        self._backbones.update({spec.name: Registered(spec, *about) for spec in specs})
        self._sources.update({spec.name: RegisteredSource(spec, *about) for spec in sources})
        for entry in unavailable:
            self._unavailable.setdefault(entry.zoo, entry)
        seconds = time.perf_counter() - start
        self._plugins.append(PluginInfo(*about, candidate.entry_point.value, len(specs), seconds))

    def _collect(self, candidate: Candidate, hook: str, kind: Any) -> tuple[list[Any], list[UnavailableZoo]]:
        register: Register[Any] = Register(candidate.plugin, hook, kind)

        def run(owner: Candidate, function: Callable[..., Any]) -> None:
            if owner is candidate:
                with foreign_code(loading=True):
                    function(register)

        try:
            self._loader.call(hook, run, last_first=False)
        except PLUGIN_ERRORS as error:
            raise _HookError(hook) from error
        finally:
            found = register.close()
        return found

    def _check_duplicates(self, candidate: Candidate, what: str, specs: list[Any], known: Mapping[str, Any]) -> None:
        for spec in specs:
            other = known.get(spec.name)
            if other is not None:
                raise DuplicateBackboneError(
                    f"{what} {spec.name!r} is registered by plugin {other.provided_by!r} of "
                    f"{other.distribution or 'an unnamed distribution'} and again by plugin "
                    f"{candidate.plugin!r} of {candidate.distribution or 'an unnamed distribution'}; "
                    "rename one of them or uninstall one of the two packages"
                )

    # ---- messages

    def _hook_failed(self, candidate: Candidate, hook: str, error: BaseException) -> None:
        """Keep a failure of a later hook. The plugin's backbones stay: they were registered correctly."""
        failure = candidate.failure(f"it raised in {hook}: {describe_error(error)}", error)
        known = {(f.plugin, f.distribution, f.reason) for f in self._loader.failures}
        if (failure.plugin, failure.distribution, failure.reason) not in known:
            self._loader.failures.append(failure)
            warnings.warn(f"{failure}; it is passed over", RuntimeWarning, stacklevel=4)
        raise_if_strict(failure, error)

    def _check_available(self, zoo: str, asked: str) -> None:
        entry = self._unavailable.get(zoo)
        if entry is not None and zoo not in self.zoos:
            raise MissingDependencyError(f"{asked} is not available: {entry.reason}; run: {entry.fix}")

    def _nearest(self, name: str) -> str:
        folded = name.casefold()
        same = [n for n in self._backbones if folded in (n.casefold(), n.partition("/")[2].casefold())]
        if same:
            return "did you mean " + " or ".join(repr(n) for n in sorted(same)) + "?"
        # A name cut short says more than one that is merely alike.
        longer = sorted(n for n in self._backbones if n.casefold().startswith(folded)) if len(folded) > 3 else []
        if 0 < len(longer) <= 3:
            return "did you mean " + " or ".join(repr(n) for n in longer) + "?"
        return closest(name, self._backbones)

    def _skipped_hint(self) -> str:
        if self._turned_off:
            names = ", ".join(sorted({candidate.plugin for candidate, _ in self._turned_off}))
            variables = " and ".join(sorted({variable for _, variable in self._turned_off}))
            return f". Left out by {variables}: {names}"
        if not self._plugins and not self._loader.failures:
            return ". No plugin is installed, not even the built-in ones: run `pip install -e .` or reinstall"
        if not self._loader.failures:
            return ""
        names = ", ".join(sorted({f.plugin for f in self._loader.failures}))
        return f". Skipped because they failed: {names}; `mdpd doctor` shows why"


def _identity(candidate: Candidate) -> tuple[str, ...]:
    # With the version and the place, so that another one of them is tried.
    about = (candidate.plugin, candidate.distribution, candidate.version)
    return (*about, candidate.entry_point.value, candidate.location)


_catalogue: Catalogue | None = None


def load_catalogue(*, reload: bool = False) -> Catalogue:
    """The catalogue of this process, made on first use and kept. reload=True reads the plugins again.

    Raises nothing for a broken plugin (see `Catalogue.skipped`) unless MDPD_STRICT_PLUGINS=1, which makes
    the first failure a PluginError, or the plugin's own MDPDError.
    """
    global _catalogue
    if _catalogue is None or reload:
        _catalogue = Catalogue()
    return _catalogue
