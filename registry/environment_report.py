"""What `mdpd doctor` collects: findings about the environment, from the project and from plugins."""

from __future__ import annotations

from dataclasses import dataclass, field

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
