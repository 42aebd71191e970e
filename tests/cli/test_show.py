"""`mdpd show` on the example plugin, which is installed as its own distribution for the test."""

import json
import shutil
from pathlib import Path

import pytest
from packages import run_mdpd, write_package

EXAMPLE = Path(__file__).parents[2] / "examples" / "mdpd-example-plugin" / "mdpd_example_plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, folder / EXAMPLE.name, ignore=shutil.ignore_patterns("__pycache__"))
    write_package(folder, "mdpd-example-plugin", plugins={"example": EXAMPLE.name})
    return folder


def test_the_example_is_listed_with_its_provenance(site):
    (row,) = json.loads(run_mdpd("list-backbones", "--zoo", "example", "--json", site=site, strict=True).stdout)
    assert row == {
        "name": "example/small-vit",
        "zoo": "example",
        "family": "vit",
        "modality": "image",
        "provided_by": "mdpd-example-plugin:example",
        "verified": "",
        "capabilities": [],
    }


def test_show_describes_a_backbone_that_names_no_adapter(site):
    done = run_mdpd("show", "example/small-vit", "--json", site=site)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["name"] == "example/small-vit"
    assert shown["blocks"] == 4
    assert shown["tokens"] == 65
    assert shown["norm_layers"] == 9
    assert shown["provided_by"] == "mdpd-example-plugin:example"
    assert shown["verified"]["status"] == "not verified: `mdpd verify example/small-vit` does it"


def test_show_prints_lines_for_people(site):
    done = run_mdpd("show", "example/small-vit", site=site)
    assert done.returncode == 0, done.stderr
    assert "name: example/small-vit\n" in done.stdout
    assert "parameters: 208," in done.stdout
