"""Examples that nothing can be learned from: pictures that do not decode, and texts that are empty.

They are found when the data is opened, all of them, and either all named in one error or all left out.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mdpd_plugins.data.images import image_name, read_image, read_image_text
from mdpd_plugins.data.picture_check import broken_pictures
from mdpd_plugins.data.source import Source
from mdpd_plugins.registry import ConfigError, DataError, DataWarning, closest
from mdpd_plugins.registry.attempts import cache_folder

ON_BROKEN = ("error", "skip")
NAMED = 100  # examples that a message names; where there are more, a file lists them all


def without_unusable(
    pools: Mapping[str, Source], on_broken: str = "error", verify: bool = True, way_out: str = "data.source.on_broken"
) -> dict[str, Source]:
    """The pools as they are if every example can be used; else an error, or the pools without the others.

    A picture is unusable if it is missing, does not decode to the end, or has values without a known meaning. A text is
    if it holds nothing but white space; a pair of texts, if both do.

    Args:
        pools: pool name -> source. Pictures are looked at if `read_image` reads them: a source with a reader of its own
            is left alone.
        on_broken: "error" or "skip".
        verify: without it, pictures are not looked at.
        way_out: the key that the error names.

    Returns:
        Pool name -> source. What was left out is counted in `left_out` and in the description, and warned about.

    Raises:
        ConfigError: another word, or "skip" without looking.
        DataError: names all that are unusable; or nothing is left of a pool.
    """
    if on_broken not in ON_BROKEN:
        raise ConfigError(f"on_broken={on_broken!r} does not exist: {closest(str(on_broken), ON_BROKEN)}")
    if not isinstance(verify, bool):
        raise ConfigError(f"verify={verify!r}: True or False is meant")
    if on_broken == "skip" and not verify:
        raise ConfigError("on_broken='skip' leaves out what checking has found, and verify=False turns that off")
    faults = {pool: _faults(source, verify) for pool, source in pools.items()}
    if not any(faults.values()):
        return dict(pools)
    if on_broken == "error":
        named = [f"{name} {fault}" for found in faults.values() for name, fault in found.values()]
        total = sum(map(len, pools.values()))
        raise DataError(
            f"{len(named)} of {total} examples cannot be used: {listed(named)}. Mend them, remove them, "
            f"or leave them out with {way_out}='skip'"
        )
    return {pool: _left(pool, source, faults[pool]) for pool, source in pools.items()}


def is_empty(text: Any) -> bool:
    """Whether a text, or each of a pair of texts, holds nothing but white space (or is missing)."""
    return all(map(is_empty, text)) if isinstance(text, tuple) else text is None or not text.strip()


def listed(named: Sequence[str]) -> str:
    """All of them in one line, or the first `NAMED` and the file that lists all."""
    once = list(dict.fromkeys(named))
    line = "; ".join(once[:NAMED])
    if len(once) <= NAMED:
        return line
    return f"{line}; and {len(once) - NAMED} more{_filed(once)}"


def _filed(named: Sequence[str]) -> str:
    path: Path = cache_folder() / "unusable.txt"
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(named) + "\n", encoding="utf-8", errors="backslashreplace")
        return f" (all are listed in {path})"
    return ""


def _faults(source: Source, verify: bool) -> dict[int, tuple[str, str]]:
    """Index -> (name of what is wrong, what is wrong with it)."""
    found: dict[int, tuple[str, str]] = {}
    inputs: Any = source.inputs
    if source.modality != "image":
        texts = inputs if source.modality == "text" else getattr(inputs, "texts", None) or _Column(inputs, 1)
        for i, text in enumerate(texts):
            if isinstance(text, (str, tuple)) and is_empty(text):
                found[i] = (f"{source.place(i)}: the text", "is empty")
    if verify and source.modality != "text" and source.read in (read_image, read_image_text):
        pictures = inputs if source.modality == "image" else getattr(inputs, "images", None) or _Column(inputs, 0)
        for i, fault in broken_pictures(pictures, source.fingerprint).items():
            name = image_name(pictures[i])
            named = name if isinstance(pictures[i], (str, Path)) else f"{source.place(i)}: image {name}"
            found[i] = (named, fault)
    return dict(sorted(found.items()))


def _left(pool: str, source: Source, faults: Mapping[int, tuple[str, str]]) -> Source:
    if not faults:
        return source
    kept = [i for i in range(len(source)) if i not in faults]
    named = listed([f"{name} {fault}" for name, fault in faults.values()])
    if not kept:
        raise DataError(f"no example of the {pool} data can be used: {named}")
    count = f"{len(faults)} of {len(source)} examples of the {pool} data"
    warnings.warn(f"{count} are left out, because they cannot be used: {named}", DataWarning, stacklevel=4)
    about = f"{source.description} {count} were left out: their pictures do not decode or their texts are empty."
    return replace(source.subset(kept), description=about, left_out=len(faults))


class _Column(Sequence[Any]):
    """The pictures or the texts of pairs (picture, text), fetched one at a time."""

    def __init__(self, pairs: Any, place: int) -> None:
        self._pairs = pairs
        self._place = place

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: Any) -> Any:
        return self._pairs[index][self._place]


__all__ = ["ON_BROKEN", "is_empty", "listed", "without_unusable"]
