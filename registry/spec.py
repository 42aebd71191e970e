"""What a plugin says about one backbone, and what the registry adds to it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import BackboneSpecError, MissingDependencyError, closest
from .references import REFERENCE, resolve

MODALITIES = ("image", "text", "image-text")

_ZOO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[^\s/]+)+")


_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class BackboneSpec:
    """One backbone that exists, described without importing the framework it comes from.

    name: ``<zoo>/<model>``, the name users type.
    build: ``"package.module:function"``. Called as ``function(pretrained=..., num_classes=..., **options)``
        and returns a ``torch.nn.Module``. If the function has a parameter called `name`, it also gets the
        spec's name, so that one function can serve a whole zoo.
    zoo: defaults to the part of `name` before the first slash, and must equal it.
    family: the architecture family, free text ("ViT", "ResNet"); used by listings only.
    modality: "image", "text" or "image-text".
    summary: one line for people.
    requires: import names of the top-level packages that `build` needs, e.g. ``("transformers",)``.
    adapter: ``"package.module:Class"``, or None for the general structural adapter.
    small: ``"package.module:function"``, or None. Called as ``function(name)`` and returns options of `build`
        that make the backbone small enough for `mdpd verify`: label -> options, one entry for each part that is
        a backbone of its own (two towers), otherwise a single one labelled "".
    load_with: what to tell a user who asks how to load an export, such as ``"acme.load(FOLDER)"``; "" for what the
        adapter says.

    Raises BackboneSpecError, which names the field, what it got and what it takes.
    """

    name: str
    build: str
    zoo: str = ""
    family: str = ""
    modality: str = "image"
    summary: str = ""
    requires: tuple[str, ...] = ()
    adapter: str | None = None
    small: str | None = None
    load_with: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "build", "zoo", "family", "modality", "summary", "load_with"):
            self._check_text(field, getattr(self, field))
        if not _NAME.fullmatch(self.name):
            raise BackboneSpecError(
                f"backbone name {self.name!r} is not of the form '<zoo>/<model>' (letters, digits, '_', '.' "
                "and '-' in the zoo, no white space anywhere); write for example 'acme/tiny-vit'"
            )
        prefix = self.name.partition("/")[0]
        if self.zoo and self.zoo != prefix:
            raise BackboneSpecError(
                f"backbone {self.name!r} says zoo={self.zoo!r}, but its name belongs to zoo {prefix!r}; "
                f"leave `zoo` out or name it '{self.zoo}/{self.name.partition('/')[2]}'"
            )
        if self.modality not in MODALITIES:
            raise BackboneSpecError(
                f"backbone {self.name!r} says modality={self.modality!r}; {closest(self.modality, MODALITIES)}"
            )
        self._check_reference("build", self.build)
        if self.adapter is not None:
            self._check_reference("adapter", self.adapter)
        if self.small is not None:
            self._check_reference("small", self.small)
        # Frozen, so the two normalised fields are set the long way round.
        object.__setattr__(self, "zoo", prefix)
        object.__setattr__(self, "requires", _import_names(f"backbone {self.name!r}", self.requires))

    def _check_text(self, field: str, value: object) -> None:
        if not isinstance(value, str):
            hint = ""
            if callable(value) and field == "build":
                module = getattr(value, "__module__", "package.module")
                where = f"{module}:{getattr(value, '__qualname__', 'function')}"
                hint = f"; name the function instead of passing it, so that it is imported lazily: {where!r}"
            raise BackboneSpecError(
                f"BackboneSpec field {field!r} must be a string, got {type(value).__name__} {value!r}{hint}"
            )

    def _check_reference(self, field: str, value: object) -> None:
        _check_reference(f"backbone {self.name!r}", field, value)


@dataclass(frozen=True)
class SourceSpec:
    """One type of labelled data, what ``data.source.type`` of a configuration names.

    name: the word that users type.
    open: ``"package.module:function"``. Called with the other keys of ``data.source`` by keyword; returns pool name
        ("train", perhaps "val" and "test") -> ``mdpd_plugins.data.Source``. A parameter without a default is a key that
        the configuration must have.
    summary: one line for people.
    requires: import names of the top-level packages that `open` needs.

    Raises BackboneSpecError, which names the field, what it got and what it takes.
    """

    name: str
    open: str
    summary: str = ""
    requires: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _SOURCE.fullmatch(self.name):
            raise BackboneSpecError(
                f"data type {self.name!r} is not a word of letters, digits, '_', '.' and '-'; write for example 'table'"
            )
        if not isinstance(self.summary, str):
            raise BackboneSpecError(f"data type {self.name!r}: 'summary' must be a string, got {self.summary!r}")
        _check_reference(f"data type {self.name!r}", "open", self.open)
        object.__setattr__(self, "requires", _import_names(f"data type {self.name!r}", self.requires))


def _check_reference(what: str, field: str, value: object) -> None:
    if not isinstance(value, str):
        raise BackboneSpecError(
            f"{what}: {field!r} must be a string 'package.module:attribute' that is "
            f"imported lazily, got {type(value).__name__} {value!r}"
        )
    if not REFERENCE.fullmatch(value):
        raise BackboneSpecError(
            f"{what}: {field}={value!r} is not of the form 'package.module:attribute', "
            "for example 'acme_models.vit:build'"
        )


def _import_names(what: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise BackboneSpecError(
            f"{what}: 'requires' takes a tuple of import names such as ('transformers',), got {value!r}"
        )
    names = tuple(value)
    for name in names:
        if not (isinstance(name, str) and name.isidentifier()):
            raise BackboneSpecError(
                f"{what}: {name!r} in 'requires' is not the import name of a top-level "
                "package (write 'open_clip', not 'open-clip-torch' and not 'open_clip.model')"
            )
    return names


@dataclass(frozen=True)
class _Provenance:
    """What a plugin registered, and where it came from: the name of its entry point, and the installed package's."""

    spec: Any
    provided_by: str
    distribution: str = ""
    version: str = ""

    @property
    def name(self) -> str:
        return str(self.spec.name)

    @property
    def origin(self) -> str:
        """``distribution:plugin``, the text that listings show."""
        return f"{self.distribution}:{self.provided_by}" if self.distribution else self.provided_by

    def missing(self) -> tuple[str, ...]:
        """The packages of `requires` that are not installed. Imports none of them."""
        return tuple(name for name in self.spec.requires if not _importable(name))

    def _check_requirements(self, what: str, extra: str) -> None:
        missing = self.missing()
        if missing:
            raise MissingDependencyError(
                f"{what} needs {' and '.join(map(repr, missing))}, which cannot be imported "
                f"here; run: {self._install_command(missing, extra)}"
            )

    def _install_command(self, missing: tuple[str, ...], wanted: str) -> str:
        """Install the extra that the distribution names after the zoo, or else the packages themselves."""
        try:
            extras = importlib.metadata.metadata(self.distribution).get_all("Provides-Extra") or []
        except (importlib.metadata.PackageNotFoundError, ValueError):
            extras = []
        for extra in extras:
            if extra.replace("-", "_").lower() == wanted.replace("-", "_").lower():
                return f"pip install '{self.distribution}[{wanted}]'"
        return f"pip install {' '.join(missing)}"


