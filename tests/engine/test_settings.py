"""Settings: defaults, rows of METHODS, and values that cannot work."""

import pytest

from mdpd_plugins.engine import METHODS, Settings
from mdpd_plugins.registry import ConfigError


def test_a_method_is_a_row_of_switches_that_what_is_given_besides_wins_over():
    assert Settings.from_dict({}) == Settings()
    for method, row in METHODS.items():
        settings = Settings.from_dict({"method": method})
        assert {k: getattr(settings, k) for k in row} == row
    assert Settings.from_dict({"method": "norm", "backbone_every": 3}).backbone_every == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reducton": 8}, r"distill\.reducton is not a setting: did you mean 'reduction'\?"),
        ({"method": "lader"}, r"distill\.method='lader' is not known: did you mean 'ladder'"),
        (
            {"norm_gradient": "naive"},
            r"distill\.norm_gradient='naive' does not exist: known: exact, head, last_k, local",
        ),
        ({"backbone_update": "some"}, r"distill\.backbone_update='some' does not exist: (did you mean|known: .*norm)"),
        ({"mask_ratio": 1.5}, r"distill\.mask_ratio=1\.5: it must be at most 1"),
        ({"warmup": -0.1}, r"distill\.warmup=-0\.1: it must not be negative"),
        ({"reduction": 0}, r"distill\.reduction=0: it must be positive"),
        ({"reduction": "8"}, r"distill\.reduction='8': int is meant"),
        ({"bottleneck": 0}, r"distill\.bottleneck=0"),
        ({"backbone_every": 0}, r"distill\.backbone_every=0"),
        ({"last_k": 0}, r"distill\.last_k=0"),
        ({"kl_temperature": 0}, r"distill\.kl_temperature=0: it must be positive"),
        ({"nkd_tau": -1.0}, r"distill\.nkd_tau=-1\.0"),
        ({"logits_weight": "much"}, r"distill\.logits_weight='much': int or float is meant"),
        ({"nkd_gamma": [1.0]}, r"distill\.nkd_gamma=\[1\.0\]: int or float is meant"),
        ({"imitation_weight": 10**400}, "it must be a number of at most 64 bits"),
        ({"warmup": float("nan")}, r"distill\.warmup=nan: it must be finite"),
        ({"side": "yes"}, r"distill\.side='yes': bool is meant"),
        ({"sub_batch": 0}, r"distill\.sub_batch=0: it must be positive"),
        ({"tail_blocks": -1}, r"distill\.tail_blocks=-1: it must not be negative"),
        ({"shallow": "all"}, r"distill\.shallow='all': a list of layers"),
        ({"shallow": 1}, r"distill\.shallow=1: a list of layers"),
        ({"deep": 1.5}, r"distill\.deep=1\.5: a list of layers"),
        ({"deep": [0.5]}, r"distill\.deep=\[0\.5\]: a list of layers"),
        ({"shallow": "auto"}, 'set both to "auto"'),
        ({"side": False, "backbone_update": "none"}, "trains nothing"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_work(given, message):
    with pytest.raises(ConfigError, match=message):
        Settings.from_dict(given)


AUTO = {"shallow": "auto", "deep": "auto"}


@pytest.mark.parametrize("given", [{"shallow": []}, {"deep": 0.5}, {"shallow": (0, -2)}, AUTO])
def test_layers_may_be_lists_shares_or_measured(given):
    assert Settings.from_dict(given).automatic is (given is AUTO)
