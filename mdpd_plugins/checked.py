"""Settings as typed dataclasses: what a section may hold, with ranges, and errors that name the dotted path."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from mdpd_plugins.registry.errors import ConfigError, closest

# Adam divides a rate by 0.1 in its first step, and float32 ends at 3e38.
LARGEST_FLOAT = 1e37
LARGEST_INT = 2**63 - 1  # PyTorch's and numpy's integers


def setting(
    default: Any,
    about: str = "",
    *,
    choices: tuple[Any, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A field of a section: its default, what it is for, and the values that it may have."""
    metadata = {"about": about, "choices": choices, "at_least": at_least, "above": above, "at_most": at_most}
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_of(field: dataclasses.Field) -> Any:
    """The value of a field that nobody gave."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def defaults(section: type) -> dict[str, Any]:
    """A section's defaults as plain data, sections inside it too."""
    hints = get_type_hints(section)
    return {
        f.name: defaults(hints[f.name]) if dataclasses.is_dataclass(hints[f.name]) else default_of(f)
        for f in dataclasses.fields(section)
    }


def completed(section: type, given: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """What is given, checked, and a section's defaults for the rest, as plain data.

    Args:
        where: dotted path of the section, with a dot behind it; "" for the outermost.

    Raises:
        ConfigError: a key that the section does not have, or a value of another kind or out of range.
    """
    hints, found = get_type_hints(section), defaults(section)
    fields = {f.name: f for f in dataclasses.fields(section)}
    for key, value in given.items():
        path = f"{where}{key}"
        if key not in fields:
            raise ConfigError(f"config key {path} is not known: {closest(str(key), fields)}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"config key {path} is a section, but {value!r} was given")
            found[key] = completed(hints[key], value, f"{path}.")  # type: ignore[arg-type]
        else:
            check_value(f"config key {path}", value, hints[key], fields[key])
            found[key] = value
    return found


def check_value(what: str, value: Any, kind: Any, field: dataclasses.Field) -> None:
    """Raise ConfigError, beginning with `what`, unless a value is of a kind and within the field's range."""
    kinds = _kinds(kind)
    if kinds and type(value) not in kinds:  # exactly: True is an int to isinstance
        names = " or ".join(k.__name__ for k in kinds if k is not type(None))
        if kinds == (dict,):
            raise ConfigError(f"{what} is a section, but {value!r} was given")
        raise ConfigError(f"{what}={value!r}: {names} is meant, and the default is {default_of(field)!r}")
    limits = field.metadata
    if limits.get("choices") and value is not None and value not in limits["choices"]:
        raise ConfigError(f"{what}={value!r} does not exist: {closest(str(value), map(str, limits['choices']))}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if isinstance(value, float) and not abs(value) < LARGEST_FLOAT:
        raise ConfigError(f"{what}={value!r}: it must be finite, and below {LARGEST_FLOAT:.0e}")
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        raise ConfigError(f"{what}={value!r}: it must be a number of at most 64 bits")
    low, above, high = (limits.get(k) for k in ("at_least", "above", "at_most"))
    if above is not None and not value > above:
        raise ConfigError(f"{what}={value!r}: it must be {'positive' if above == 0 else f'above {above}'}")
    if low is not None and value < low:
        said = "not be negative" if low == 0 else "be positive" if low == 1 else f"be at least {low}"
        raise ConfigError(f"{what}={value!r}: it must {said}")
    if high is not None and value > high:
        raise ConfigError(f"{what}={value!r}: it must be at most {high}")


def _kinds(kind: Any) -> tuple[type, ...]:
    """The types that an annotation allows; none for one that allows anything."""
    if get_origin(kind) in (Union, types.UnionType):
        parts = [_kinds(part) for part in get_args(kind)]
        return tuple(k for part in parts for k in part) if all(parts) else ()
    origin = get_origin(kind) or kind
    if origin in (Any, object):
        return ()
    if origin is float:
        return (int, float)
    return (origin,) if isinstance(origin, type) else ()


def is_number(value: Any) -> bool:
    """Whether a value is a finite number of a usable size, and no bool."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= LARGEST_INT if isinstance(value, int) else math.isfinite(value) and abs(value) < LARGEST_FLOAT


__all__ = ["check_value", "completed", "default_of", "defaults", "is_number", "setting"]
