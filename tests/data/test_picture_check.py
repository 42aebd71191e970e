"""Pictures are decoded once: the next run looks only at those that changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdpd_plugins.data import picture_check
from mdpd_plugins.data.picture_check import broken_pictures


@pytest.fixture
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that were decoded, in a cache folder of its own where every check is worth keeping."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(picture_check, "WORTH_KEEPING", -1.0)
    seen: list[str] = []
    real = picture_check.image_fault

    def counted(raw: object) -> str | None:
        seen.append(Path(raw).name if isinstance(raw, (str, Path)) else str(type(raw).__name__))
        return real(raw)

    monkeypatch.setattr(picture_check, "image_fault", counted)
    return seen


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "some" / "0.png", tmp_path / "some" / "1.png", tmp_path / "more" / "2.png"]
    for path in found:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    found[1].write_bytes(found[1].read_bytes()[:2000])
    return found


def test_a_second_check_decodes_nothing_and_says_the_same(decoded: list[str], paths: list[Path]) -> None:
    gone = paths[0].parent / "gone.png"
    first = broken_pictures([*paths, gone])
    assert sorted(decoded) == ["0.png", "1.png", "2.png", "gone.png"]
    assert list(first) == [1, 3] and first[1].startswith("does not decode (") and first[3] == "does not exist"
    decoded.clear()
    assert broken_pictures([*paths, gone]) == first and decoded == ["gone.png"]


def test_a_picture_with_many_questions_is_decoded_once(decoded: list[str], paths: list[Path]) -> None:
    assert list(broken_pictures([*paths, paths[0], str(paths[1]), paths[1]])) == [1, 4, 5]
    assert sorted(decoded) == ["0.png", "1.png", "2.png"]


def test_what_changed_is_decoded_again(decoded: list[str], paths: list[Path]) -> None:
    broken_pictures(paths)
    decoded.clear()
    Image.new("RGB", (3, 3)).save(paths[1])
    os.utime(paths[2], ns=(1, 1))
    assert broken_pictures(paths) == {} and sorted(decoded) == ["1.png", "2.png"]


@pytest.mark.parametrize("damage", ["{", "[]", '{"version": 1}', '{"version": [], "files": {"0.png": 3}}'])
def test_a_damaged_cache_costs_only_time(decoded: list[str], paths: list[Path], tmp_path: Path, damage: str) -> None:
    first = broken_pictures(paths)
    for entry in (tmp_path / "cache" / "mdpd" / "pictures").iterdir():
        text = damage
        if "files" in damage:
            text = json.dumps({**json.loads(damage), "version": json.loads(entry.read_text())["version"]})
        entry.write_text(text)
    decoded.clear()
    assert broken_pictures(paths) == first and len(decoded) == 3


def test_an_interrupted_check_goes_on_where_it_was(
    decoded: list[str], paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_check, "TOGETHER", 1)
    counted = picture_check.image_fault

    def interrupted(raw: object) -> str | None:
        if Path(str(raw)).name == "2.png":
            raise KeyboardInterrupt
        return counted(raw)

    monkeypatch.setattr(picture_check, "image_fault", interrupted)
    with pytest.raises(KeyboardInterrupt):
        broken_pictures(paths)
    monkeypatch.setattr(picture_check, "image_fault", counted)
    decoded.clear()
    assert list(broken_pictures(paths)) == [1] and decoded == ["2.png"]


def test_pictures_without_files_are_remembered_by_the_datas_fingerprint(decoded: list[str], paths: list[Path]) -> None:
    stored = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    assert list(broken_pictures(stored, "one")) == [1] and len(decoded) == 3
    assert list(broken_pictures(stored, "one")) == [1] and len(decoded) == 3
    assert list(broken_pictures(stored, "another")) == [1] and len(decoded) == 6
    assert list(broken_pictures(stored)) == [1] and len(decoded) == 9
    assert broken_pictures(np.zeros((5, 4, 4), np.uint8)) == {} and len(decoded) == 9


def test_a_short_check_leaves_nothing_behind(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    broken_pictures(paths)
    assert not (tmp_path / "cache").exists()
