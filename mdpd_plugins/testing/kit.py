"""Running the checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.registry.errors import CapabilityError
from mdpd_plugins.testing import forwards, recipes, structure, training
from mdpd_plugins.testing.architecture import architecture
from mdpd_plugins.testing.outcome import FAIL, NOT_APPLICABLE, PASS, NotApplicable, Outcome, Report
from mdpd_plugins.testing.specimen import Specimen

Source = str | Adapter | Callable[[], Adapter]


@dataclass(frozen=True)
class Check:
    """One clause of the contract. Called with a backbone it returns what it measured.

    Raises, when called:
        AssertionError: the backbone violates the clause; the message says how.
        NotApplicable: the clause does not concern it. pytest shows a skip.
    """

    name: str
    function: Callable[[Specimen], str]

    def __call__(self, source: Source, **options: Any) -> str:
        return self.function(Specimen(source, options))

    @property
    def __name__(self) -> str:  # pytest names parametrised tests by it
        return self.name

    @property
    def summary(self) -> str:
        """One sentence: what must hold."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


CHECKS = tuple(
    Check(function.__name__, function)
    for function in (
        structure.blocks,
        structure.depth,
        structure.shapes,
        forwards.tail,
        forwards.trace,
        structure.norm_parameters,
        structure.head,
        forwards.attention,
        training.norm_gradients,
        training.distillation,
        training.export,
        recipes.recipes,
        forwards.batch_of_one,
        forwards.odd_size,
        forwards.equal_sizes,
        forwards.padding,
    )
)


def check_backbone(source: Source, *, checks: Iterable[Check] = CHECKS, **options: Any) -> Report:
    """Run the conformance kit on one backbone with random weights.

    Args:
        source: a registered name, an adapter, or a function that returns an adapter.
        checks: which of `CHECKS` to run.
        options: options of the backbone's `build`, best such that it is small.

    Returns:
        The outcome of every check. A check that raises fails with what it raised.

    Raises:
        whatever building the backbone raises.
    """
    specimen = Specimen(source, options)
    report = Report(specimen.name, architecture=architecture(specimen.pristine))
    for check in checks:
        start = time.perf_counter()
        try:
            status, detail = PASS, check.function(specimen)
        except NotApplicable as reason:
            status, detail = NOT_APPLICABLE, str(reason)
        except AssertionError as failure:
            status, detail = FAIL, str(failure) or "an assertion without a message"
        except CapabilityError as error:
            status, detail = FAIL, str(error)
        except Exception as error:  # the point of a kit: anything a plugin raises is a finding
            status, detail = FAIL, f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        report.outcomes.append(Outcome(check.name, status, detail, time.perf_counter() - start))
    return report


__all__ = ["CHECKS", "Check", "check_backbone"]
