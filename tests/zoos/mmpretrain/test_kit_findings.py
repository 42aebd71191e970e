"""What the conformance kit found on whole families: each is a small form of a real network."""

from __future__ import annotations

import pytest

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.exports import record_of
from mdpd_plugins.exports.load import load_folder
from mdpd_plugins.registry import load_catalogue


@pytest.mark.parametrize("name", ["hornet-tiny_3rdparty_in1k", "convnext-base_3rdparty_in21k"])
def test_exports_of_words_that_are_no_names_and_of_configs_without_a_loader(name, tmp_path):
    """HorNet's `dw_cfg` has a type that no registry has; ConvNeXt's 21k configs have no test data loader."""
    forms = load_catalogue().get(f"mmpretrain/{name}").small_options()
    options = next(iter(forms.values()))
    adapter = build_backbone(f"mmpretrain/{name}", pretrained=None, num_classes=3, **options)
    adapter.set_labels(("a", "b", "c"))
    adapter.write(tmp_path)
    exported = load_folder(tmp_path, record_of(adapter))
    own, found = adapter.model.state_dict(), exported.model.state_dict()
    assert own.keys() == found.keys() and all(bool((own[k] == found[k]).all()) for k in own)
