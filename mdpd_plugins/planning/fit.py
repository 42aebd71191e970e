"""The best setting of a configuration that fits into a given memory.

Every candidate is planned (`planning.plan`), so the answer is that of the step itself and not of a formula.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mdpd_plugins.adapters.quantized import NONE
from mdpd_plugins.adapters.storage.precision import AUTO
from mdpd_plugins.planning.plan import Plan, plan
from mdpd_plugins.registry.errors import CapabilityError, ConfigError, MissingDependencyError
from mdpd_plugins.training.config import settings_of
from mdpd_plugins.training.step_memory import PlanError

METHODS = ("mdpd_low_rank", "mdpd", "mdpd_head")
"""Tried in this order unless others are asked for: what trains most, and is best where it fits."""
COACHED = ("mdpd_coach_low_rank", "mdpd_coach")
"""The same where the configuration's own method has a coach."""
HELD = ((AUTO, NONE), ("bfloat16", NONE), ("bfloat16", "int8"), ("bfloat16", "nf4"))
"""How weights are held, the most exact first: (dtype, quantization)."""
_UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Candidate:
    """A setting that was tried.

    Attributes:
        options: dotted key -> value, as `--cfg-options` takes them. plan: what it holds; None where that cannot be
            planned, for the reason `refused`.
    """

    options: dict[str, Any]
    plan: Plan | None
    refused: str = ""

    def fits(self, memory: int) -> bool:
        """Whether the run fits."""
        return self.plan is not None and self.plan.run <= memory


def memory_of(text: str) -> int:
    """Bytes of "8GB", "900MB", "7.5GiB".

    Raises:
        ConfigError: another form, or nothing.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?B)", text.strip().upper())
    if found is None or found[2] not in _UNITS or not float(found[1]):
        raise ConfigError(f"--memory {text}: a number above 0 with MB, GB, MiB or GiB is needed, such as 8GB")
    return int(float(found[1]) * _UNITS[found[2]])


def fit(
    config: Config,
    memory: int,
    *,
    methods: Sequence[str] = (),
    sizes: Sequence[int] = (),
    told: Callable[[Candidate], object] = lambda _: None,
) -> tuple[Candidate, list[Candidate]]:
    """The best candidate whose run fits into `memory` bytes (`Plan.run`), and all that were tried on the way.

    An earlier method is better than a later one; for one method, a larger picture; then the checkpoint's own type
    before bfloat16, and that before quantised layers of 8 and of 4 bits; then larger sub-batches, which give the same
    numbers. Where there is room, blocks are not recomputed, which is faster and gives the same numbers, too.

    Args:
        methods: names, best first; by default `METHODS`, or `COACHED`. sizes: sides of pictures to try after the
            configuration's own, in pixels.
        told: called with each candidate as it is planned.

    Raises:
        ConfigError: nothing fits; it says what needs least.
        MDPDError: the configuration cannot be used.
    """
    tried: list[Candidate] = []
    methods = methods or (COACHED if settings_of(config).coach else METHODS)

    def attempt(options: dict[str, Any]) -> Candidate:
        known = next((c for c in tried if c.options == options), None)
        if known is None:
            known = _planned(config, options)
            tried.append(known)
            told(known)
        return known

    for fixed in _settings(config, methods, sizes):
        if (found := _largest_pieces(config, fixed, memory, attempt)) is not None:
            plain = attempt({**found.options, "distill.recompute": False})
            return (plain if plain.fits(memory) else found), tried
    planned = [c for c in tried if c.plan is not None]
    if not planned:
        raise PlanError(tried[-1].refused)
    least = min(planned, key=lambda c: c.plan.run)  # type: ignore[union-attr]
    assert least.plan is not None
    raise ConfigError(
        f"nothing that was tried fits into {memory / 1e9:.2f} GB. Least needs {as_options(least.options)}: "
        f"{least.plan.run / 1e9:.2f} GB, of which {least.plan.weights / 1e9:.2f} GB are the weights. Choose a smaller "
        f"backbone, a smaller data.input_size or data.max_length, or allow more memory"
    )


def as_options(options: dict[str, Any]) -> str:
    """Options as one writes them after `--cfg-options`."""
    return " ".join(f"{key}={value}" for key, value in options.items())


def _settings(config: Config, methods: Sequence[str], sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    own = config.backbone.dtype, config.backbone.quantization
    ways = HELD if own == (AUTO, NONE) else (own,)
    towers = [s for s in ("backbone", "text_backbone") if config[s].name]
    for method in methods:
        for size in (None, *sorted(sizes, reverse=True)):
            for dtype, quantization in ways:
                options: dict[str, Any] = {"distill.method": method}
                options |= {} if size is None else {"data.input_size": size}
                options |= {f"{tower}.dtype": dtype for tower in towers}
                if quantization != NONE:
                    options |= {f"{tower}.quantization": quantization for tower in towers}
                yield options


def _largest_pieces(
    config: Config, fixed: dict[str, Any], memory: int, attempt: Callable[[dict[str, Any]], Candidate]
) -> Candidate | None:
    whole = attempt(fixed)
    if whole.fits(memory) or whole.plan is None:
        return whole if whole.fits(memory) else None
    found = None
    pieces = [1, *(n for n in (2, 4, 8, 16, 32, 64) if n < config.data.batch_size)]
    for piece in pieces:
        candidate = attempt({**fixed, "distill.sub_batch": piece})
        if not candidate.fits(memory):
            break
        found = candidate
    return found


def _planned(config: Config, options: dict[str, Any]) -> Candidate:
    changed = copy.deepcopy(config)
    # The method comes with settings of its own, which what the configuration says of its method would win over.
    changed.distill = {
        k: v for k, v in changed.distill.to_dict().items() if k not in ("method", "sub_batch", "recompute")
    }
    changed.merge_from_dict(dict(options))
    try:
        return Candidate(options, plan(changed))
    except (PlanError, ConfigError, CapabilityError, MissingDependencyError) as error:
        return Candidate(options, None, str(error))


__all__ = ["COACHED", "METHODS", "Candidate", "as_options", "fit", "memory_of"]
