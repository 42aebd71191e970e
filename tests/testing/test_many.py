"""`mdpd verify`: one process a backbone, limits, and results that a second run goes on from."""

import json

import pytest
from packages import run_mdpd, write_package

from mdpd_plugins.registry import ConfigError
from mdpd_plugins.testing.many import Results, matrix
from mdpd_plugins.versions import versions_of
from mdpd_plugins.zoos import verified

PLUGIN = """
from mdpd_plugins.registry import BackboneSpec, hookimpl

@hookimpl
def register_backbones(register):
    for name in ("good", "raises", "crashes", "hangs", "hungry", "absent"):
        register(BackboneSpec(f"toy/{name}", build=f"toy_models:{name}", family="toy"))
    for name in ("Backwards", "NoAdapter"):
        register(BackboneSpec(f"toy/{name}", build="toy_models:good", adapter=f"toy_models:{name}"))
"""
MODELS = """
import os, time, torch
from torch import nn
from mdpd_plugins.adapters import Adapter
from mdpd_plugins.registry import MissingDependencyError

class Backwards(Adapter):
    @property
    def named_blocks(self):
        return [(f"blocks.{i}", self.model.blocks[i]) for i in (2, 1, 0)]

class NoAdapter:
    def __init__(self, model, name, modality): pass

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(32), nn.Linear(32, 32)
    def forward(self, x):
        return x + self.mix(self.norm(x) + x.mean(1, keepdim=True))

class Net(nn.Module):
    image_size = 8
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, stride=4)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, num_classes)
    def forward(self, image):
        x = self.stem(image).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))

def good(pretrained, num_classes): return Net(num_classes)
def raises(pretrained, num_classes): raise ValueError("no such thing")
def crashes(pretrained, num_classes): os.abort()
def hangs(pretrained, num_classes): time.sleep(600)
def hungry(pretrained, num_classes): return torch.ones(1 << 33)
def absent(pretrained, num_classes): raise MissingDependencyError("this needs detectron2")
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    write_package(site, "toy", modules={"toy_plugin": PLUGIN, "toy_models": MODELS}, plugins={"toy": "toy_plugin"})
    file = site / "found.json"
    limits = ("--timeout", "20", "--memory", "2", "--jobs", "2")
    first = run_mdpd("verify", "--zoo", "toy", "--json", str(file), *limits, site=site)
    return site, file, first


def test_a_crash_a_hang_and_a_hungry_model_fail_their_own_row_only(swept):
    _, file, done = swept
    found = json.loads(file.read_text())
    rows = {row["name"].partition("/")[2]: row for row in found["results"]}
    assert found["totals"] == {"pass": 1, "fail": 6, "unavailable": 1}, done.stdout
    assert rows["good"]["status"] == "pass" and rows["good"]["checks"]["tail"]["status"] == "pass"
    assert rows["raises"]["reason"] == "build: ValueError: no such thing"
    assert rows["crashes"]["reason"] == "the process ended with signal 6"
    assert rows["hangs"]["reason"] == "no end within 20 s"
    assert "memory" in rows["hungry"]["reason"]
    assert rows["absent"]["status"] == "unavailable" and "detectron2" in rows["absent"]["reason"]
    assert done.returncode == 1


def test_an_adapter_that_violates_the_contract_fails_by_its_clause_and_its_plugin_is_named(swept):
    _, file, done = swept
    rows = {row["name"]: row for row in json.loads(file.read_text())["results"]}
    assert rows["toy/Backwards"]["checks"]["blocks"]["detail"] == "blocks() is not in execution order"
    assert "fail toy/Backwards (of toy:toy): blocks: blocks() is not in execution order" in done.stdout
    reason = "toy_models:NoAdapter of toy/NoAdapter (from toy:toy) gave NoAdapter; a subclass of mdpd_plugins.adapters."
    assert reason in rows["toy/NoAdapter"]["reason"]


def test_a_row_names_the_classes_of_a_backbone_and_who_provides_it(swept):
    _, file, _ = swept
    (row,) = (row for row in json.loads(file.read_text())["results"] if row["name"] == "toy/good")
    assert row["architecture"] == {"": ["Net", "Block"]}
    assert row["provided_by"] == "toy:toy"


def test_progress_and_a_matrix_are_printed(swept):
    _, _, done = swept
    assert "[8/8, 0 min left]" in done.stderr
    assert "unavailable" in done.stdout and "norm_parameters" in done.stdout


def test_a_second_run_does_not_repeat_what_the_file_holds(swept):
    site, file, _ = swept
    before = file.read_text()
    done = run_mdpd("verify", "--zoo", "toy", "--json", str(file), site=site)
    assert "8 are in" in done.stderr and "left]" not in done.stderr
    assert file.read_text() == before


def test_retry_runs_failures_again_and_nothing_else(swept):
    site, file, _ = swept
    names = ("toy/good", "toy/raises", "toy/absent")
    done = run_mdpd("verify", *names, "--json", str(file), "--retry", site=site)
    assert "[1/1, " in done.stderr and "fail toy/raises" in done.stderr


def test_a_name_that_does_not_exist_is_said_before_anything_runs(tmp_path):
    done = run_mdpd("verify", "huggingface/vitt", site=tmp_path)
    assert done.returncode == 2 and "did you mean" in done.stderr


def test_nothing_asked_for_is_an_error(tmp_path):
    done = run_mdpd("verify", site=tmp_path)
    assert done.returncode == 2 and "--all" in done.stderr


def test_a_file_of_something_else_is_not_overwritten(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"mine": 1}')
    with pytest.raises(ConfigError, match="holds no results"):
        Results(file, versions_of(verified.DEPENDS))
    assert file.read_text() == '{"mine": 1}'


def test_results_found_with_other_versions_are_neither_believed_nor_lost(tmp_path):
    file = tmp_path / "found.json"
    row = {"name": "a/b", "zoo": "a", "status": "pass", "reason": "", "checks": {}}
    Results(file, versions_of(verified.DEPENDS)).add(row)
    assert Results(file, versions_of(verified.DEPENDS)).rows == {"a/b": row}
    stored = json.loads(file.read_text())
    old = json.dumps({**stored, "versions": {**stored["versions"], "torch": "0.1"}})
    file.write_text(old)
    with pytest.raises(ConfigError, match=r"torch 0\.1 then, .* now\): name another file"):
        Results(file, versions_of(verified.DEPENDS))
    assert file.read_text() == old
    assert {"torch", "transformers"} <= set(stored["versions"]) and "openpyxl" not in stored["versions"]


def test_the_matrix_counts_passed_of_applicable():
    rows = [
        {"zoo": "a", "status": "pass", "checks": {"tail": {"status": "pass"}, "padding": {"status": "not applicable"}}},
        {"zoo": "a", "status": "fail", "checks": {"image/tail": {"status": "fail"}}},
    ]
    lines = [line.split() for line in matrix(rows)]
    assert lines[0] == ["a"]
    assert ["pass", "1"] in lines and ["fail", "1"] in lines and ["unavailable", "0"] in lines
    assert ["tail", "1/2"] in lines and ["padding", "0/0"] in lines
