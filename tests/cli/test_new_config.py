"""`mdpd new-config`: a configuration that trains, for data that nobody described."""

from __future__ import annotations

import json
import os

import pytest
from running import image_folder, text_table

from mdpd_plugins.cli.main import main
from mdpd_plugins.training import load_config


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Run in an empty folder: what the command returned, and what it said."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        given = [*map(str, arguments)]
        named = [] if "--backbone" in given else ["--backbone", "huggingface/minilm-l6"]
        status = main(["new-config", *given, *named])
        said = capsys.readouterr()
        return status, said.out + said.err

    call.folder = tmp_path
    return call


def test_a_folder_of_images(here):
    image_folder(here.folder / "flowers")
    status, said = here("flowers", "--backbone", "huggingface/dinov2-small")
    assert status == 0 and "image folder: train 21, val 3; 3 classes" in said and "wrote flowers.py" in said
    config = load_config("flowers.py")
    assert config.backbone.name == "huggingface/dinov2-small"
    assert config.data.source == {"type": "image_folder", "root": str(here.folder / "flowers")}


def test_a_table_of_texts_trains_with_the_backbone_that_was_named(here):
    text_table(here.folder / "mails.csv")
    sizes = "dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)"
    status, said = here("mails.csv", "--backbone", "huggingface/minilm-l6", "--out", "mine.py")
    assert status == 0, said
    assert load_config("mine.py").data.source.label_column == "label"
    options = ["train.max_steps=1", "backbone.pretrained=None", f"backbone.options={sizes}"]
    options[2:] = [f"backbone.options.{pair}" for pair in sizes[5:-1].split(", ")]
    assert main(["train", "mine.py", "--work-dir", "run", "--cfg-options", *options]) == 0
    assert os.path.isfile("run/summary.json")


ROWS = [
    {"body": f"words and more words {i}", "kind": "ab"[i % 2], "photo": f"p{i}.JPG", "rank": i / 3} for i in range(40)
]


@pytest.mark.parametrize(
    ("keep", "arguments", "wanted"),
    [
        (("body", "kind"), (), {"text_column": "body", "label_column": "kind"}),
        (("body", "rank"), ("--label-column", "rank"), {"text_column": "body", "label_kind": "float"}),
        (("body", "rank", "kind"), (), {"label_column": "kind", "text_column": "body"}),
    ],
)
def test_columns_are_found_by_what_they_hold(here, keep, arguments, wanted):
    lines = [json.dumps({key: row[key] for key in keep}) for row in ROWS]
    (here.folder / "t.jsonl").write_text("\n".join(lines))
    status, said = here("t.jsonl", *arguments)
    assert status == 0, said
    assert load_config("t.py").data.source.to_dict().items() >= wanted.items()


def test_what_cannot_be_guessed_is_asked_for_with_the_columns(here):
    (here.folder / "t.csv").write_text("one,two\n" + "".join(f"words {i},more {i}\n" for i in range(20)))
    status, said = here("t.csv")
    assert status == 2 and "say it with --label-column; its columns: one, two" in said.lower()
    status, said = here("t.csv", "--label-column", "three")
    assert status == 2 and "has no column 'three' for --label-column: one, two" in said
    assert not (here.folder / "t.py").exists()


def test_nothing_is_overwritten_and_nothing_is_written_for_what_cannot_be_read(here):
    text_table(here.folder / "t.csv")
    (here.folder / "t.py").write_text("mine = 1\n")
    status, said = here("t.csv")
    assert status == 2 and "'t.py' exists: name another file with --out" in said
    assert (here.folder / "t.py").read_text() == "mine = 1\n"
    for arguments, message in (
        (("nowhere", "--out", "a.py"), "neither a folder of images"),
        (("t.csv", "--out", "a.yaml"), "its name ends in .py"),
        (("t.csv", "--out", "a.py", "--backbone", "huggingface/dinov2-small"), "reads images, but the data is texts"),
        (("t.csv", "--out", "no/a.py"), "lies in a folder that does not exist"),
    ):
        status, said = here(*arguments)
        assert status == 2 and message in said
    assert sorted(p.name for p in here.folder.iterdir()) == ["t.csv", "t.py"]


def test_pictures_with_texts_need_something_that_reads_the_texts(here):
    image_folder(here.folder / "pictures")
    pictures = sorted(str(p.relative_to(here.folder)) for p in here.folder.rglob("*.png"))
    rows = ({"question": f"what is in picture {i}?", "photo": p, "kind": "ab"[i % 2]} for i, p in enumerate(pictures))
    (here.folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    status, said = here("t.jsonl", "--backbone", "huggingface/dinov2-small")
    assert status == 2 and "name what reads the texts with --text-backbone" in said
    status, said = here("t.jsonl", "--backbone", "huggingface/dinov2-small", "--text-backbone", "huggingface/minilm-l6")
    assert status == 0, said
    config = load_config("t.py")
    assert config.text_backbone.name == "huggingface/minilm-l6" and config.data.source.image_column == "photo"
