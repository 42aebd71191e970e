"""The lines of docs/deploy.md that load a pair of towers, run as they stand there, without this project."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exporting import export
from picture_texts import picture_table, source_of
from small_zoo import BACKBONES

from mdpd_plugins.exports import load_export

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
ALONE = """
import sys
sys.modules["mdpd_plugins"] = None
import torch
from PIL import Image
pictures = [Image.open(p).convert("RGB") for p in {pictures!r}]
questions = {questions!r}
{lines}
torch.save({result}, {target!r})
"""


@pytest.mark.parametrize("kind", ["answers", "matches"])
def test_the_pages_lines_give_what_training_would(tmp_path, kind):
    table = picture_table(tmp_path / "pictures")
    text, text_options = BACKBONES["hf-minilm"]
    export(
        tmp_path / "work_dirs" / "easy_vqa",
        "hf-vit",
        data={"source": source_of(table, kind), "max_length": 8},
        task={"width": 16},
        text_backbone={"name": text, "pretrained": None, "options": text_options},
    )
    pictures = sorted(str(p) for p in table.parent.glob("*.png"))[:4]
    questions = ["which colour", "tell me what there is to see in this picture and why", "what", "is it red"]
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text().partition("## A pair of towers")[2], re.S)
    loading, comparing = blocks[:2]
    if kind == "matches":
        # What joins them is a scale: no fusion is loaded, and no answers are named.
        kept = [line for line in loading.splitlines() if not re.search(r"fusion\b(?!\.safe)|answers|said", line)]
        loading = "\n".join([*kept, comparing])
    target = tmp_path / "found.pt"
    result = "(logits, said)" if kind == "answers" else "(similarities, [])"
    script = ALONE.format(pictures=pictures, questions=questions, lines=loading, result=result, target=str(target))
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, said = torch.load(target)
    exported = load_export(tmp_path / "work_dirs" / "easy_vqa" / "export", "cpu")
    examples = [(_picture(p), q) for p, q in zip(pictures, questions, strict=True)]
    ours = exported.logits(examples)
    if kind == "answers":
        assert torch.equal(found, ours)
        assert said == [exported.record.classes[i] for i in ours.argmax(1)]
    else:
        torch.testing.assert_close(found, ours[:, 0] @ ours[:, 1].T)


def _picture(path: str):
    from PIL import Image

    return Image.open(path).convert("RGB")
