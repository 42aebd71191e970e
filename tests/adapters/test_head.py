"""The zoo's own head, replaced."""

import pytest
import small_zoo
import torch

from mdpd_plugins.adapters import build_backbone


@pytest.mark.parametrize("outputs", [7, 5])
@pytest.mark.parametrize("key", small_zoo.ALL)
def test_a_replaced_head_is_fresh_and_leaves_everything_else(key, outputs):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad():
        features, logits = adapter.forward_features(inputs), adapter.forward(inputs)
    before, heads = small_zoo.snapshot(adapter.model), adapter.head_parameters()
    adapter.replace_head(outputs)
    with torch.no_grad():
        assert torch.equal(adapter.forward_features(inputs), features)
        replaced = adapter.forward(inputs)
    assert replaced.shape == (4, outputs)
    assert outputs != 5 or not torch.equal(replaced, logits)
    after = adapter.model.state_dict()
    assert after.keys() == before.keys()
    assert adapter.head_parameters().keys() == heads.keys()
    different = {k for k in before if before[k].shape != after[k].shape or not torch.equal(before[k], after[k])}
    # BERT's pooler and ViLT's hidden layer stay; OpenCLIP's other tower ends in the same space.
    output = {k for k in heads if "pooler" not in k and not (key == "hf-vilt" and k.startswith("classifier.0"))}
    assert output <= different <= output | {"visual.proj", "text_projection"}
    assert not any(m.training for m in adapter.model.modules())


@pytest.mark.parametrize("key", ["hf-vit", "hf-minilm", "mm-vit", "oc-image"])
def test_the_zoos_configuration_follows_a_replaced_head(key, tmp_path):
    adapter = small_zoo.small(key)
    adapter.replace_head(7)
    inputs = small_zoo.inputs_of(adapter)
    loaded = adapter.load_exported(adapter.export(tmp_path / "export"))
    again = type(adapter)(loaded, modality=adapter.modality)
    with torch.no_grad():
        assert torch.equal(again.forward(inputs), adapter.forward(inputs))


def test_class_names_reach_transformers_configuration():
    adapter = small_zoo.small("hf-vit")
    adapter.set_labels(small_zoo.CLASSES)
    assert adapter.model.config.id2label == dict(enumerate(small_zoo.CLASSES))
    assert adapter.model.config.label2id["c"] == 2


@pytest.mark.parametrize(
    ("config", "key"),
    [("MobileCLIP-S1", "visual.trunk.head.fc.weight"), ("convnext_base", "visual.head.proj.weight")],
)
def test_the_other_tower_of_open_clip_ends_in_zeros_whatever_its_projection_is_called(config, key):
    adapter = build_backbone(f"open_clip/{config}", pretrained=None, num_classes=5, tower="text")
    state = adapter.model.state_dict()
    assert 5 in state[key].shape and not state[key].any()
    assert state["text.text_projection" if "text.text_projection" in state else "text_projection"].any()
