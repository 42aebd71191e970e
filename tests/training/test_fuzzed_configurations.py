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
