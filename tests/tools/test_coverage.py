"""tools/coverage.py: the page and the shipped file from results of `mdpd verify`."""

import importlib.util
import json
import sys
from pathlib import Path
from unittest import mock

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "coverage.py"


def row(name, status="pass", reason="", architecture=None, **checks):
    outcomes = {key.replace("__", "/"): {"status": value, "detail": ""} for key, value in checks.items()}
    zoo = name.partition("/")[0]
    found = {"name": name, "zoo": zoo, "status": status, "reason": reason, "checks": outcomes}
    return {**found, "architecture": architecture or {}, "options": {}}


MMPRETRAIN = [
    row("mmpretrain/resnet18_8xb32_in1k", architecture={"": ["ImageClassifier", "ResNet", "BasicBlock"]}, tail="pass"),
    row(
        "mmpretrain/resnet34_8xb32_in1k",
        "fail",
        "tail: differs",
        {"": ["ImageClassifier", "ResNet", "BasicBlock"]},
        tail="fail",
    ),
    row("mmpretrain/vgg11_8xb32_in1k", "fail", "no end within 9 s"),
]
OPEN_CLIP = [row("open_clip/RN50", "fail", "x", image__export="pass", text__export="fail")]


def write(path, rows, versions=None):
    path.write_text(json.dumps({"results": rows, "totals": {}, "versions": versions or {"torch": "9"}}))
    return path


@pytest.fixture(scope="module")
def tool():
    """The script, loaded from its file."""
    spec = importlib.util.spec_from_file_location("coverage_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(tool, folder, *files):
    arguments = ["coverage.py", *files, "--page", folder / "page.md", "--verified", folder / "verified.json"]
    with mock.patch.object(sys, "argv", list(map(str, arguments))):
        return tool.main()


@pytest.fixture(scope="module")
def written(tool, tmp_path_factory):
    for package in ("mmpretrain", "open_clip"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("coverage")
    assert run(tool, folder, write(folder / "a.json", MMPRETRAIN), write(folder / "b.json", OPEN_CLIP)) == 0
    return (folder / "page.md").read_text(), json.loads((folder / "verified.json").read_text())


def test_the_page_counts_by_zoo_and_by_what_backbones_read(written):
    page, _ = written
    assert "| mmpretrain | 548 | 3 | 1 | 2 | 0 |" in page
    assert "| mmpretrain | image | 1 | 3 | 33.3% |" in page
    assert "| open_clip | image | 1 | 1 | 100.0% |" in page
    assert "| open_clip | text | 0 | 1 | 0.0% |" in page


def test_the_page_counts_by_backbone_class(written):
    page, _ = written
    assert "mmpretrain: 1 backbone classes, 1 with a model that passed, 0 with all." in page
    assert "ResNet 1/2, not built 0/1." in page


def test_the_page_lists_what_is_missing_and_the_special_cases_share(written):
    page, _ = written
    assert "- `mmpretrain/resnet34_8xb32_in1k` (fail): tail: differs" in page
    assert "| zoo | special cases | families | share |" in page


def test_the_shipped_file_holds_what_passed(written):
    _, shipped = written
    by_name = {name: group for group in shipped["groups"] for name in group["names"]}
    assert by_name["open_clip/RN50"]["capabilities"] == ["image:export"]
    assert by_name["mmpretrain/vgg11_8xb32_in1k"] == {**by_name["mmpretrain/vgg11_8xb32_in1k"], "status": "fail"}
    assert shipped["versions"] == {"torch": "9"}


def test_files_of_other_versions_are_not_mixed(tool, tmp_path, capsys):
    first = write(tmp_path / "a.json", MMPRETRAIN)
    assert run(tool, tmp_path, first, write(tmp_path / "b.json", OPEN_CLIP, {"torch": "8"})) == 2
    assert "'torch': '8'" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()


def test_a_file_that_is_no_result_is_an_error_of_one_line(tool, tmp_path, capsys):
    (tmp_path / "x.json").write_text("[]")
    assert run(tool, tmp_path, tmp_path / "x.json") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "holds no results of `mdpd verify" in error and error.count("\n") == 1
