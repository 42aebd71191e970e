"""GLUE by name: its own files, what `datasets` saves, parquet files; and every way they can be wrong."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from mdpd_plugins.data import load_source
from mdpd_plugins.registry import ConfigError, DataError

# Header, a row for each of two labels, and what these labels are called afterwards; as in GLUE's own files, whose texts
# hold lone quotes, and whose other columns are not used.
OWN_FILES: dict[str, tuple[str, str | None, list[str], list[Any]]] = {
    "cola": (
        "CoLA",
        None,
        [
            "gj04\t1\t\tThe sailors rode the breeze clear of the rocks.",
            "gj04\t0\t*\tThe book what inspired them was long.",
        ],
        ["acceptable", "unacceptable"],
    ),
    "sst2": (
        "SST-2",
        "sentence\tlabel",
        ["hide new secretions \t0", "that loves its characters \t1"],
        ["negative", "positive"],
    ),
    "mrpc": (
        "MRPC",
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        [
            '1\t702876\t702977\tAmrozi accused his brother , " the witness .\tReferring to him .',
            "0\t2\t3\tOne .\tTwo .",
        ],
        ["equivalent", "not_equivalent"],
    ),
    "qqp": (
        "QQP",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        ["133273\t213221\t213222\tHow is life?\tWhat's life like?\t1", "402555\t536040\t536041\tHow?\tWhy?\t0"],
        ["duplicate", "not_duplicate"],
    ),
    "stsb": (
        "STS-B",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        [
            f"{i}\tmain-captions\tMSRvid\t2012\t1\tnone\tnone\tA plane.\tAn air plane.\t{s}"
            for i, s in enumerate(("5.000", "0.25"))
        ],
        [5.0, 0.25],
    ),
    "mnli": (
        "MNLI",
        "index\tpromptID\tsentence1\tsentence2\tlabel1\tgold_label",
        ["0\t31193n\tConceptually cream skimming.\tIt is.\tneutral\tneutral", "1\t2\tA.\tB.\tneutral\tcontradiction"],
        ["neutral", "contradiction"],
    ),
    "qnli": (
        "QNLI",
        "index\tquestion\tsentence\tlabel",
        ['0\tWhen did the "third Digimon begin?\tUnlike it.\tnot_entailment', "1\tWho?\tHe.\tentailment"],
        ["not_entailment", "entailment"],
    ),
    "rte": (
        "RTE",
        "index\tsentence1\tsentence2\tlabel",
        ["0\tNo Weapons Found.\tWeapons Found.\tnot_entailment", "1\tA place.\tPope Benedict.\tentailment"],
        ["not_entailment", "entailment"],
    ),
    "wnli": (
        "WNLI",
        "index\tsentence1\tsentence2\tlabel",
        ["0\tI stuck a pin through a carrot.\tThe carrot had a hole.\t1", "1\tJohn.\tHe.\t0"],
        ["entailment", "not_entailment"],
    ),
}
METRICS = {"cola": "matthews_correlation", "mrpc": "f1", "qqp": "f1", "stsb": "pearson"}


def own_files(root: Path, name: str, train_copies: int = 3) -> Path:
    """Write a task's train.tsv and dev.tsv (of MNLI two) into root/<its own folder>."""
    folder, header, rows, _ = OWN_FILES[name]
    home = root / folder
    home.mkdir(parents=True)
    head = [] if header is None else [header]
    (home / "train.tsv").write_text("\n".join([*head, *rows * train_copies, ""]), encoding="utf-8")
    for dev in ("dev_matched", "dev_mismatched") if name == "mnli" else ("dev",):
        chosen = rows[:1] if dev == "dev_mismatched" else rows
        (home / f"{dev}.tsv").write_text("\n".join([*head, *chosen, ""]), encoding="utf-8")
    return home


def config(name: str, root: Path, **options: Any) -> dict[str, Any]:
    return {"type": "glue", "name": name, "root": str(root), **options}


