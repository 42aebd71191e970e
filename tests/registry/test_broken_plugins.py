"""Plugins broken in every way we could think of: each costs its own backbones and nothing else."""

import json
import os
import re

import pytest
from packages import GOOD_PLUGIN, run_mdpd, write_package, write_plugin

HEADER = "from mdpd_plugins.registry import BackboneSpec, hookimpl\n\n"

BROKEN = {
    "importing": ("import json\nraise RuntimeError('while loading')", "RuntimeError: while loading"),
    "syntax": ("def broken(:\n    pass", "SyntaxError"),
    "dependency": ("import no_such_dependency", "it needs the package 'no_such_dependency'"),
    "exiting": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "nothing": ("x = 1", "implements no hook"),
    "hookname": (
        HEADER + "@hookimpl\ndef register_backbone(register):\n    pass",
        "unknown hook 'register_backbone'; did you mean 'register_backbones'",
    ),
    "signature": (HEADER + "@hookimpl\ndef register_backbones(registry):\n    pass", "wrong signature"),
    "noargument": (
        HEADER + "@hookimpl\ndef register_backbones():\n    pass",
        "it takes (), and must take (register)",
    ),
    "wrapper": (HEADER + "@hookimpl(wrapper=True)\ndef adapt_backbone(model):\n    yield", "is a wrapper"),
    "hook": (
        HEADER + "@hookimpl\ndef register_backbones(register):\n    {}['missing']",
        "it raised in register_backbones: KeyError: 'missing'",
    ),
    "rubbish": (
        HEADER + "@hookimpl\ndef register_backbones(register):\n    register({'name': 'rubbish/one'})",
        "register() takes a BackboneSpec, got dict",
    ),
    "twice": (
        HEADER
        + "@hookimpl\ndef register_backbones(register):\n"
        + "    for _ in range(2):\n        register(BackboneSpec('twice/one', build='a:b'))",
        "'twice' registers 'twice/one' twice",
    ),
    "badspec": (
        HEADER + "@hookimpl\ndef register_backbones(register):\n    register(BackboneSpec('one', build='a:b'))",
        "BackboneSpecError: backbone name 'one'",
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for name, (source, _) in BROKEN.items():
        write_plugin(folder, name, source)
    write_package(folder, "acme-gone", plugins={"gone": "acme_no_such_module"})
    write_package(folder, "acme-value", plugins={"value": "not a module"})
    write_package(folder, "acme-attribute", plugins={"attribute": "json:no_such_attribute"})
    write_package(folder, "acme-none", modules={"acme_none": "plugin = None"}, plugins={"none": "acme_none:plugin"})
    write_plugin(folder, "good")
    # A line that the standard library's reader of this file fails on.
    write_package(folder, "acme-metadata", plugins={"metadata": "json"})
    entry_points = folder / "acme_metadata-1.0.dist-info" / "entry_points.txt"
    entry_points.write_text("[mdpd.plugins]\nthis line is not an entry\n")
    return folder


@pytest.fixture(scope="module")
def doctor(site):
    return json.loads(run_mdpd("doctor", "--quick", "--json", site=site).stdout)


def test_everything_else_works_and_one_line_says_what_was_skipped(site):
    done = run_mdpd("list-backbones", "--json", site=site)
    assert done.returncode == 0, done.stderr
    names = {row["name"] for row in json.loads(done.stdout)}
    assert {"good/one", "huggingface/bert-base-uncased"} <= names
    assert not any(name.partition("/")[0] in BROKEN for name in names)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"warning: {len(BROKEN) + 5} plugins skipped")
    assert "mdpd doctor" in line


@pytest.mark.parametrize("name", BROKEN)
def test_doctor_names_the_plugin_its_distribution_and_the_reason(doctor, name):
    (row,) = (plugin for plugin in doctor["plugins"] if plugin["plugin"] == name)
    assert (row["distribution"], row["version"], row["status"]) == (f"acme-{name}", "1.0", "failed")
    assert BROKEN[name][1] in row["reason"]
    assert row["traceback"].startswith("Traceback")
    if name in ("importing", "syntax", "dependency", "hook", "rubbish", "badspec"):
        assert f"acme_{name}.py" in row["traceback"]


@pytest.mark.parametrize(
    ("distribution", "reason"),
    [
        ("acme-gone", "No module named 'acme_no_such_module'"),
        ("acme-value", "neither 'module' nor 'module:attribute'"),
        ("acme-attribute", "no attribute 'no_such_attribute'"),
        ("acme-none", "names None"),
        ("acme-metadata", "its metadata cannot be read"),
    ],
)
def test_doctor_explains_entry_points_that_lead_nowhere(doctor, distribution, reason):
    (row,) = (plugin for plugin in doctor["plugins"] if plugin["distribution"] == distribution)
    assert row["status"] == "failed" and reason in row["reason"]


def test_a_broken_plugin_fails_doctor_and_is_shown_with_its_traceback(site, doctor):
    assert doctor["ok"] is False
    done = run_mdpd("doctor", "--quick", site=site)
    assert done.returncode == 1
    assert "PROBLEM importing (acme-importing 1.0): it cannot be imported: RuntimeError" in done.stdout
    assert "raise RuntimeError('while loading')" in done.stdout
    assert "ok      good (acme-good 1.0): 1 backbone\n" in done.stdout


def test_strict_mode_makes_a_broken_plugin_fatal(tmp_path):
    write_plugin(tmp_path, "syntax", BROKEN["syntax"][0])
    done = run_mdpd("list-backbones", "--json", site=tmp_path, strict=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: plugin 'syntax' of acme-syntax 1.0: it cannot be imported: SyntaxError")
    assert "Traceback" not in done.stderr


def test_strict_mode_is_content_with_good_plugins(tmp_path):
    write_plugin(tmp_path, "good")
    done = run_mdpd("list-backbones", "--zoo", "good", "--json", site=tmp_path, strict=True)
    assert done.returncode == 0
    assert [row["name"] for row in json.loads(done.stdout)] == ["good/one"]


def test_a_plugin_that_is_slow_to_load_is_named_with_its_time(tmp_path):
    write_plugin(
        tmp_path, "slow", "import time\ntime.sleep(1.1)\n" + GOOD_PLUGIN.format(zoo="slow", module="acme_slow")
    )
    done = run_mdpd("list-backbones", "--zoo", "slow", "--json", site=tmp_path)
    assert [row["name"] for row in json.loads(done.stdout)] == ["slow/one"]
    (line,) = [line for line in done.stderr.splitlines() if "'slow'" in line]
    assert re.fullmatch(r"note: plugin 'slow' of acme-slow took \d+\.\d s to load; `mdpd doctor` says what to do", line)
    found = json.loads(run_mdpd("doctor", "--quick", "--json", site=tmp_path).stdout)["findings"]
    (note,) = [finding for finding in found if finding["topic"] == "plugin slow"]
    assert note["level"] == "note" and "acme-slow takes" in note["message"] and "import no framework" in note["fix"]


def test_of_two_installed_versions_doctor_says_which_is_used_and_which_is_shadowed(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write_plugin(first, "good", version="2.0")
    write_plugin(second, "good", version="1.0")
    done = run_mdpd("doctor", "--quick", "--json", site=f"{first}{os.pathsep}{second}")
    rows = [row for row in json.loads(done.stdout)["plugins"] if row["plugin"] == "good"]
    used, shadowed = sorted(rows, key=lambda row: row["status"], reverse=True)
    assert (used["version"], used["status"], used["backbones"]) == ("2.0", "ok", 1)
    assert (shadowed["version"], shadowed["status"]) == ("1.0", "failed")
    assert f"in {second}, is shadowed: version 2.0 of acme-good, in {first}, comes first" in shadowed["reason"]
    assert "pip uninstall acme-good" in shadowed["reason"]
