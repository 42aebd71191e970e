"""What `mdpd doctor` collects: findings about the environment, from the project and from plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .imports import failures

LEVELS = ("ok", "note", "problem")


@dataclass(frozen=True)
class Finding:
    """One thing found. level: "ok", "note" (worth knowing) or "problem" (something will fail)."""

    level: str
    topic: str
    message: str
    fix: str = ""
    plugin: str = ""


@dataclass
class EnvironmentReport:
    """Passed to `check_environment` hooks, which add to it.

    try_imports: False when the user asked for a quick answer; a hook should then start no process and
        import no framework.
    """

    try_imports: bool = True
    findings: list[Finding] = field(default_factory=list)
    plugin: str = ""
    _waiting: list[tuple[str, str, Callable[[str | None], None]]] = field(default_factory=list, init=False, repr=False)

    def try_import(self, statement: str, then: Callable[[str | None], None]) -> None:
        """Run an import statement in another process, and call ``then(failure)`` with how it ended.

        `then` is called after every hook. The statements of all plugins run one after another in one process, because
        what they share is imported once so; one that fails there is run again in a process of its own, and that is
        what counts.

        Args:
            statement: such as "import mmpretrain".
            then: adds to the report. `failure` is None where the statement ran or nothing shall be tried (`try_imports`
                is False), else the last line that it printed.
        """
        if not self.try_imports:
            then(None)
            return
        self._waiting.append((self.plugin, statement, then))

    def tried_imports(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """(plugin, what it wants done) of each `try_import` in turn, once all statements have ended."""
        waiting, self._waiting = self._waiting, []
        ends = failures([statement for _, statement, _ in waiting])
        for (plugin, _, then), failure in zip(waiting, ends, strict=True):
            yield plugin, lambda then=then, failure=failure: then(failure)  # type: ignore[misc]

    def ok(self, topic: str, message: str) -> None:
        """Something that was looked at and is as it should be."""
        self._add("ok", topic, message, "")

    def note(self, topic: str, message: str, fix: str = "") -> None:
        """Something to know that stops nothing by itself."""
        self._add("note", topic, message, fix)

    def problem(self, topic: str, message: str, fix: str = "") -> None:
        """Something that will fail. `fix`: the command or the change that cures it."""
        self._add("problem", topic, message, fix)

    def _add(self, level: str, topic: str, message: str, fix: str) -> None:
        for name, value in (("topic", topic), ("message", message), ("fix", fix)):
            if not isinstance(value, str):
                raise TypeError(f"report.{level}(): {name} must be a string, got {type(value).__name__}")
        self.findings.append(Finding(level, topic, message, fix, self.plugin))
