"""What the kit found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from unittest import SkipTest

PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "not applicable"


class NotApplicable(SkipTest):
    """Raised by a check that the backbone cannot be asked to pass, with the reason. pytest shows it as a skip."""


@dataclass(frozen=True)
class Outcome:
    """One check on one backbone.

    Attributes:
        check: its name. status: "pass", "fail" or "not applicable".
        detail: what was measured, or the reason. seconds: how long it took.
    """

    check: str
    status: str
    detail: str = ""
    seconds: float = 0.0


@dataclass
class Report:
    """All checks of one backbone; truthy if none failed.

    Attributes:
        architecture: classes of the model, of what holds its blocks, and of the blocks ("A|B" for two kinds).
    """

    name: str
    outcomes: list[Outcome] = field(default_factory=list)
    architecture: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[Outcome]:
        """The checks that failed."""
        return [o for o in self.outcomes if o.status == FAIL]

    @property
    def reason(self) -> str:
        """One line naming every failed check, "" if there is none."""
        return "; ".join(f"{o.check}: {o.detail}" for o in self.failures)

    def __bool__(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        marks = {PASS: "ok  ", FAIL: "FAIL", NOT_APPLICABLE: "n/a "}
        return "\n".join([self.name, *(f"  {marks[o.status]} {o.check}: {o.detail}" for o in self.outcomes)])

    def as_dict(self) -> dict[str, Any]:
        """Plain data: check -> status and detail."""
        return {o.check: {"status": o.status, "detail": o.detail} for o in self.outcomes}


__all__ = ["FAIL", "NOT_APPLICABLE", "PASS", "NotApplicable", "Outcome", "Report"]
