"""Plugins that end, crash, hang or disturb the process that loads them: each costs itself, and nothing else remains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hostile_plugins import CHANGING, ENDING, RAISING, good
from packages import run_mdpd, write_package, write_plugin


def names(done):
    assert done.returncode == 0, done.stderr
    return {row["name"] for row in json.loads(done.stdout)}


def rows(done):
    return {row["plugin"]: row for row in json.loads(done.stdout)["plugins"]}


# ---- loads that never come back


@pytest.mark.parametrize("name", ENDING)
def test_a_plugin_that_ended_python_once_is_left_out_from_then_on(tmp_path, name):
    write_plugin(tmp_path / "site", name, ENDING[name])
    write_plugin(tmp_path / "site", "good")
    first = run_mdpd("list-backbones", "--json", site=tmp_path / "site")
    assert first.stdout == "" and first.returncode != 2
    second = run_mdpd("list-backbones", "--json", site=tmp_path / "site")
    assert "good/one" in names(second)
    assert second.stderr.startswith(f"warning: 1 plugin skipped ({name}); `mdpd doctor` shows why")
    row = rows(run_mdpd("doctor", "--quick", "--json", site=tmp_path / "site"))[name]
    assert row["status"] == "failed" and "never came back" in row["reason"]
    assert "MDPD_RETRY_PLUGINS=1 loads it again" in row["reason"]


def test_a_plugin_that_loops_is_left_out_while_it_still_does_and_afterwards(tmp_path):
    site, cache = tmp_path / "site", tmp_path / "site.cache"
    write_plugin(site, "loop", "while True:\n    pass")
    env = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "mdpd_plugins.cli.main", "list-backbones"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not any(mark.stat().st_size for mark in cache.glob("mdpd/loading/*")):  # written, not only made
            time.sleep(0.02)
        (mark,) = cache.glob("mdpd/loading/*")
        os.utime(mark, (time.time() - 60,) * 2)  # as if it had looped for a minute
        assert "huggingface/vit-base-patch16-224" in names(run_mdpd("list-backbones", "--json", site=site))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    done = run_mdpd("list-backbones", "--json", site=site)
    assert "warning: 1 plugin skipped (loop)" in done.stderr


def test_two_processes_that_load_a_plugin_at_once_are_no_fault_of_it(tmp_path):
    site = tmp_path / "site"
    write_plugin(site, "slow", "import time\ntime.sleep(1.5)\n" + good("slow"))
    env = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "site.cache")}
    command = [sys.executable, "-m", "mdpd_plugins.cli.main", "list-backbones", "--json"]
    started = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in started:
        assert "slow/one" in process.communicate()[0]
    assert not list((tmp_path / "site.cache").glob("mdpd/loading/*"))


def test_it_is_loaded_again_when_asked_for_and_when_another_version_is_there(tmp_path):
    site, broken = tmp_path / "site", tmp_path / "broken"
    broken.touch()
    write_plugin(site, "once", f"import os\nif os.path.exists({str(broken)!r}):\n    os._exit(3)\n" + good("once"))
    assert run_mdpd("list-backbones", site=site).returncode == 3
    assert "once/one" not in names(run_mdpd("list-backbones", "--json", site=site))
    assert run_mdpd("list-backbones", site=site, env={"MDPD_RETRY_PLUGINS": "1"}).returncode == 3
    broken.unlink()
    assert "once/one" not in names(run_mdpd("list-backbones", "--json", site=site))
    assert "once/one" in names(run_mdpd("list-backbones", "--json", site=site, env={"MDPD_RETRY_PLUGINS": "1"}))
    assert "once/one" in names(run_mdpd("list-backbones", "--json", site=site))
    broken.touch()
    assert run_mdpd("list-backbones", site=site).returncode == 3
    broken.unlink()
    info = site / "acme_once-1.0.dist-info"
    (info / "METADATA").write_text((info / "METADATA").read_text().replace("1.0", "1.1"))
    assert "once/one" in names(run_mdpd("list-backbones", "--json", site=site))


# What doctor does before it imports torch, which would take most of a minute.
TRIED = """
from mdpd_plugins.cli.doctor import _tried_again
from mdpd_plugins.registry import load_catalogue
catalogue, tried = _tried_again(load_catalogue())
for failure, ended in tried.items():
    print(failure.plugin, ended)
