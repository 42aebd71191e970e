"""Marks of loads that never came back: when a plugin is left out, and when it is not."""

from __future__ import annotations

import json
import os
import platform
import time

import pytest

from mdpd_plugins.registry import attempts
from mdpd_plugins.registry.attempts import PATIENCE, RETRY, Attempts

ABOUT = ("good", "acme-good", "1.0", "module", "/site")
NOBODY = 2**22 + 1  # no process has a number that high


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the marks lie."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(RETRY, raising=False)
    return tmp_path / "mdpd" / "loading"


def left(folder, *, age=0.0, process=NOBODY, host=None, about=ABOUT):
    """A mark that a load which never came back left."""
    with Attempts().loading(*about):
        (mark,) = folder.iterdir()
        content = {"process": process, "host": host or platform.node()}
    mark.write_text(json.dumps(content))
    os.utime(mark, (time.time() - age,) * 2)
    return mark


def test_a_load_that_came_back_leaves_nothing(folder):
    with Attempts().loading(*ABOUT):
        (mark,) = folder.iterdir()
        assert json.loads(mark.read_text()) == {"process": os.getpid(), "host": platform.node()}
        assert mark.name.startswith("good-acme-good-1.0-") and mark.name.endswith(f"@{os.getpid()}")
    assert list(folder.iterdir()) == []
    with pytest.raises(ValueError, match="its own"), Attempts().loading(*ABOUT):
        raise ValueError("its own")
    assert list(folder.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), Attempts().loading(*ABOUT):  # at once: nothing hung
        raise KeyboardInterrupt
    assert list(folder.iterdir()) == [] and Attempts().unfinished(*ABOUT) == ""


def test_an_interrupt_after_a_long_wait_leaves_the_mark(folder, monkeypatch):
    monkeypatch.setattr(attempts, "PATIENCE", 0.05)
    with pytest.raises(KeyboardInterrupt), Attempts().loading(*ABOUT):
        time.sleep(0.1)
        raise KeyboardInterrupt
    assert len(list(folder.iterdir())) == 1
    assert "never came back" in Attempts().unfinished(*ABOUT)


@pytest.mark.parametrize(
    ("mark", "out"),
    [
        ({}, True),  # its process has ended
        ({"process": os.getpid()}, False),  # it may still be loading
        ({"process": os.getpid(), "age": PATIENCE - 5}, False),
        ({"process": os.getpid(), "age": PATIENCE + 5}, True),
        ({"host": "elsewhere"}, False),  # of another machine nothing is known
        ({"host": "elsewhere", "age": PATIENCE + 5}, True),
    ],
)
def test_what_tells_a_load_that_hangs_from_one_that_goes_on(folder, mark, out):
    left(folder, **mark)
    reason = Attempts().unfinished(*ABOUT)
    assert bool(reason) is out
    if out:
        process, host = mark.get("process", NOBODY), mark.get("host", platform.node())
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() - mark.get("age", 0)))
        assert f"began at {began}" in reason and f"in process {process} on {host} never came back" in reason
    assert len(list(folder.iterdir())) == 1, "it stays until it is asked for again"


def test_one_of_several_loads_is_enough_and_other_plugins_are_not_meant(folder):
    left(folder, process=os.getpid()).rename(folder.parent / "kept")
    name = left(folder).name
    (folder.parent / "kept").rename(folder / f"{name.rpartition('@')[0]}@0")  # is looked at first
    assert Attempts().unfinished(*ABOUT)
    for other in (("other", *ABOUT[1:]), (*ABOUT[:2], "1.1", *ABOUT[3:]), (*ABOUT[:4], "/elsewhere")):
        assert Attempts().unfinished(*other) == ""


@pytest.mark.parametrize("value", ["1", " TRUE ", "yes", "on"])
def test_asking_for_it_again_removes_the_marks(folder, monkeypatch, value):
    left(folder)
    monkeypatch.setenv(RETRY, value)
    assert Attempts().unfinished(*ABOUT) == "" and list(folder.iterdir()) == []


@pytest.mark.parametrize("value", ["", "0", "no"])
def test_anything_else_does_not_ask_for_it(folder, monkeypatch, value):
    left(folder)
    monkeypatch.setenv(RETRY, value)
    assert Attempts().unfinished(*ABOUT)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"process": null, "host": "a"}', '{"process": "x", "host": "a"}'])
def test_a_mark_that_says_nothing_counts_once_it_is_old(folder, text):
    mark = left(folder)
    mark.write_text(text)
    assert Attempts().unfinished(*ABOUT) == "", "another machine may be writing it"
    os.utime(mark, (time.time() - PATIENCE - 5,) * 2)
    assert "in process ? on ? never came back" in Attempts().unfinished(*ABOUT)


def test_a_mark_that_vanishes_meanwhile_is_none(folder):
    mark = left(folder)
    known = Attempts()
    mark.unlink()
    assert known.unfinished(*ABOUT) == ""
    other = left(folder)
    mark = other.with_name(f"{other.name.rpartition('@')[0]}@0")  # is looked at first
    mark.touch()
    known = Attempts()
    mark.unlink()
    assert "never came back" in known.unfinished(*ABOUT), "the other one still counts"


def test_another_users_process_is_alive(folder, monkeypatch):
    def refuse(process, signal):
        raise PermissionError

    left(folder)
    monkeypatch.setattr(os, "kill", refuse)
    assert Attempts().unfinished(*ABOUT) == ""


def test_names_that_no_file_can_have(folder):
    about = ("../\ud800 x/" + "y" * 300, "", "1.0", "", "")
    with Attempts().loading(*about):
        (mark,) = folder.iterdir()
        assert len(mark.name) < 120 and "y" * 60 in mark.name


def test_the_cache_folder_is_the_users_and_a_relative_one_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (None, "", "relative"):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert attempts.cache_folder() == tmp_path / ".cache" / "mdpd"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert attempts.cache_folder() == tmp_path / "c" / "mdpd"


def test_a_folder_that_cannot_be_written_costs_the_protection_alone(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with Attempts().loading(*ABOUT):
        pass
    assert Attempts().unfinished(*ABOUT) == ""
