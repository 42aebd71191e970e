"""`mdpd fit`: the best setting that fits, what does not fit, and that nothing does."""

from __future__ import annotations

import json
import shlex

import pytest
from running import write_config
from small_zoo import BACKBONES

from mdpd_plugins.cli.main import main
from mdpd_plugins.planning.fit import fit, memory_of
from mdpd_plugins.planning.plan import plan
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.training import load_config, read_overrides

METHODS = ("mdpd_low_rank", "mdpd")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    options = {**BACKBONES["hf-vit"][1], "num_hidden_layers": 2}
    return write_config(
        tmp_path_factory.mktemp("config"), "hf-vit", backbone={"options": options}, data={"batch_size": 2}, distill={}
    )


def peak(config, **options):
    return plan(load_config(config, options)).run


def test_with_room_it_is_the_first_method_at_once_and_without_recomputation(config):
    best, tried = fit(load_config(config), 10**9)
    assert best.options == {"distill.method": "mdpd_low_rank", "backbone.dtype": "auto", "distill.recompute": False}
    assert len(tried) == 2


@pytest.mark.slow
def test_a_tighter_bound_takes_smaller_pieces_then_another_type_and_what_it_says_is_what_a_plan_says(config, capsys):
    whole = peak(config, **{"distill.method": "mdpd_low_rank"})
    best, tried = fit(load_config(config), whole - 1, methods=METHODS)
    assert best.options["distill.method"] == "mdpd_low_rank" and best.options["distill.sub_batch"] == 1
    assert best.plan.run < whole and not tried[0].fits(whole - 1)
    least = peak(config, **{"distill.method": "mdpd_low_rank", "distill.sub_batch": 1})
    best, tried = fit(load_config(config), least - 1, methods=METHODS)
    assert best.options["backbone.dtype"] == "bfloat16" and best.options["distill.method"] == "mdpd_low_rank"
    narrow = peak(config, **{**best.options, "distill.sub_batch": 1})
    best, _ = fit(load_config(config), narrow - 1, methods=METHODS)
    assert best.options["backbone.quantization"] in ("int8", "nf4")
    assert best.options["distill.method"] == "mdpd_low_rank" and best.fits(narrow - 1)
    best, _ = fit(load_config(config, {"backbone.dtype": "bfloat16"}), narrow - 1, methods=METHODS)
    assert best.options["distill.method"] == "mdpd"  # where a type was chosen, another method is the next
    assert main(["fit", str(config), "--memory", f"{narrow / 1e6}MB", "--methods", *METHODS]) == 0
    printed = capsys.readouterr()
    said = printed.out.splitlines()[-1]
    arguments = shlex.split(said)
    assert arguments[:4] == ["mdpd", "train", str(config), "--cfg-options"]
    assert plan(load_config(config, read_overrides(arguments[4:]))).run <= narrow
    assert "does not fit" in printed.err and "fits" in printed.err


def test_where_nothing_fits_it_says_what_needs_least(config, tmp_path, capsys):
    target = tmp_path / "tried.json"
    assert main(["fit", str(config), "--memory", "0.01MB", "--methods", "mdpd", "--json", str(target)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "nothing that was tried fits into 0.00 GB. Least needs distill.method=mdpd backbone.dtype=bfloat16" in said
    assert not target.exists()


def test_smaller_pictures_are_tried_where_they_are_offered(config, tmp_path):
    options = {"distill.method": "mdpd", "distill.sub_batch": 1, "backbone.dtype": "bfloat16"}
    bound = peak(config, **options) - 1
    best, _ = fit(load_config(config, {"backbone.dtype": "bfloat16"}), bound, methods=("mdpd",), sizes=(16,))
    assert best.options["data.input_size"] == 16


@pytest.mark.parametrize("text", ["8", "0GB", "-1GB", "8TB", "much", ""])
def test_a_memory_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="a number above 0 with MB, GB, MiB or GiB is needed"):
        memory_of(text)
    assert memory_of("1.5GiB") == 3 * 2**29 and memory_of("900 mb") == 9 * 10**8


def test_a_tried_setting_is_kept_in_a_file(config, tmp_path, capsys):
    target = tmp_path / "tried.json"
    assert main(["fit", str(config), "--memory", "1GB", "--methods", "mdpd", "--json", str(target)]) == 0
    found = json.loads(target.read_text())
    assert found["memory"] == 10**9 and found["tried"][0]["plan"]["weights_by_type"]["float32"] > 0
    assert main(["fit", str(config), "--memory", "1GB", "--methods", "mdpdd"]) == 2
    assert main(["fit", str(config), "--memory", "1GB", "--input-sizes", "0"]) == 2
