"""Fading: the side network goes, the trained backbone stays bit for bit, through the zoo's own loader."""

import pytest
import small_zoo
import torch

from mdpd_plugins.engine import fade
from mdpd_plugins.registry import MDPDError


def trained(key: str, **settings):
    distiller, optim = small_zoo.small_distiller(key, **settings)
    for seed in range(2):
        distiller.train_step(small_zoo.batch_of(distiller.adapter, seed=seed), optim)
    return distiller


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_an_exported_faded_backbone_gives_the_trained_paths_outputs_bit_for_bit(key, tmp_path):
    distiller = trained(key)
    adapter = distiller.adapter
    inputs = small_zoo.inputs_of(adapter)
    path = distiller(inputs)["backbone"]
    model, report = fade(distiller, inputs, repeats=1)
    loaded = adapter.load_exported(adapter.export(tmp_path / "export"))
    again = type(adapter)(loaded, modality=adapter.modality)
    with torch.no_grad():
        assert torch.equal(adapter.forward(inputs), path)
        assert torch.equal(again.forward(inputs), path)
        assert not torch.equal(small_zoo.small(key).forward(inputs), path)  # it was trained
    assert model is adapter.model
    assert report.outputs_equal and report.keys_equal


@pytest.mark.parametrize("key", small_zoo.ONE_OF_EACH)
def test_a_faded_model_is_the_zoos_plain_one_with_its_own_flags(key):
    adapter = small_zoo.small(key)
    flags = {}
    for i, (name, p) in enumerate(adapter.model.named_parameters()):
        p.requires_grad_(i % 3 != 0)
        flags[name] = i % 3 != 0
    plain = small_zoo.small(key)
    distiller, optim = small_zoo.small_distiller(adapter)
    side = sum(p.numel() for p in distiller.side_parameters())
    distiller.train_step(small_zoo.batch_of(adapter), optim)
    model, report = fade(distiller, small_zoo.inputs_of(adapter), repeats=1)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert all(p.grad is None for p in model.parameters())
    assert list(model.state_dict()) == list(plain.model.state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.model.modules()]
    assert distiller.side is None and distiller.features is None
    assert not [k for k in distiller.state_dict() if k.startswith(("side.", "features."))]
    assert report.parameters == sum(p.numel() for p in plain.parameters().values())
    assert report.side_parameters == side > 0
    assert report.trained == {k: p.numel() for k, p in {**plain.norm_parameters(), **plain.head_parameters()}.items()}
    assert report.latency_ratio > 0


def test_a_backbone_trained_without_a_side_network_fades_too():
    distiller = trained("mm-vit", method="norm")
    _, report = fade(distiller, small_zoo.inputs_of(distiller.adapter), repeats=1)
    assert (report.side_parameters, report.latency_ratio) == (0, 1.0)
    assert report.outputs_equal and report.keys_equal


def test_the_report_is_plain_data_for_a_summary():
    distiller = trained("mm-vit")
    _, report = fade(distiller, small_zoo.inputs_of(distiller.adapter), repeats=1)
    as_dict = report.as_dict()
    assert as_dict["outputs_equal"] is True and as_dict["side_parameters"] == report.side_parameters


def test_a_model_that_gained_a_tensor_is_not_called_faded():
    distiller = trained("mm-vit")
    distiller.adapter.model.register_parameter("extra", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(MDPDError, match="fading changed the backbone"):
        fade(distiller, small_zoo.inputs_of(distiller.adapter), repeats=1)
