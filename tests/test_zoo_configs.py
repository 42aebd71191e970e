"""Every configuration that comes with the project can be read, and asks for things that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdpd_plugins.engine import Settings
from mdpd_plugins.registry import ConfigError, load_catalogue
from mdpd_plugins.training import load_config
from mdpd_plugins.training.config import installed_configs

FOLDER = Path(__file__).parent.parent / "zoo_configs"
CONFIGS = sorted(path for path in FOLDER.glob("*/*.py") if path.parent.name != "_base_")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_configuration_reads_and_names_what_exists(path):
    config = load_config(path)
    assert Settings.from_dict(config.distill.to_dict()).backbone_update == "norm+low_rank"
    names = {tower.name for tower in (config.backbone, config.text_backbone) if tower.name}
    assert names <= {spec.name for spec in load_catalogue().select()}
    assert config.backbone.name.startswith(f"{path.parent.name}/")
    if path.name != "vtab_1k.py":  # whose data nobody's package carries
        assert config.data.source.type in ("packaged", "glue")


def test_no_two_configurations_train_into_one_folder():
    folders = [load_config(path).work_dir for path in CONFIGS]
    assert len(set(folders)) == len(folders) > 15


def test_a_configuration_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = {f"{path.parent.name}/{path.stem}" for path in CONFIGS}
    assert set(installed_configs()) == named
    config = load_config("huggingface/minilm_bbc_topics")
    assert config.backbone.name == "huggingface/minilm-l6" and config.work_dir == "work_dirs/minilm_bbc_topics"
    with pytest.raises(ConfigError, match="did you mean 'huggingface/minilm_bbc_topics'"):
        load_config("huggingface/minilm_bbc_topic")
