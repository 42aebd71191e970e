"""Check this machine: versions, plugins, and the known traps with the way out of each."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from mdpd_plugins.cli.environment import PROBE, check_core, package_table, probed, report_probe
from mdpd_plugins.registry import Catalogue, EnvironmentReport, Finding, PluginFailure, load_catalogue
from mdpd_plugins.registry.attempts import RETRY
from mdpd_plugins.registry.imports import begin
from mdpd_plugins.registry.loader import DISABLE, ONLY
from mdpd_plugins.zoos import verified

SLOW_PLUGIN_SECONDS = 0.5
RETRY_SECONDS = 30.0  # that a plugin gets which never came back before (our choice)
MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--quick", action="store_true", help="compare versions only; do not try to import the frameworks"
    )


def run(args: argparse.Namespace) -> int:
    """Print the report. Exit status 1 if anything in it is a problem."""
    result = examine(try_imports=not args.quick)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0 if result["ok"] else 1


def examine(*, try_imports: bool = True) -> dict[str, Any]:
    """Everything that doctor knows, as JSON values.

    Keys: ok, python, platform, packages (name, required, extra, installed, ok), verified_with (library -> the version
    that the catalogue was verified with), plugins (plugin,
    distribution, version, module, backbones, seconds, status: ok, failed or off, reason, traceback), findings (level,
    topic, message, fix, plugin).

    A plugin that was set aside because a load of it never came back is tried once more, in a process of its own, unless
    try_imports is False.
    """
    catalogue = load_catalogue()
    tried: dict[PluginFailure, str] = {}
    if try_imports:
        catalogue, tried = _tried_again(catalogue)
    report = EnvironmentReport(try_imports=try_imports)
    # It runs beside the imports of the zoos; what it finds comes before theirs.
    probe = begin(PROBE) if try_imports else None
    packages = package_table()
    for package in packages:
        _report_package(report, package)
    zoos = EnvironmentReport(try_imports=try_imports)
    catalogue.check_environment(zoos)
    if probe is not None:
        report_probe(report, probed(probe))
    check_core(report)
    report.findings += zoos.findings
    _report_slow_plugins(report, catalogue)
    if others := verified.load().other_versions():
        report.note(
            "catalogue",
            f"it was verified with other versions: {', '.join(others)}",
            fix="`mdpd verify NAME` says whether a backbone works with those that are here",
        )
    for name in catalogue.unknown_choice:
        report.note("plugins", f"{ONLY} or {DISABLE} names {name!r}, and no plugin is called so")
    problem = any(finding.level == "problem" for finding in report.findings)
    return {
        "ok": not problem and not catalogue.skipped,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "verified_with": dict(verified.load().versions),
        "plugins": _plugin_rows(catalogue, tried),
        "findings": [asdict(finding) for finding in report.findings],
    }


def _report_package(report: EnvironmentReport, package: dict[str, Any]) -> None:
    if package["ok"]:
        return
    wanted = f"{package['name']}{package['required']}"
    if package["installed"] is None:
        if not package["extra"]:
            report.problem(package["name"], "required and not installed", fix=f"pip install '{wanted}'")
    else:
        report.problem(
            package["name"],
            f"version {package['installed']} is installed, {package['required']} is needed",
            fix=f"pip install '{wanted}'",
        )


def _report_slow_plugins(report: EnvironmentReport, catalogue: Catalogue) -> None:
    for info in catalogue.plugins:
        if info.seconds > SLOW_PLUGIN_SECONDS:
            report.note(
                f"plugin {info.plugin}",
                f"{info.distribution} takes {info.seconds:.1f} s to load; every `mdpd` command waits for it",
                fix="its module should import no framework: `build` and `adapter` are lazy strings for that",
            )


def _tried_again(catalogue: Catalogue) -> tuple[Catalogue, dict[PluginFailure, str]]:
    """The catalogue, with what loads now after all; and of the others how their load ended."""
    tried = {failure: _ended(failure) for failure in catalogue.skipped if failure.unfinished}
    if "" in tried.values():
        catalogue = load_catalogue(reload=True)
    return catalogue, {failure: ended for failure, ended in tried.items() if ended}


def _ended(failure: PluginFailure) -> str:
    """How a process of its own ends that loads this plugin and no other; "" if it comes back."""
    environment = {**os.environ, ONLY: f"{failure.distribution}:{failure.plugin}", RETRY: "1"}
    environment.pop("MDPD_STRICT_PLUGINS", None)
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from mdpd_plugins.registry import load_catalogue; load_catalogue(); print('back')"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=RETRY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"tried again: no end within {RETRY_SECONDS:.0f} s"
    if done.stdout.endswith("back\n"):
        return ""
    code = done.returncode
    return f"tried again: it ended Python with {f'signal {-code}' if code < 0 else f'status {code}'}"


def _plugin_rows(catalogue: Catalogue, tried: dict[PluginFailure, str]) -> list[dict[str, Any]]:
    failures = catalogue.skipped
    failed = {(failure.plugin, failure.distribution, failure.version) for failure in failures}
    rows = [
        {**asdict(info), "status": "ok", "reason": "", "traceback": ""}
        for info in catalogue.plugins
        if (info.plugin, info.distribution, info.version) not in failed
    ]
    rows += [_failure_row(failure, catalogue, tried.get(failure, "")) for failure in failures]
    return rows + [{**_failure_row(failure, catalogue, ""), "status": "off"} for failure in catalogue.turned_off]


def _failure_row(failure: PluginFailure, catalogue: Catalogue, tried: str) -> dict[str, Any]:
    same = (failure.plugin, failure.distribution, failure.version)
    info = next((i for i in catalogue.plugins if (i.plugin, i.distribution, i.version) == same), None)
    return {
        "plugin": failure.plugin,
        "distribution": failure.distribution,
        "version": failure.version,
        "module": info.module if info else "",
        "backbones": info.backbones if info else 0,
        "seconds": info.seconds if info else 0.0,
        "status": "failed",
        "reason": f"{failure.reason}; {tried}" if tried else failure.reason,
        "traceback": failure.traceback,
    }


def _print(result: dict[str, Any]) -> None:
    print(f"Python {result['python']} on {result['platform']} ({sys.executable})")
    print("\nPackages")
    for package in result["packages"]:
        mark = MARKS["ok"] if package["ok"] else MARKS["note" if package["installed"] is None else "problem"]
        needed = f"needs {package['required']}" if package["required"] else ""
        extra = f"[{package['extra']}]" if package["extra"] else ""
        installed = package["installed"] or "not installed"
        columns = (mark, f"{package['name']:<24}", f"{installed:<16}", needed, extra)
        print(" ", " ".join(column for column in columns if column).rstrip())
    versions = ", ".join(f"{name} {version}" for name, version in result["verified_with"].items())
    print(f"\nThe catalogue was verified with {versions or 'no versions that are known'}.")
    print("\nPlugins")
    for plugin in result["plugins"]:
        mark = MARKS[{"ok": "ok", "off": "note"}.get(plugin["status"], "problem")]
        origin = f"{plugin['distribution']} {plugin['version']}".strip()
        print(f"  {mark} {plugin['plugin']} ({origin}): {plugin['reason'] or _count(plugin['backbones'])}")
        for line in plugin["traceback"].rstrip().splitlines():
            print(f"            {line}")
    print("\nFindings")
    for entry in result["findings"]:
        finding = Finding(**entry)
        print(f"  {MARKS[finding.level]} {finding.topic}: {finding.message}")
        if finding.fix:
            print(f"            way out: {finding.fix}")
    print("\nNo problem found." if result["ok"] else "\nProblems found: see the lines marked PROBLEM.")


def _count(backbones: int) -> str:
    return f"{backbones} backbone{'' if backbones == 1 else 's'}"
