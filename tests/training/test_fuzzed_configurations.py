"""Odd values at every key of a configuration: it runs, or one line says what is wrong."""

from __future__ import annotations

import bad_inputs
import pytest
from hypothesis import given
from running import main, write_config

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config"))


@bad_inputs.sample(40)
@given(bad_inputs.overrides)
def test_a_configuration_runs_or_is_refused_in_words(config, options):
    before = sorted(config.parent.rglob("*"))
    assert main([config, "--dry-run", "--cfg-options", *options]) in (0, 2)
    assert sorted(config.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "option", ["hidden_size=None", "image_size=", "hidden_act=~", "num_attention_heads=[]", "hidden_act=3"]
)
def test_an_option_that_the_zoo_itself_refuses_is_named(config, capsys, option):
    assert main([config, "--dry-run", "--cfg-options", f"backbone.options.{option}"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and option.partition("=")[0] in line and "backbone.options" in line
