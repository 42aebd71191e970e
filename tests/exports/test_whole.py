"""An export is what was exported: a file that differs, is gone or was added is named, and no other model answers."""

from __future__ import annotations

import json
import logging
import random
import shutil

import pytest
import torch
from damaging import damage
from exporting import export, table
from picture_texts import picture_table, source_of
from running import text_table
from small_zoo import BACKBONES

from mdpd_plugins.cli.main import main
from mdpd_plugins.exports import load_export
from mdpd_plugins.registry.errors import CheckpointError, ConfigError, MDPDError

WEIGHTS = {
    "hf-vit": "model.safetensors",
    "hf-minilm": "model.safetensors",
    "encoder": "head.safetensors",
    "mm-resnet": "model.pth",
    "oc-text": "open_clip_model.safetensors",
    "pair": "text/model.safetensors",
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """One export a kind, and one of the same with other weights."""
    base = tmp_path_factory.mktemp("exports")
    texts = table(text_table(base / "texts.csv"), val_size=20)
    text, options = BACKBONES["hf-minilm"]
    sections = {
        "hf-minilm": {"data": texts},
        "oc-text": {"data": texts},
        "pair": {
            "data": {"source": source_of(picture_table(base / "pictures"), "answers"), "max_length": 8},
            "task": {"width": 16},
            "text_backbone": {"name": text, "pretrained": None, "options": options},
        },
    }
    for key in WEIGHTS:
        for seed in (0, 1):
            image = "hf-vit" if key == "pair" else key
            export(base / str(seed) / key, image, seed=seed, **sections.get(key, {}))
    return base


@pytest.fixture
def folder(exports, tmp_path):
    def copy(key, seed=0):
        return shutil.copytree(exports / str(seed) / key / "export", tmp_path / f"{key}-{seed}")

    return copy


@pytest.mark.parametrize("key", WEIGHTS)
def test_weights_of_another_export_are_refused_by_name(folder, key):
    one, other = folder(key), folder(key, 1)
    load_export(one), load_export(other)
    shutil.copy(other / WEIGHTS[key], one / WEIGHTS[key])
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS[key]} not what mdpd.json says"):
        load_export(one)
    shutil.copy(other / "mdpd.json", one)  # nor does the other's record fit what is left
    if len(list(one.rglob("*.safetensors"))) > 1:
        with pytest.raises(CheckpointError, match="not what mdpd.json says"):
            load_export(one)


@pytest.mark.parametrize("key", WEIGHTS)
def test_a_damaged_file_is_named_or_the_answer_is_the_same(exports, tmp_path, key):
    source = exports / "0" / key / "export"
    known = load_export(source).model.state_dict()
    names = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
    rng, told = random.Random(key), 0
    for case in range(3 * len(names)):
        folder, name = tmp_path / f"{case}", names[case % len(names)]
        shutil.copytree(source, folder)
        kind = damage(rng, folder / name, exports / "1" / key / "export" / name)
        try:
            found = load_export(folder).model.state_dict()
        except MDPDError as error:
            assert name.name in str(error), (kind, name, error)
            told += 1
        else:
            assert found.keys() == known.keys() and all(torch.equal(v, known[k]) for k, v in found.items())
            same = (folder / name).is_file() and (folder / name).read_bytes() == (source / name).read_bytes()
            assert name.name == "README.md" or same, (kind, name)
        shutil.rmtree(folder)
    assert told > len(names)


def test_every_file_that_differs_is_named_at_once_with_the_way_out(folder):
    export = folder("hf-minilm")
    (export / "tokenizer.json").unlink()
    (export / "config.json").write_text((export / "config.json").read_text().replace("32", "33", 1))
    (export / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError) as error:
        load_export(export)
    assert "tokenizer.json missing; config.json not what mdpd.json says" in str(error.value)
    assert "adapter_config.json not part of it" in str(error.value)
    assert "export again with `mdpd export WORK_DIR OUT`" in str(error.value)


def test_what_no_loader_reads_may_change_and_be_added(folder):
    export = folder("hf-vit")
    (export / "README.md").write_text("my model")
    (export / "LICENSE").write_text("mine")
    (export / "notes.md").write_text("a note")
    (export / ".git").mkdir()
    (export / ".git" / "config.json").write_text("{}")
    load_export(export)


GONE = object()


@pytest.mark.parametrize(
    "change",
    [{"classes": ["b", "a"]}, {"digest": None}, {"digest": GONE}, {"files": {}}, {"max_length": 3}],
    ids=["classes", "no digest", "digest gone", "files", "length"],
)
def test_a_record_that_was_changed_is_refused(folder, change):
    export = folder("hf-minilm")
    record = {**json.loads((export / "mdpd.json").read_text()), **change}
    (export / "mdpd.json").write_text(json.dumps({k: v for k, v in record.items() if v is not GONE}))
    with pytest.raises(CheckpointError, match=r"mdpd\.json' is not a record of an export \(it is not what was written"):
        load_export(export)


def test_an_export_from_before_there_were_sums_loads_with_one_line(folder, caplog):
    export = folder("hf-vit")
    record = json.loads((export / "mdpd.json").read_text())
    (export / "mdpd.json").write_text(json.dumps({k: v for k, v in record.items() if k not in ("files", "digest")}))
    with caplog.at_level(logging.WARNING):
        load_export(export)
    (note,) = [r.message for r in caplog.records if "signed" in r.message]
    assert note.startswith(f"note: {export} was exported before") and "\n" not in note


def test_the_command_line_says_it_in_one_line(folder, capsys, tmp_path):
    export = folder("hf-minilm")
    (export / "tokenizer.json").unlink()
    assert main(["predict", str(export), "a text"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: the export") and "tokenizer.json missing" in line


def test_no_record_and_no_folder_are_said_as_before(folder):
    export = folder("hf-vit")
    (export / "mdpd.json").unlink()
    with pytest.raises(ConfigError, match=r"has no mdpd\.json"):
        load_export(export)