@pytest.mark.parametrize("name", OWN_FILES)
def test_own_files_of_every_task(tmp_path: Path, name: str) -> None:
    home = own_files(tmp_path, name)
    _, _, rows, labels = OWN_FILES[name]
    train, val = (load_source(config(name, tmp_path), split) for split in ("train", "val"))
    assert (len(train), len(val)) == (6, 2)
    found = [label if train.label_kind == "float" else train.classes[int(label)] for _, label in val]  # type: ignore[arg-type]
    assert found == labels
    texts = (val[0][0],) if isinstance(val[0][0], str) else val[0][0]
    assert len(texts) == (1 if name in ("cola", "sst2") else 2)
    assert all(text in rows[0].split("\t") for text in texts)
    assert train.metric == METRICS.get(name, "accuracy")
    assert train.label_kind == ("float" if name == "stsb" else "single") and "GLUE" in train.description
    assert len(load_source(config(name, home), "train")) == 6  # the task's own folder does as well


def test_classes_are_in_the_order_of_the_hub() -> None:
    from mdpd_plugins.data.sources.glue_tasks import TASKS

    assert TASKS["mnli"].classes == ("entailment", "neutral", "contradiction")
    assert TASKS["rte"].classes == TASKS["qnli"].classes == ("entailment", "not_entailment")
    assert TASKS["wnli"].classes == ("not_entailment", "entailment")


def test_validation_of_mnli_can_be_the_mismatched_one(tmp_path: Path) -> None:
    own_files(tmp_path, "mnli")
    assert len(load_source(config("mnli", tmp_path), "val")) == 2
    other = load_source(config("mnli", tmp_path, mismatched=True), "val")
    assert len(other) == 1 and "mismatched" in other.description
    with pytest.raises(ConfigError, match="mismatched=True is for mnli"):
        load_source(config("rte", tmp_path, mismatched=True), "val")


def test_test_data_only_where_asked_for_since_its_labels_are_hidden(tmp_path: Path) -> None:
    own_files(tmp_path, "rte")
    with pytest.raises(DataError, match="no test data: give test_size"):
        load_source(config("rte", tmp_path), "test")
    assert len(load_source(config("rte", tmp_path, test_size=2), "test")) == 2


def test_mrpc_as_its_authors_gave_it_out(tmp_path: Path) -> None:
    header = OWN_FILES["mrpc"][1]
    rows = [f"{i % 2}\t{i}\t{i + 100}\tFirst {i} .\tSecond {i} ." for i in range(20)]
    (tmp_path / "msr_paraphrase_train.txt").write_text("\r\n".join([str(header), *rows]), encoding="utf-8")
    (tmp_path / "msr_paraphrase_test.txt").write_text("\r\n".join([str(header), *rows[:4]]), encoding="utf-8")
    cfg = config("mrpc", tmp_path)
    assert [len(load_source(cfg, split)) for split in ("train", "val", "test")] == [18, 2, 4]
    (tmp_path / "dev_ids.tsv").write_text("3\t103\n11\t111\n12\t112\n7\t999\n")
    assert [text for (text, _), _ in load_source(cfg, "val")] == ["First 3 .", "First 11 .", "First 12 ."]
    assert len(load_source(cfg, "train")) == 17


def test_rows_broken_in_gluess_own_file_are_left_out_and_files_full_of_them_refused(tmp_path: Path) -> None:
    home = own_files(tmp_path, "qqp", train_copies=150)
    path = home / "train.tsv"
    path.write_text(path.read_text() + "363362\t1\t2\n")
    assert len(load_source(config("qqp", tmp_path), "train")) == 300
    path.write_text(path.read_text() + "363362\t1\t2\n" * 10)
    with pytest.raises(DataError, match=r"train\.tsv: 11 of 311 rows have fewer than 6 fields"):
        load_source(config("qqp", tmp_path), "train")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"the network was asked: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


