"""Check this machine: versions, plugins, and the known traps with the way out of each."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from typing import Any

from mdpd_plugins.cli.environment import check_core, package_table
from mdpd_plugins.registry import Catalogue, EnvironmentReport, Finding, PluginFailure, load_catalogue

SLOW_PLUGIN_SECONDS = 0.5
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

    Keys: ok, python, platform, packages (name, required, extra, installed, ok), plugins (plugin,
    distribution, version, module, backbones, seconds, status, reason, traceback), findings (level, topic,
    message, fix, plugin).
    """
    catalogue = load_catalogue()
    report = EnvironmentReport(try_imports=try_imports)
    packages = package_table()
    for package in packages:
        _report_package(report, package)
    check_core(report)
    catalogue.check_environment(report)
    _report_slow_plugins(report, catalogue)
    problem = any(finding.level == "problem" for finding in report.findings)
    return {
        "ok": not problem and not catalogue.skipped,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "plugins": _plugin_rows(catalogue),
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


def _plugin_rows(catalogue: Catalogue) -> list[dict[str, Any]]:
    failures = catalogue.skipped
    failed = {(failure.plugin, failure.distribution, failure.version) for failure in failures}
    rows = [
        {**asdict(info), "status": "ok", "reason": "", "traceback": ""}
        for info in catalogue.plugins
        if (info.plugin, info.distribution, info.version) not in failed
    ]
    return rows + [_failure_row(failure, catalogue) for failure in failures]


def _failure_row(failure: PluginFailure, catalogue: Catalogue) -> dict[str, Any]:
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
        "reason": failure.reason,
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
    print("\nPlugins")
    for plugin in result["plugins"]:
        mark = MARKS["ok" if plugin["status"] == "ok" else "problem"]
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
