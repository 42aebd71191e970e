"""What the loader of plugins says of names and errors, and which plugins the environment asks for."""

from __future__ import annotations

import importlib.metadata

import pytest
from packages import write_package, write_plugin

from mdpd_plugins.registry.errors import PluginError
from mdpd_plugins.registry.loader import (
    DISABLE,
    ONLY,
    Candidate,
    Choice,
    Loader,
    PluginFailure,
    describe_error,
    find_candidates,
    format_error,
    printable,
    strict,
)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def candidate(plugin="vision", distribution="acme-vision"):
    return Candidate(plugin, distribution, "1.0", importlib.metadata.EntryPoint(plugin, "a:b", "mdpd.plugins"))


def test_errors_are_described_in_a_line_whatever_they_are():
    assert describe_error(ValueError("one\ntwo")) == "ValueError: one"
    assert describe_error(ValueError("  ")) == describe_error(ValueError()) == "ValueError"
    assert describe_error(Mute()) == "Mute"
    assert describe_error(ValueError("a\x1b[2Jb\udcff")) == "ValueError: a\\x1b[2Jb\\udcff"


def test_a_traceback_is_written_even_of_an_error_that_cannot_be():
    try:
        raise Mute
    except Mute as error:
        assert "Traceback" in format_error(error) and "Mute" in format_error(error)
    failure = candidate().failure("its reason", ValueError("inside"))
    assert failure.reason == "its reason" and "ValueError: inside" in failure.traceback
    assert (failure.plugin, failure.distribution, failure.version) == ("vision", "acme-vision", "1.0")
    assert candidate().failure("its reason").traceback == "" and not failure.unfinished


def test_only_what_cannot_be_shown_is_escaped():
    assert printable("größer\n\t☃") == "größer\\n\\t☃" and printable(3) == "3"


def test_a_failure_says_which_package_it_is_of():
    assert str(PluginFailure("a", "acme", "why", "", "2")) == "plugin 'a' of acme 2: why"
    assert str(PluginFailure("a", "acme", "why", "")) == "plugin 'a' of acme: why"
    assert str(PluginFailure("a", "", "why", "")) == "plugin 'a' of an unnamed distribution: why"


@pytest.mark.parametrize(
    ("content", "told"), [(None, 0), (b"\xff", 0), (b"[mdpd.plugins]\n\xff = a\n", 2)], ids=["loop", "bytes", "ours"]
)
def test_metadata_that_cannot_be_read_costs_no_other_distribution(tmp_path, monkeypatch, content, told):
    for name in ("acme-aaa", "acme-zzz"):  # folders are read in any order
        write_package(tmp_path, name)
        file = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info" / "entry_points.txt"
        file.symlink_to(file) if content is None else file.write_bytes(content)
    for name in ("b", "y"):
        write_plugin(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    found, failures = find_candidates()
    assert {"b", "y", "huggingface"} <= {c.plugin for c in found} and len(failures) == told
    assert all("entry points cannot be read: UnicodeDecodeError" in failure.reason for failure in failures)


@pytest.mark.parametrize(
    ("only", "disabled", "off"),
    [
        (None, None, ""),
        ("  ", "", ""),
        ("vision", None, ""),
        ("acme-vision, other", None, ""),
        ("acme-vision:vision", None, ""),
        ("other,another", None, f"{ONLY}=another,other"),
        (",", None, f"{ONLY}="),
        (None, "vision", f"{DISABLE}=vision"),
        (None, " acme-vision ,other", f"{DISABLE}=acme-vision,other"),
        (None, "acme-vision:vision", f"{DISABLE}=acme-vision:vision"),
        (None, "acme:vision,visio", ""),
        ("vision", "vision", f"{DISABLE}=vision"),
        ("other", "vision", f"{ONLY}=other"),
    ],
)
def test_which_plugins_the_environment_asks_for(monkeypatch, only, disabled, off):
    for name, value in ((ONLY, only), (DISABLE, disabled)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert Choice.from_environment().turned_off(candidate()) == off


def test_names_that_nobody_has_are_told(monkeypatch):
    monkeypatch.setenv(ONLY, "vision,nobody")
    monkeypatch.setenv(DISABLE, "acme-vision,acme-vision:vision,Vision")
    assert Choice.from_environment().unknown([candidate()]) == ["Vision", "nobody"]
    monkeypatch.delenv(ONLY)
    assert Choice.from_environment().unknown([candidate()]) == ["Vision"]


@pytest.mark.parametrize(("value", "found"), [("1", True), (" On ", True), ("yes", True), ("0", False), ("", False)])
def test_strict_mode_is_asked_for_in_words(monkeypatch, value, found):
    monkeypatch.setenv("MDPD_STRICT_PLUGINS", value)
    assert strict() is found
    monkeypatch.delenv("MDPD_STRICT_PLUGINS")
    assert strict() is False


@pytest.mark.parametrize("value", ["no_such_module_anywhere", "not a module", "json:no_such_attribute", "json"])
def test_what_cannot_be_loaded_is_said_to_be_none_and_kept(value, monkeypatch):
    monkeypatch.delenv("MDPD_STRICT_PLUGINS", raising=False)
    loader = Loader()
    entry_point = importlib.metadata.EntryPoint("vision", value, "mdpd.plugins")
    assert loader.load(Candidate("vision", "acme-vision", "1.0", entry_point)) is False
    (failure,) = loader.failures
    assert failure.reason and not failure.unfinished and loader.candidates == {}
    assert loader.manager.get_plugins() == set()


def test_what_is_left_out_is_told_from_what_failed(monkeypatch):
    monkeypatch.delenv("MDPD_STRICT_PLUGINS", raising=False)
    loader = Loader()
    loader.leave_out(candidate(), "it never came back")
    (failure,) = loader.failures
    assert failure.unfinished and failure.reason == "it never came back" and failure.traceback == ""
    monkeypatch.setenv("MDPD_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="it never came back .fatal because MDPD_STRICT_PLUGINS"):
        loader.leave_out(candidate(), "it never came back")
