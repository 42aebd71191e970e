"""What an installed wheel contains, and how it behaves where no framework is installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = "from setuptools import build_meta; build_meta.build_wheel('dist')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The project's wheel, built from a copy so that the checkout stays as it is."""
    pytest.importorskip("setuptools", minversion="77")
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("registry", "mdpd_plugins", "zoo_configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def bare_site(wheel, tmp_path_factory):
    """A folder with the wheel's content and its light dependencies: an installation without any zoo."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in ("pluggy", "packaging"):
        spec = importlib.util.find_spec(name)
        shutil.copytree(Path(spec.origin).parent, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    return site


def run_bare(site, *arguments):
    # -I -S: neither the environment's packages nor the folder that the tests run in.
    script = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        f"from mdpd_plugins.cli.main import main; sys.exit(main({list(arguments)!r}))"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        capture_output=True,
        text=True,
        cwd=site.parent,
        check=False,
    )


def test_the_package_list_is_complete():
    tomllib = pytest.importorskip("tomllib")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {init.parent.relative_to(ROOT) for init in (ROOT / "mdpd_plugins").rglob("__init__.py")}
    configs = [f for f in (ROOT / "zoo_configs").rglob("*") if f.is_dir() and f.name != "__pycache__"]
    found = {".".join(folder.parts) for folder in folders} | {"mdpd_plugins.registry", "mdpd_plugins.zoo_configs"}
    found |= {f"mdpd_plugins.{'.'.join(folder.relative_to(ROOT).parts)}" for folder in configs}
    assert set(settings["packages"]) == found


def test_the_wheel_holds_every_module_and_no_top_level_registry(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "mdpd_plugins").rglob("*.py")}
    modules |= {f"mdpd_plugins/{p.relative_to(ROOT)}" for p in (ROOT / "registry").rglob("*.py")}
    modules |= {f"mdpd_plugins/{p.relative_to(ROOT)}" for p in (ROOT / "zoo_configs").rglob("*.py")}
    assert modules <= names
    assert "mdpd_plugins/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mdpd_plugins"}


def test_the_registry_cannot_be_imported_by_its_folder_name(tmp_path):
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import registry"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "write `import mdpd_plugins.registry`" in done.stderr


def test_the_registry_is_importable_from_any_folder(tmp_path):
    script = "import mdpd_plugins.registry as r; print(r.__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, "mdpd_plugins.registry\n"), done.stderr


def test_without_a_zoo_the_listing_is_empty_and_names_the_extras(bare_site):
    done = run_bare(bare_site, "list-backbones")
    assert (done.returncode, done.stdout) == (0, "")
    for zoo in ("mmpretrain", "huggingface", "open_clip"):
        assert f"pip install 'mdpd-plugins[{zoo}]'" in done.stderr


@pytest.mark.parametrize(
    ("zoo", "arguments"),
    [
        ("mmpretrain", ["show", "mmpretrain/vit-base-p16_32xb128-mae_in1k"]),
        ("open_clip", ["show", "open_clip/ViT-B-16"]),
        ("huggingface", ["list-backbones", "--zoo", "huggingface"]),
    ],
)
def test_asking_for_a_zoo_that_is_not_installed_names_its_extra(bare_site, zoo, arguments):
    done = run_bare(bare_site, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "is not installed" in done.stderr
    assert f"pip install 'mdpd-plugins[{zoo}]'" in done.stderr


def test_doctor_works_where_nothing_is_installed(bare_site):
    done = run_bare(bare_site, "doctor", "--quick", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 1
    missing = {f["topic"] for f in result["findings"] if f["level"] == "problem"}
    assert {"torch", "torchvision", "mmengine"} <= missing
    notes = {f["topic"]: f["fix"] for f in result["findings"] if f["level"] == "note"}
    assert notes["open_clip"] == "pip install 'mdpd-plugins[open_clip]'"
