"""Writes small installed packages, as an installer leaves them, for tests of plugins and environments."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

GOOD_PLUGIN = """
from mdpd_plugins.registry import BackboneSpec, hookimpl

@hookimpl
def register_backbones(register):
    register(BackboneSpec("{zoo}/one", build="{module}:build", family="toy"))
"""


def write_package(
    site: Path,
    distribution: str,
    version: str = "1.0",
    *,
    modules: dict[str, str] | None = None,
    plugins: dict[str, str] | None = None,
    metadata: str = "",
) -> None:
    """Write a distribution into `site`: its modules (name -> source), metadata and mdpd.plugins entries."""
    site.mkdir(parents=True, exist_ok=True)
    for name, source in (modules or {}).items():
        (site / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    header = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    (info / "METADATA").write_text(header + metadata, encoding="utf-8")
    if plugins:
        lines = [f"{name} = {value}" for name, value in plugins.items()]
        (info / "entry_points.txt").write_text("\n".join(["[mdpd.plugins]", *lines, ""]), encoding="utf-8")


def write_plugin(site: Path, name: str, source: str | None = None, version: str = "1.0") -> None:
    """A distribution `acme-<name>` with the plugin `<name>` in the module `acme_<name>`.

    Without a source it is a good plugin that registers ``<name>/one``.
    """
    module = f"acme_{name}"
    text = GOOD_PLUGIN.format(zoo=name, module=module) if source is None else source
    write_package(site, f"acme-{name}", version, modules={module: text}, plugins={name: module})


def run_mdpd(
    *arguments: str, site: Path | str, strict: bool = False, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `mdpd` in a process of its own, with the packages of `site` installed in front of all others."""
    variables = {k: v for k, v in os.environ.items() if k not in ("MDPD_STRICT_PLUGINS", "PYTHONWARNINGS")}
    # A cache of the packages' own: a load that never came back is remembered there.
    cache = f"{str(site).partition(os.pathsep)[0]}.cache"
    variables |= {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": cache, **(env or {})}
    if strict:
        variables["MDPD_STRICT_PLUGINS"] = "1"
    return subprocess.run(
        [sys.executable, "-m", "mdpd_plugins.cli.main", *arguments],
        capture_output=True,
        text=True,
        env=variables,
        timeout=300,
        check=False,
    )
