"""The kit on the example plugins and on a fresh one, as a third party runs it: in packages of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packages import run_mdpd, write_package

from mdpd_plugins.cli.new_plugin import write_plugin_package
from mdpd_plugins.registry import ConfigError

EXAMPLES = Path(__file__).parents[2] / "examples"


def install(site: Path, distribution: str, zoo: str, package: Path) -> None:
    shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    write_package(site, distribution, plugins={zoo: package.name})


@pytest.mark.parametrize(("zoo", "count"), [("timm", 6), ("unusual", 1)])
def test_every_backbone_of_an_example_passes(tmp_path, zoo, count):
    if zoo == "timm":
        pytest.importorskip("timm")
    distribution = f"mdpd-{zoo}-plugin"
    install(tmp_path, distribution, zoo, EXAMPLES / distribution / distribution.replace("-", "_"))
    done = run_mdpd("verify", "--zoo", zoo, "--json", str(tmp_path / "found.json"), site=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["totals"] == {"pass": count}, done.stdout
    assert done.returncode == 0


def test_a_new_plugin_passes_its_own_test(tmp_path):
    folder = write_plugin_package("acme-mdpd", tmp_path / "acme", zoo="acme")
    site = tmp_path / "site"
    install(site, "acme-mdpd", "acme", folder / "acme_mdpd")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "failed" not in done.stdout


@pytest.mark.parametrize("name", ["", "9lives", "a b", "class", "a--b", "../up"])
def test_a_name_that_no_package_can_have_is_refused(tmp_path, name):
    with pytest.raises(ConfigError):
        write_plugin_package(name, tmp_path / "out", zoo="acme")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        write_plugin_package("acme", tmp_path, zoo="acme")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