@dataclass(frozen=True)
class RegisteredSource(_Provenance):
    """A type of data in the catalogue: the plugin's spec and where it came from."""

    spec: SourceSpec

    def load_open(self) -> Any:
        """Import and return the function. MissingDependencyError names what is not installed."""
        self._check_requirements(f"data type {self.name!r}", self.name)
        return resolve(self.spec.open, purpose=f"data type {self.name!r} (from {self.origin})")


@dataclass(frozen=True)
class Registered(_Provenance):
    """A backbone in the catalogue: the plugin's spec and where it came from."""

    spec: BackboneSpec

    @property
    def zoo(self) -> str:
        return self.spec.zoo

    def load_build(self) -> Any:
        """Import and return the build function. MissingDependencyError names what is not installed."""
        self._check()
        return resolve(self.spec.build, purpose=f"backbone {self.name!r} (from {self.origin})")

    def load_adapter(self) -> Any:
        """Import and return the adapter class, or None where the general adapter serves."""
        if self.spec.adapter is None:
            return None
        self._check()
        return resolve(self.spec.adapter, purpose=f"the adapter of {self.name!r} (from {self.origin})")

    def small_options(self) -> dict[str, dict[str, Any]]:
        """Label -> options that make the backbone small; ``{"": {}}`` where the plugin names no way."""
        if self.spec.small is None:
            return {"": {}}
        self._check()
        function = resolve(self.spec.small, purpose=f"the small form of {self.name!r} (from {self.origin})")
        options: dict[str, dict[str, Any]] = function(self.name)
        return options

    def _check(self) -> None:
        self._check_requirements(f"backbone {self.name!r}", self.zoo)


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # already imported by someone who gave it no spec
        return True
