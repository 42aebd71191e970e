"""Live models as people bring them: each works, or is refused by name with the way out."""

import copy
from collections import namedtuple
from dataclasses import dataclass

import pytest
import timm
import torch
import torchvision
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from mdpd_plugins.adapters import Adapter, adapt
from mdpd_plugins.registry import CapabilityError, ConfigError

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


def test_double_precision_and_a_mixture_are_refused_by_name_and_float_is_the_way_out():
    model = vit().double()
    with pytest.raises(CapabilityError, match=r"vit\.embeddings\..* is of torch\.float64.* give model\.float\(\)"):
        adapt(model)
    model = vit()
    model.vit.layers[1].to(torch.bfloat16)
    with pytest.raises(CapabilityError, match=r"vit\.layers\.1\..* is of torch\.bfloat16\. Give model\.float\(\)"):
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
    with pytest.raises(CapabilityError, match=r"classifier\.weight of ViT.* is quantised .*int8.* without quant"):
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


class Wrapped(nn.Module):
    """Returns what `form` makes of a plain network's logits."""

    def __init__(self, form):
        super().__init__()
        self.form, self.inner = form, torchvision.models.resnet18(num_classes=3)

    def forward(self, x):
        return self.form(self.inner(x))


@dataclass
class Output:
    features: torch.Tensor
    logits: torch.Tensor


FORMS = {
    "dict": lambda y: {"features": y.repeat(1, 2), "logits": y},
    "only one": lambda y: {"y": y},
    "tuple": lambda y: (y, y.repeat(1, 2)),
    "list": lambda y: [y],
    "dataclass": lambda y: Output(y.repeat(1, 2), y),
    "named tuple": lambda y: namedtuple("Answer", ["features", "logits"])(y.repeat(1, 2), y),
}
PICTURES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_found_in_what_a_model_returns(form):
    adapter = adapt(Wrapped(FORMS[form]), example_inputs=PICTURES)
    with torch.no_grad():
        assert torch.equal(adapter.forward({"image": PICTURES}), adapter.model.inner(PICTURES))
    assert adapter.num_outputs == 3
    assert len(adapter.blocks()) == 8
    adapter.replace_head(7)
    assert adapter.num_outputs == 7


def test_an_output_that_does_not_say_which_part_is_the_logits_is_an_error_that_names_the_parts():
    model = Wrapped(lambda y: {"one": y, "two": 2 * y})
    with pytest.raises(CapabilityError, match="a dict with 'one', 'two', and none of them is called 'logits'"):
        adapt(model, example_inputs=PICTURES).blocks()


@pytest.mark.parametrize("channels", [1, 3, 4, 12])
def test_channels_and_size_are_those_of_the_model(channels):
    model = timm.create_model("vit_tiny_patch16_224", depth=2, in_chans=channels, img_size=64, num_classes=3)
    adapter = Adapter(model)
    assert adapter.example_inputs()["image"].shape == (2, channels, 64, 64)
    assert len(adapter.blocks()) == 2 and adapter.grid(-1) == (4, 4)


def test_a_first_convolution_that_reads_several_pixels_at_once_has_no_channels_of_its_own():
    assert Adapter(timm.create_model("tresnet_m", num_classes=3)).in_channels == 3


class Padded(nn.Module):
    """PyTorch's own encoder on padded texts, which in evaluation takes a path that hooks do not see."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3)
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids, attention_mask):
        x = self.encoder(self.embedding(input_ids), src_key_padding_mask=attention_mask == 0)
        x = x * attention_mask[..., None]
        return self.head(x.sum(1) / attention_mask.sum(1, keepdim=True))


def test_pytorchs_own_encoder_on_padded_texts_is_seen_block_by_block():
    torch.manual_seed(0)
    mask = torch.ones(4, 9, dtype=torch.int64)
    mask[1:, 5:] = 0
    inputs = {"input_ids": torch.randint(1, 50, (4, 9)), "attention_mask": mask}
    adapter = adapt(Padded(), modality="text", example_inputs=inputs)
    assert [n for n, _ in adapter.named_blocks] == [f"encoder.layers.{i}" for i in range(3)]
    with torch.no_grad(), adapter.capture(attention=True, keep_calls=True) as seen:
        logits = adapter.forward(inputs)
    assert [tuple(h.shape) for h in seen.hidden.values()] == [(4, 9, 16)] * 3
    assert [tuple(w.shape) for w in seen.attention.values()] == [(4, 2, 9, 9)] * 3
    with torch.no_grad():
        assert torch.equal(adapter.forward_head(inputs, seen, seen.hidden[2]), logits)
        torch.testing.assert_close(adapter.model(**inputs), logits, rtol=1e-4, atol=1e-5)


def test_a_torchscript_program_is_refused_by_name():
    model = torch.jit.trace(torchvision.models.resnet18(num_classes=3).eval(), PICTURES)
    with pytest.raises(CapabilityError, match="is a TorchScript program.*give the model that it was made from"):
        adapt(model)


def test_weights_without_a_shape_or_without_numbers_are_refused_and_the_way_out_works():
    lazy, x = nn.Sequential(*(nn.Linear(6, 6) for _ in range(3)), nn.LazyLinear(3)), torch.randn(2, 6)
    with pytest.raises(CapabilityError, match=r"3\.weight of Sequential has no shape yet: call the model once"):
        adapt(lazy, example_inputs=x)
    lazy(x)
    assert adapt(lazy, example_inputs=x).num_outputs == 3
    accelerate = pytest.importorskip("accelerate")
    model = vit()
    accelerate.cpu_offload(model)
    for empty in (model, vit().to("meta")):
        with pytest.raises(CapabilityError, match=r"vit\.\S+ of ViT.* has no numbers here.*onto one device"):
            adapt(empty)


def test_pictures_as_a_file_has_them_are_refused_unless_the_model_takes_such():
    levels = (255 * torch.rand(2, 3, 32, 32)).to(torch.uint8)
    with pytest.raises(ConfigError, match=r"torch\.uint8 was given, the levels of a file: .*adapter\.transform\(\)"):
        adapt(vit()).as_inputs(levels)

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torchvision.models.resnet18(num_classes=3)

        def forward(self, x):
            return self.inner(x.float() / 255)

    adapter = adapt(Reads(), example_inputs=levels)
    assert adapter.as_inputs(levels)["image"].dtype == torch.uint8
