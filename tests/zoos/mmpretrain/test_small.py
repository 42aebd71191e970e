"""Small forms of MMPretrain's classes, whatever way they name their architectures."""

import pytest

from mdpd_plugins.registry import ConfigError
from mdpd_plugins.zoos import small_forms as search
from mdpd_plugins.zoos.mmpretrain.small import small


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # a table of depths, narrower instead; a table of factors, its smallest; names only; a name in another case
        ("resnet101_8xb32_in1k", {"stem_channels": 16, "base_channels": 16}),
        ("efficientnet-b4_3rdparty_8xb32-aa_in1k", {"arch": "b0"}),
        ("efficientnetv2-l_3rdparty_in21k", {"arch": "b0"}),
        ("levit-384_3rdparty_in1k", {"arch": "128s"}),
    ],
)
def test_the_smallest_form_is_found(name, expected):
    assert small(f"mmpretrain/{name}")[""]["backbone"] == expected


def test_an_architecture_named_in_another_case_is_cut():
    options = small("mmpretrain/mixmim-base_mixmim-pre_8xb128-coslr-100e_in1k")[""]
    assert options["backbone"]["arch"]["depths"] == [2, 2, 2, 2]


def test_where_nothing_is_small_the_smallest_is_taken(monkeypatch):
    monkeypatch.setattr(search, "MAX_PARAMETERS", 1000)
    monkeypatch.setattr(search, "LARGEST", 3_000_000)
    forms = [{"image_size": 64, "backbone": {"stem_channels": c, "base_channels": c}} for c in (64, 8, 16)]
    assert search.first_working("mmpretrain/resnet18_8xb32_in1k", forms) == forms[1]
    with pytest.raises(ConfigError, match="smallest form"):
        search.first_working("mmpretrain/resnet18_8xb32_in1k", forms[:1])
