"""Small data of each kind of label, written into a folder; each function returns its data configuration."""

from __future__ import annotations

import json

from running import WORDS


def cola(root):
    home = root / "CoLA"
    home.mkdir()
    for file, count in (("train.tsv", 16), ("dev.tsv", 8)):
        rows = [
            f"gj04\t{i % 2}\t{'' if i % 2 else '*'}\tThe {WORDS[i % 8]} book {WORDS[i // 2]}." for i in range(count)
        ]
        (home / file).write_text("\n".join(rows) + "\n")
    return {"type": "glue", "name": "cola", "root": str(root)}


def stsb(root):
    header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"
    for file, count in (("train.tsv", 16), ("dev.tsv", 8)):
        rows = [f"{i}\tg\tf\t2012\t0\tn\tn\tA {WORDS[i % 8]} plane.\tA plane.\t{i % 6}.000" for i in range(count)]
        (root / file).write_text("\n".join([header, *rows]) + "\n")
    return {"type": "glue", "name": "stsb", "root": str(root)}


def mrpc(root):
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    for file, count in (("msr_paraphrase_train.txt", 16), ("msr_paraphrase_test.txt", 8)):
        rows = [f"{i % 2}\t{i}\t{i}\tA {WORDS[i % 8]} plane.\tA plane." for i in range(count)]
        (root / file).write_text("\n".join([header, *rows]) + "\n")
    return {"type": "glue", "name": "mrpc", "root": str(root)}


def several(root):
    rows = [{"text": f"a {WORDS[i % 8]} one", "label": [WORDS[i % 3], WORDS[3 + i % 2]]} for i in range(24)]
    (root / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"text_column": "text", "label_column": "label", "label_kind": "multi"}
    return {"type": "table", "path": str(root / "table.jsonl"), **columns, "val_size": 8, "test_size": 0}
