"""The example plugin, installed from its folder as anybody would, is trained like a backbone of our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packages import run_mdpd

ROOT = Path(__file__).parents[1]
CONFIG = """
backbone = dict(name="example/small-vit", options=dict(image_size=16, patch_size=4, width=32, depth=3, heads=4))
data = dict(source=dict(type="packaged", name="digits", train_size=40, val_size=16), batch_size=8)
distill = dict(reduction=4, bottleneck=8, backbone_every=2)
train = dict(max_steps=2)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which pip has installed the example."""
    base = tmp_path_factory.mktemp("example")
    # From a copy: a build leaves its own folders beside the sources.
    shutil.copytree(ROOT / "examples" / "mdpd-example-plugin", base / "source")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [*pip, "--target", base / "site", base / "source"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return base / "site"


def test_the_example_is_listed_with_its_distribution(site):
    done = run_mdpd("list-backbones", "--zoo", "example", "--json", site=site, strict=True)
    assert [(r["name"], r["provided_by"]) for r in json.loads(done.stdout)] == [
        ("example/small-vit", "mdpd-example-plugin:example")
    ]


def test_the_example_trains_two_steps_through_the_trainer(site, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "train.py", config, "--work-dir", tmp_path / "run"],
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "MDPD_STRICT_PLUGINS": "1"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["backbone"] == "example/small-vit" and summary["steps"] == 2
    assert summary["fading"]["outputs_equal"] and summary["fading"]["keys_equal"]
    assert 0 < summary["parameters"]["backbone_trained"] < summary["parameters"]["backbone"]
    assert (tmp_path / "run" / "iter_2.pth").is_file()
    export = tmp_path / "run" / "export"
    assert {p.name for p in export.iterdir()} >= {"README.md", "model.safetensors"}
    # It has no zoo that would load it: the plugin rebuilds it.
    found = tmp_path / "found.json"
    done = run_mdpd("eval", str(export), str(tmp_path / "run" / "config.py"), "--json", str(found), site=site)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(found.read_text())["metrics"]
    assert {f"backbone/{k}": v for k, v in metrics.items()}.items() <= summary["metrics"].items()
    (export / "model.safetensors").unlink()
    done = run_mdpd("eval", str(export), str(tmp_path / "run" / "config.py"), site=site)
    assert done.returncode == 2 and "is not whole: model.safetensors missing" in done.stderr


def test_without_the_plugin_the_name_is_unknown(tmp_path):
    done = run_mdpd("show", "example/small-vit", site=tmp_path)
    assert done.returncode == 2 and "example/small-vit" in done.stderr
