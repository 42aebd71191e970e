"""The example plugin, installed from its folder as anybody would, is trained like a backbone of our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packages import run_mdpd, write_package

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "mdpd-example-plugin"
SMALL = ("backbone.options.width=32", "backbone.options.depth=3", "distill.reduction=4", "data.source.noise=0.1")
FALLBACK = """
backbone = dict(name="unusual/loom", options=dict(side=16, width=32, depth=3))
data = dict(source=dict(type="packaged", name="digits", train_size=40, val_size=16), batch_size=8)
distill = dict(reduction=4, bottleneck=8, backbone_every=2)
train = dict(max_steps=2)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which pip has installed the example."""
    base = tmp_path_factory.mktemp("example")
    # From a copy: a build leaves its own folders beside the sources.
    shutil.copytree(EXAMPLE, base / "source")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [*pip, "--target", base / "site", base / "source"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return base / "site"


@pytest.fixture(scope="module")
def run(site, tmp_path_factory):
    """The work directory of the example's own configuration: its network on its data."""
    work_dir = tmp_path_factory.mktemp("run") / "stripes"
    config = str(EXAMPLE / "stripes_config.py")
    done = run_mdpd("train", config, "--work-dir", str(work_dir), "--cfg-options", *SMALL, site=site, strict=True)
    assert done.returncode == 0, done.stderr
    return work_dir


def python(code: str, site: Path, *arguments: str) -> str:
    """What a script prints, in a process in which the example is installed."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "MDPD_STRICT_PLUGINS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_is_listed_with_its_distribution(site):
    done = run_mdpd("list-backbones", "--zoo", "example", "--json", site=site, strict=True)
    assert [(r["name"], r["provided_by"]) for r in json.loads(done.stdout)] == [
        ("example/small-vit", "mdpd-example-plugin:example")
    ]
    assert "installed; it needs nothing but PyTorch" in run_mdpd("doctor", site=site, strict=True).stdout


def test_the_kit_passes_on_its_small_form(site, tmp_path):
    done = run_mdpd("verify", "example/small-vit", "--json", str(tmp_path / "found.json"), site=site, strict=True)
    assert done.returncode == 0, done.stdout
    assert json.loads((tmp_path / "found.json").read_text())["totals"] == {"pass": 1}
    shown = json.loads(run_mdpd("show", "example/small-vit", "--json", site=site, strict=True).stdout)["verified"]
    assert shown["status"] == "pass, by `mdpd verify` here" and "export" in shown["capabilities"]
    assert "torch " in shown["with"]


def test_its_network_learns_its_own_type_of_data(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["backbone"] == "example/small-vit" and summary["classes"] == ["flat", "upright", "slanted"]
    assert summary["metrics"]["backbone/accuracy"] > 0.6, "a third is chance"
    assert "drawn by mdpd-example-plugin" in summary["data"] and summary["fading"]["keys_equal"]
    assert summary["load_with"] == "mdpd_example_plugin.model.load(FOLDER)"
    assert summary["load_with"] in (run / "export" / "README.md").read_text()
    names = {path.name for path in (run / "export").iterdir()}
    assert names == {"README.md", "mdpd.json", "model.safetensors", "small_vit.json"}


def test_a_key_that_its_data_needs_or_does_not_know_is_named(site):
    config = str(EXAMPLE / "stripes_config.py")
    for option, said in (("data.source.widht=8", "no key 'widht'"), ("data.source.count=2", "count=2")):
        done = run_mdpd("train", config, "--dry-run", "--cfg-options", option, site=site)
        assert done.returncode == 2 and said in done.stderr


def test_its_export_is_loaded_by_its_own_hook(site, run, tmp_path):
    export = str(run / "export")
    code = """
import sys, mdpd_plugins as mdpd
from mdpd_plugins.exports import load_export
from mdpd_example_plugin.model import load
from mdpd_example_plugin.stripes import draw
exported = load_export(sys.argv[1], "cpu")
assert "mdpd_example_plugin.exported" in sys.modules, "rebuilt by its name, not loaded by the hook"
picture = draw((1, 32, 0.1, 7))
picture.save(sys.argv[2])
logits = exported.logits([picture])
assert (load(sys.argv[1])(exported.prepare([picture])["image"]) == logits).all()
assert type(mdpd.load(sys.argv[1])).__name__ == "SmallViT"
print(exported.record.classes[int(logits.argmax())])
"""
    picture = tmp_path / "stripes.png"
    label = python(code, site, export, str(picture)).strip()
    done = run_mdpd("predict", export, str(picture), "--format", "json", site=site, strict=True)
    assert done.returncode == 0, done.stderr
    assert [row["label"] for row in json.loads(done.stdout)] == [label]

    found = tmp_path / "found.json"
    done = run_mdpd("eval", export, str(run / "config.py"), "--json", str(found), site=site)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(found.read_text())["metrics"]
    summary = json.loads((run / "summary.json").read_text())
    assert {f"backbone/{k}": v for k, v in metrics.items()}.items() <= summary["metrics"].items()
    shutil.copytree(export, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").unlink()
    done = run_mdpd("predict", str(tmp_path / "broken"), str(picture), site=site)
    assert done.returncode == 2 and "is not whole: model.safetensors missing" in done.stderr


def test_a_live_model_of_it_is_adapted_distilled_and_exported(site, tmp_path):
    code = """
import sys, torch, mdpd_plugins as mdpd
from mdpd_example_plugin.model import SmallViT
adapter = mdpd.adapt(SmallViT(3, 16, 4, 32, 3, 4))
student = mdpd.distill(adapter, steps=1, reduction=4)
student.backward(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]))
model, report = mdpd.fade(student)
mdpd.export(adapter, sys.argv[1])
x = torch.randn(2, 3, 16, 16)
assert torch.equal(mdpd.load(sys.argv[1], device="cpu")(x), model(x))
print(type(adapter).__name__, adapter.name)
"""
    assert python(code, site, str(tmp_path / "out")) == "SmallViTAdapter example/small-vit\n"


def test_a_plugin_without_a_loader_has_its_exports_rebuilt_by_their_name(tmp_path):
    site = tmp_path / "site"
    package = "mdpd_unusual_plugin"
    shutil.copytree(ROOT / "examples" / "mdpd-unusual-plugin" / package, site / package)
    write_package(site, "mdpd-unusual-plugin", plugins={"unusual": package})
    config, work_dir = tmp_path / "config.py", tmp_path / "run"
    config.write_text(FALLBACK)
    done = run_mdpd("train", str(config), "--work-dir", str(work_dir), site=site, strict=True)
    assert done.returncode == 0, done.stderr
    found = tmp_path / "found.json"
    done = run_mdpd("eval", str(work_dir / "export"), str(work_dir / "config.py"), "--json", str(found), site=site)
    assert done.returncode == 0, done.stderr
    summary = json.loads((work_dir / "summary.json").read_text())
    metrics = json.loads(found.read_text())["metrics"]
    assert {f"backbone/{k}": v for k, v in metrics.items()}.items() <= summary["metrics"].items()


def test_without_the_plugin_the_name_is_unknown(tmp_path):
    done = run_mdpd("show", "example/small-vit", site=tmp_path)
    assert done.returncode == 2 and "example/small-vit" in done.stderr