def hub_form(datasets: Any) -> Any:
    """RTE as the hub has it."""
    features = datasets.Features(
        {
            **{"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string")},
            **{"label": datasets.ClassLabel(names=["entailment", "not_entailment"]), "idx": datasets.Value("int32")},
        }
    )

    def part(labels: list[int]) -> Any:
        rows = range(len(labels))
        columns = {"sentence1": [f"a{i}" for i in rows], "sentence2": [f"b{i}" for i in rows]}
        return datasets.Dataset.from_dict({**columns, "label": labels, "idx": list(rows)}, features)

    return datasets.DatasetDict(train=part([0, 1, 1, 0]), validation=part([1, 0]), test=part([-1, -1]))


@pytest.mark.parametrize("form", ["save_to_disk", "parquet"])
def test_what_datasets_writes(tmp_path: Path, offline: Any, form: str) -> None:
    data = hub_form(offline)
    home = tmp_path / "glue" / "rte"
    if form == "save_to_disk":
        data.save_to_disk(str(home))
    else:
        home.mkdir(parents=True)
        for split, part in data.items():
            part.to_parquet(str(home / f"{split}-00000-of-00001.parquet"))
    cfg = config("rte", tmp_path / "glue")
    train, val = load_source(cfg, "train"), load_source(cfg, "val")
    assert (train.classes, list(train.labels)) == (("entailment", "not_entailment"), [0, 1, 1, 0])
    assert val[0] == (("a0", "b0"), 1)
    with pytest.raises(DataError, match="no test data"):  # the hidden labels are never read
        load_source(cfg, "test")


# Columns and class names of nyu-mll/glue, from its data card.
ENTAILED = ["entailment", "not_entailment"]
HUB_FORMS: dict[str, tuple[tuple[str, ...], list[str] | None]] = {
    "cola": (("sentence",), ["unacceptable", "acceptable"]),
    "sst2": (("sentence",), ["negative", "positive"]),
    "mrpc": (("sentence1", "sentence2"), ["not_equivalent", "equivalent"]),
    "qqp": (("question1", "question2"), ["not_duplicate", "duplicate"]),
    "stsb": (("sentence1", "sentence2"), None),
    "mnli": (("premise", "hypothesis"), ["entailment", "neutral", "contradiction"]),
    "qnli": (("question", "sentence"), ENTAILED),
    "rte": (("sentence1", "sentence2"), ENTAILED),
    "wnli": (("sentence1", "sentence2"), ENTAILED[::-1]),
}


@pytest.mark.parametrize("name", HUB_FORMS)
def test_every_task_as_the_hub_has_it(tmp_path: Path, offline: Any, name: str) -> None:
    texts, classes = HUB_FORMS[name]
    label = offline.ClassLabel(names=classes) if classes else offline.Value("float32")
    features = {**{column: offline.Value("string") for column in texts}, "label": label, "idx": offline.Value("int32")}
    columns = {column: [f"{column} {i}" for i in range(2)] for column in texts}
    labels = [1, 0] if classes else [2.5, 0.0]
    part = offline.Dataset.from_dict({**columns, "label": labels, "idx": [0, 1]}, offline.Features(features))
    validation = "validation_matched" if name == "mnli" else "validation"
    offline.DatasetDict({"train": part, validation: part}).save_to_disk(str(tmp_path / name))
    for split in ("train", "val"):
        source = load_source(config(name, tmp_path), split)
        first = tuple(f"{column} 0" for column in texts)
        assert source[0] == (first if len(first) == 2 else first[0], labels[0])
        assert source.label_kind == ("single" if classes else "float")
        assert not classes or list(source.classes) == classes


