"""What leaves a machine does not say whose it was, and nothing is contacted where that is not wanted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request

import pytest
from exporting import export, table
from running import text_table, write_config
from small_zoo import BACKBONES

from mdpd_plugins.adapters.storage.weights import download, reachable
from mdpd_plugins.cli.main import main
from mdpd_plugins.files import without_home


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and an environment variable that is nobody's business."""
    home = tmp_path / "homes" / "alice-of-here"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "alice-of-here")
    monkeypatch.setenv("API_TOKEN", "not-to-be-seen")
    return home


def test_an_export_its_card_and_a_report_do_not_name_the_home_folder(home):
    texts = table(text_table(home / "texts.csv"), val_size=20)
    export(home / "first", "hf-minilm", data=texts)
    start = home / "first" / "export"
    name, options = BACKBONES["hf-minilm"]
    backbone = {"name": name, "pretrained": str(start), "options": {**options, "tokenizer": str(start)}}
    config = write_config(home / "config", data=texts, backbone=backbone, train={"max_steps": 2})
    assert main(["train", str(config), "--work-dir", str(home / "run")]) == 0
    assert main(["report", str(home / "run")]) == 0
    files = [*(home / "run" / "export").rglob("*"), home / "run" / "report.html"]
    assert len(files) > 5
    for file in files:
        content = file.read_bytes()
        assert b"alice-of-here" not in content and b"not-to-be-seen" not in content, file
    record = json.loads((home / "run" / "export" / "mdpd.json").read_text())
    assert record["weights"] == "folder ~/first/export" and record["options"]["tokenizer"] == "~/first/export"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{home}", "~"),
        ("folder {home}/model and '{home}/data'", "folder ~/model and '~/data'"),
        ("/mnt{home}/model", "/mnt{home}/model"),
        ("{home}less/model", "{home}less/model"),
        ("{home}.old", "{home}.old"),
        ("nothing", "nothing"),
    ],
)
def test_only_the_home_folder_itself_is_shortened(home, text, shown):
    assert without_home(text.format(home=home)) == shown.format(home=home)


@pytest.mark.parametrize("variable", ["MDPD_OFFLINE", "HF_HUB_OFFLINE"])
def test_nothing_is_contacted_offline(tmp_path, monkeypatch, variable):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("something was contacted"))
    assert not reachable("https://example.org/weights.pth")
    with pytest.raises(OSError, match="cannot be reached"):
        download("https://example.org/weights.pth", tmp_path)


def test_the_command_hands_the_switch_to_the_libraries():
    code = "from mdpd_plugins.cli.main import main; main(['list-backbones', '--json', '--search', 'no such']);"
    code += "import sys; from huggingface_hub import constants; print(constants.HF_HUB_OFFLINE, file=sys.stderr)"
    env = {k: v for k, v in os.environ.items() if "OFFLINE" not in k} | {"MDPD_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1] == "True"


def test_a_download_that_breaks_off_is_no_file(tmp_path, monkeypatch):
    import io

    class Answer(io.BytesIO):
        headers = {"Content-Length": "100"}

    monkeypatch.setattr("mdpd_plugins.adapters.storage.weights.reachable", lambda *_: True)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Answer(b"x" * 60))
    with pytest.raises(OSError, match="broke off after 60 of 100 bytes"):
        download("https://example.org/weights.pth", tmp_path)
    assert not list(tmp_path.iterdir())
