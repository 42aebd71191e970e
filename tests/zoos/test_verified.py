"""What was verified: from rows of the kit to the file that ships, and from there to listings."""

import json

import pytest
from packages import run_mdpd, write_plugin

from mdpd_plugins.cli.main import main
from mdpd_plugins.registry import ConfigError, load_catalogue
from mdpd_plugins.zoos import verified

ROWS = [
    {
        "name": "huggingface/bert",
        "status": "pass",
        "checks": {
            "attention": {"status": "pass"},
            "export": {"status": "pass"},
            "odd_size": {"status": "not applicable"},
            "tail": {"status": "pass"},
        },
    },
    {
        "name": "open_clip/RN50",
        "status": "fail",
        "checks": {
            "image/attention": {"status": "not applicable"},
            "image/export": {"status": "pass"},
            "text/attention": {"status": "pass"},
            "text/export": {"status": "fail"},
        },
    },
    {"name": "huggingface/albert", "status": "unavailable", "checks": {}},
]


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Three rows in place of the file that ships."""
    file = tmp_path / "verified.json"
    file.write_text(verified.as_text(ROWS, {"transformers": "1.0"}))
    content = verified.load(file)
    monkeypatch.setattr(verified, "load", lambda: content)
    return content


def names(capsys, *arguments):
    assert main(["list-backbones", "--json", *arguments]) == 0
    return [row["name"] for row in json.loads(capsys.readouterr().out)]


def test_a_capability_is_a_check_that_ran_and_passed(shipped):
    bert, clip = shipped.backbones["huggingface/bert"], shipped.backbones["open_clip/RN50"]
    assert (bert.status, bert.capabilities) == ("pass", ("attention", "export"))
    assert (clip.status, clip.capabilities) == ("fail", ("image:export", "text:attention"))
    assert shipped.backbones["huggingface/albert"].capabilities == ()
    assert shipped.versions == {"transformers": "1.0"}


def test_every_capability_belongs_to_a_check_of_the_kit():
    from mdpd_plugins.testing import CHECKS

    assert {check for check, _ in verified.CAPABILITIES.values()} <= {check.name for check in CHECKS}


def test_listings_filter_by_capability_of_the_whole_or_of_a_part(shipped, capsys):
    assert names(capsys, "--capability", "export") == ["huggingface/bert", "open_clip/RN50"]
    assert names(capsys, "--capability", "text:attention") == ["open_clip/RN50"]
    assert names(capsys, "--capability", "image:attention") == []
    assert names(capsys, "--capability", "attention", "--capability", "export", "--zoo", "huggingface") == [
        "huggingface/bert"
    ]


def test_a_filter_says_when_other_versions_were_verified(shipped, capsys):
    assert main(["list-backbones", "--capability", "export"]) == 0
    assert "note: capabilities were verified with transformers 1.0 (here: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "hint"), [("atention", "did you mean 'attention'"), ("text:pading", "did you mean 'text:padding'")]
)
def test_a_capability_that_does_not_exist_is_answered_with_the_closest(capsys, asked, hint):
    assert main(["list-backbones", "--capability", asked]) == 2
    assert hint in capsys.readouterr().err


def test_a_name_in_the_file_says_nothing_of_another_distribution(tmp_path, shipped):
    write_plugin(tmp_path, "third")
    done = run_mdpd("list-backbones", "--zoo", "third", "--json", site=tmp_path)
    (row,) = json.loads(done.stdout)
    assert (row["verified"], row["capabilities"]) == ("", [])
    registered = load_catalogue().get("huggingface/bert")
    taken_over = type(registered)(registered.spec, "other", "acme-other", "1.0")
    assert shipped.get(registered) is not None and shipped.get(taken_over) is None


def test_without_the_file_nothing_is_verified(tmp_path):
    assert verified.load(tmp_path / "none.json") == verified.Verified({}, {})


def test_the_file_that_ships_names_backbones_of_the_catalogue_and_known_capabilities():
    found = verified.load(verified.FILE)
    known = {f"{part}{capability}" for part in ("", "image:", "text:") for capability in verified.CAPABILITIES}
    assert found.backbones and found.versions
    assert {c for v in found.backbones.values() for c in v.capabilities} <= known
    if found.other_versions():
        pytest.skip("other versions of the zoos are installed: they may list other names")
    listed = {registered.name for registered in load_catalogue().select()}
    zoos = set(load_catalogue().zoos)
    assert {n for n in found.backbones if n.partition("/")[0] in zoos} <= listed


def test_a_wrong_capability_is_refused_before_anything_is_read():
    with pytest.raises(ConfigError, match="no capability 'speed'; known: "):
        verified.check_capability("speed")