def test_parquet_of_mnli_has_two_validation_splits(tmp_path: Path, offline: Any) -> None:
    for split, rows in {"train": 3, "validation_matched": 2, "validation_mismatched": 1}.items():
        columns = {"premise": ["a"] * rows, "hypothesis": ["b"] * rows, "label": [2] * rows}  # no names of classes
        offline.Dataset.from_dict(columns).to_parquet(str(tmp_path / f"{split}-00000-of-00001.parquet"))
    assert [len(load_source(config("mnli", tmp_path), s)) for s in ("train", "val")] == [3, 2]
    val = load_source(config("mnli", tmp_path, mismatched=True), "val")
    assert (len(val), val.classes[val.labels[0]]) == (1, "contradiction")  # type: ignore[index]


def test_a_hub_that_cannot_be_reached_is_one_clear_error(offline: Any) -> None:
    with pytest.raises(DataError, match="'nyu-mll/glue' is not available from the hub.*give the path of a local copy"):
        load_source({"type": "glue", "name": "rte"}, "train")


def test_what_the_library_has_cached_is_used_when_the_hub_does_not_answer(tmp_path: Path, offline: Any) -> None:
    files = {}
    for split, part in hub_form(offline).items():
        files[split] = str(tmp_path / f"{split}.parquet")
        part.to_parquet(files[split])
    offline.load_dataset("parquet", "rte", data_files=files, cache_dir=str(tmp_path / "made"))
    (made,) = [p.parent for p in (tmp_path / "made" / "parquet").rglob("dataset_info.json")]
    # As the library leaves nyu-mll/glue behind: <owner>___<name>/<configuration>/<version>/<commit>.
    home = tmp_path / "cache" / "nyu-mll___glue" / "rte" / "0.0.0" / "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
    home.parent.mkdir(parents=True)
    made.rename(home)
    for path in home.glob("parquet-*.arrow"):
        path.rename(home / path.name.replace("parquet", "glue"))
    offline.config.HF_HUB_OFFLINE = False  # nobody has said so: the network is just not there
    source = load_source({"type": "glue", "name": "rte"}, "train")
    assert source[1] == (("a1", "b1"), 1) and "nyu-mll/glue" in source.description
    assert offline.config.HF_HUB_OFFLINE is False


def test_what_a_user_may_get_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GLUE has no task 'mrcp': did you mean 'mrpc'"):
        load_source({"type": "glue", "name": "mrcp"}, "train")
    with pytest.raises(ConfigError, match="data type 'glue' has no key 'path'"):
        load_source({"type": "glue", "name": "rte", "path": "x"}, "train")
    with pytest.raises(ConfigError, match="revision= chooses a version on the hub"):
        load_source(config("rte", tmp_path, revision="main"), "train")
    with pytest.raises(DataError, match="GLUE folder .*gone does not exist"):
        load_source(config("rte", tmp_path / "gone"), "train")
    home = own_files(tmp_path, "rte")
    with pytest.raises(
        DataError, match=r"no GLUE data for cola: expected CoLA/train\.tsv and CoLA/dev\.tsv.*holds RTE"
    ):
        load_source(config("cola", tmp_path), "train")
    with pytest.raises(DataError, match=r"train\.tsv has no column 'question'.*its columns: index, sentence1"):
        load_source(config("qnli", home), "train")
    content = (home / "train.tsv").read_text()
    (home / "train.tsv").write_text(content.replace("not_entailment", "no", 1))
    with pytest.raises(DataError, match=r"train\.tsv, line 2: label 'no' is not one of the 2 classes"):
        load_source(config("rte", tmp_path), "train")
    (home / "train.tsv").write_bytes(content.encode().replace(b"Pope", b"P\xf6pe"))
    with pytest.raises(DataError, match=r"train\.tsv is not UTF-8"):
        load_source(config("rte", tmp_path), "train")
    (home / "train.tsv").write_text("")
    with pytest.raises(DataError, match=r"no column 'sentence1'.*its columns: none"):
        load_source(config("rte", tmp_path), "train")
    (home / "train.tsv").write_text(content)
    (home / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"dev\.tsv does not exist; it belongs to GLUE's task RTE"):
        load_source(config("rte", tmp_path), "train")