for info in catalogue.plugins:
    if info.distribution.startswith("acme"):
        print(info.plugin)
"""


def test_doctor_tries_it_in_a_process_of_its_own(tmp_path):
    site, broken = tmp_path / "site", tmp_path / "broken"
    broken.touch()
    write_plugin(site, "once", f"import os\nif os.path.exists({str(broken)!r}):\n    os._exit(3)\n" + good("once"))
    write_plugin(site, "good")
    run_mdpd("list-backbones", site=site)

    def doctor():
        return subprocess.run(
            [sys.executable, "-c", TRIED], env=env, capture_output=True, text=True
        ).stdout.splitlines()

    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "site.cache"), "PYTHONPATH": str(site)}
    assert doctor() == ["once tried again: it ended Python with status 3", "good"]
    broken.unlink()
    assert doctor() == ["good", "once"]


def test_strict_mode_says_that_a_plugin_was_left_out(tmp_path):
    write_plugin(tmp_path / "site", "exit", ENDING["exit"])
    run_mdpd("list-backbones", site=tmp_path / "site")
    done = run_mdpd("list-backbones", site=tmp_path / "site", strict=True)
    assert done.returncode == 2 and "never came back" in done.stderr


def test_a_cache_folder_that_cannot_be_written_costs_nothing(tmp_path):
    site = tmp_path / "site"
    write_plugin(site, "good")
    (tmp_path / "file").touch()
    done = run_mdpd("list-backbones", "--json", site=site, env={"XDG_CACHE_HOME": str(tmp_path / "file")})
    assert "good/one" in names(done)


# ---- what a plugin raises


@pytest.mark.parametrize("name", RAISING)
def test_whatever_a_plugin_raises_costs_that_plugin(tmp_path, name):
    source, reason = RAISING[name]
    write_plugin(tmp_path / "site", name, source)
    write_plugin(tmp_path / "site", "good")
    assert "good/one" in names(run_mdpd("list-backbones", "--json", site=tmp_path / "site"))
    row = rows(run_mdpd("doctor", "--quick", "--json", site=tmp_path / "site"))[name]
    assert row["status"] == "failed" and reason in row["reason"]
    assert not list((tmp_path / "site.cache").glob("mdpd/loading/*")), "it did come back"


# ---- what a plugin changes

AFTER = """
import json, os, signal, sys, time, warnings
handlers = lambda: {str(s): repr(signal.getsignal(s)) for s in signal.valid_signals()}
before = handlers(), os.getcwd(), sys.getrecursionlimit(), warnings.filters[:], sys.stdin, sys.stdout, sys.stderr
from mdpd_plugins.registry import load_catalogue
catalogue = load_catalogue()
after = handlers(), os.getcwd(), sys.getrecursionlimit(), warnings.filters[:], sys.stdin, sys.stdout, sys.stderr
time.sleep(float(sys.argv[1]))
# A stream that was closed itself is another object.
same = [a == b for a, b in zip(before, after)]
names = [registered.name for registered in catalogue.select()]
print(json.dumps({"same": same[:4], "streams": same[4:], "names": names, "read": sys.stdin.read()}), flush=True)
print("to standard error", file=sys.stderr)
os.write(1, b"written\\n")
"""


@pytest.mark.parametrize("name", CHANGING)
def test_the_process_is_afterwards_what_it_was(tmp_path, name):
    site = tmp_path / "site"
    write_plugin(site, name, f"{CHANGING[name]}\n{good(name)}")
    write_plugin(site, "zlast")
    env = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    wait = "0.8" if name == "alarm" else "0"
    command = [sys.executable, "-c", AFTER, wait]
    done = subprocess.run(command, env=env, input="given", capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    line, written = done.stdout.splitlines()
    found = json.loads(line)
    assert found["same"] == [True] * 4 and found["read"] == "given"
    assert all(found["streams"]) or name == "closing_originals"
    assert {f"{name}/one", "zlast/one"} <= set(found["names"])
    assert "to standard error" in done.stderr and written == "written"
    if name == "printing":
        assert done.stderr.count("noise") == 3


# ---- which plugins are loaded at all


def test_a_disabled_plugin_is_not_even_imported(tmp_path):
    site, mark = tmp_path / "site", tmp_path / "imported"
    write_plugin(site, "loud", f"open({str(mark)!r}, 'w')\n" + good("loud"))
    write_plugin(site, "good")
    for name in ("loud", "acme-loud", "acme-loud:loud"):
        done = run_mdpd("list-backbones", "--json", site=site, env={"MDPD_DISABLE_PLUGINS": f"{name}, other"})
        assert not mark.exists() and "good/one" in names(done) and "loud/one" not in names(done)
        assert "skipped" not in done.stderr
    done = run_mdpd("list-backbones", "--json", site=site, env={"MDPD_ONLY_PLUGINS": "good"})
    assert names(done) == {"good/one"} and not mark.exists()
    both = {"MDPD_ONLY_PLUGINS": "good,loud", "MDPD_DISABLE_PLUGINS": "loud"}
    assert names(run_mdpd("list-backbones", "--json", site=site, env=both)) == {"good/one"}
    assert "loud/one" in names(run_mdpd("list-backbones", "--json", site=site, env={"MDPD_ONLY_PLUGINS": " "}))
    assert mark.exists()


def test_doctor_says_who_provides_what_and_what_is_off(tmp_path):
    site = tmp_path / "site"
    for name in ("loud", "good"):
        write_plugin(site, name)
    env = {"MDPD_DISABLE_PLUGINS": "loud,lod"}
    done = run_mdpd("doctor", "--quick", "--json", site=site, env=env)
    found = rows(done)
    assert (found["loud"]["status"], found["loud"]["reason"]) == ("off", "left out by MDPD_DISABLE_PLUGINS=lod,loud")
    assert [found["good"][key] for key in ("status", "distribution", "backbones")] == ["ok", "acme-good", 1]
    assert any("names 'lod', and no plugin is called so" in f["message"] for f in json.loads(done.stdout)["findings"])
    assert "note    loud (acme-loud 1.0): left out by" in run_mdpd("doctor", "--quick", site=site, env=env).stdout
    shown = run_mdpd("show", "loud/one", site=site, env=env)
    assert shown.returncode == 2 and "Left out by MDPD_DISABLE_PLUGINS=lod,loud: loud" in shown.stderr


# ---- names and metadata


def test_names_and_metadata_that_cannot_be_written_are_escaped(tmp_path):
    site = tmp_path / "site"
    module = good("odd")
    write_package(site, "acme-odd", modules={"acme_odd": module}, plugins={"\x1b[2Jö\u202e": "acme_odd"})
    write_package(site, "acme-bytes", modules={"acme_bytes": good("bytes")}, plugins={"bytes": "acme_bytes"})
    (site / "acme_bytes-1.0.dist-info" / "entry_points.txt").write_bytes(b"[mdpd.plugins]\n\xff = acme_bytes\n")
    write_package(site, "acme-version", modules={"acme_version": good("version")}, plugins={"v": "acme_version"})
    metadata = b"Metadata-Version: 2.1\nName: acme-v\nVersion: \xff\x00\n"
    (site / "acme_version-1.0.dist-info" / "METADATA").write_bytes(metadata)
    for encoding in ("ascii", "utf-8"):
        env = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        listed = run_mdpd("list-backbones", site=site, env=env)
        assert listed.returncode == 0 and "odd/one" in listed.stdout and "Traceback" not in listed.stderr
        shown = run_mdpd("doctor", "--quick", site=site, env=env)
        assert "Traceback" not in shown.stderr and "\x1b" not in shown.stdout and r"\x1b[2J" in shown.stdout
        assert "its entry points cannot be read" in shown.stdout


def test_what_ended_python_is_not_imported_again_by_later_listings(tmp_path):
    site, mark = tmp_path / "site", tmp_path / "imported"
    for name in ("exit", "crash"):
        write_plugin(site, name, f"open({str(mark)!r}, 'a').write('{name} ')\n{ENDING[name]}")
    while run_mdpd("list-backbones", site=site).returncode:
        pass
    before = mark.read_text()
    assert {"exit", "crash"} <= set(before.split())
    assert run_mdpd("list-backbones", "--json", site=site).returncode == 0
    assert mark.read_text() == before
