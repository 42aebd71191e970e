"""Live models as people bring them: each works, or is refused by name with the way out."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from mdpd_plugins.adapters import adapt
from mdpd_plugins.registry import CapabilityError

SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


def vit(**options):
    return ViTForImageClassification(ViTConfig(**SIZES, image_size=32, patch_size=8, num_labels=3, **options))


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda m: nn.DataParallel(torch.compile(m))])
def test_a_wrapper_is_taken_off_and_the_plain_model_exported(wrap, tmp_path):
    model = vit()
    with pytest.warns(UserWarning, match="only a wrapper: the .* in it is adapted"):
        adapter = adapt(wrap(model))
    assert adapter.model is model
    assert len(adapter.blocks()) == 2
    exported = adapter.load_exported(adapter.export(tmp_path / "export"))
    assert exported.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_another_precision_is_refused_by_name_and_float_is_the_way_out(dtype):
    model = vit()
    model.vit.layers[1].to(dtype)  # of one layer: mixed ones fail alike
    name = str(dtype).replace("torch.", r"torch\.")
    with pytest.raises(CapabilityError, match=rf"vit\.layers\.1\..* is of {name}; .* give model\.float\(\)"):
        adapt(model)
    assert len(adapt(model.float()).blocks()) == 2


def test_peft_models_are_refused_until_they_are_merged():
    from peft import LoraConfig, get_peft_model

    plain = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)
    wrapped = get_peft_model(plain, LoraConfig(target_modules=["mlp.0"]))
    with pytest.raises(CapabilityError, match=r"PeftModel of peft: .* model\.merge_and_unload\(\)"):
        adapt(wrapped)
    with pytest.raises(CapabilityError, match="is a Linear of peft"):
        adapt(plain)  # changed in place
    assert len(adapt(wrapped.merge_and_unload()).blocks()) == 2


def test_weights_made_in_inference_mode_are_refused_and_a_copy_is_the_way_out():
    with torch.inference_mode():
        model = vit()
    with pytest.raises(CapabilityError, match=r"made under torch\.inference_mode\(\).* copy\.deepcopy\(model\)"):
        adapt(model)
    adapter = adapt(copy.deepcopy(model))
    adapter.forward(adapter.example_inputs()).sum().backward()
    assert adapter.model.vit.layers[0].attention.q_proj.weight.grad is not None


def test_integer_and_special_weights_are_refused_as_quantised():
    class Int8(nn.Module):
        def __init__(self, old):
            super().__init__()
            self.weight = nn.Parameter(old.weight.detach().to(torch.int8), requires_grad=False)

        def forward(self, x):
            return x @ self.weight.float().T

    class Special(torch.Tensor):
        pass

    model = vit()
    model.classifier = Int8(model.classifier)
    with pytest.raises(CapabilityError, match=r"classifier\.weight of ViT.* is quantised .*int8.* without quantisation"):
        adapt(model)
    model = vit()
    special = model.classifier.weight.detach().as_subclass(Special)
    model.classifier.weight = nn.Parameter(special, requires_grad=False)
    with pytest.raises(CapabilityError, match=r"classifier\.weight of ViT.* \(Special, torch\.float32\)"):
        adapt(model)


def test_a_module_compiled_in_place_is_refused():
    model = vit()
    model.vit.layers[0].compile()
    with pytest.raises(CapabilityError, match=r"vit\.layers\.0 of .* compiled in place .* before it is compiled"):
        adapt(model)
