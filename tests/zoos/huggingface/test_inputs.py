"""What transformers models read, against transformers' own processors."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, ImageGPTImageProcessorPil
from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.exports.load import load_folder
from mdpd_plugins.exports.record import ExportRecord
from mdpd_plugins.registry import ConfigError
from mdpd_plugins.zoos.huggingface.inputs import colour_tokens, colours, example_text, padding_side, patches

SIGLIP2 = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIGLIP2 |= {"patch_size": 8, "num_patches": 16}


def build(name: str, **options):
    return build_backbone(f"huggingface/{name}", pretrained=None, num_classes=5, **options)


def picture(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def normalised(image: np.ndarray) -> torch.Tensor:
    return (torch.tensor(image).permute(2, 0, 1).float() / 255 - 0.5)[None] / 0.5


@pytest.mark.parametrize(("model_type", "side"), [("xlnet", "left"), ("gemma", "left"), ("bert", "right")])
def test_texts_are_padded_where_their_tokenizer_pads(model_type, side):
    assert padding_side(model_type) == side
    mask = example_text(AutoConfig.for_model(model_type), 2)["attention_mask"]
    real, padding = [1] * 9, [0] * 7
    assert mask.tolist() == [[1] * 16, padding + real if side == "left" else real + padding]


def test_a_type_without_a_tokenizer_of_its_own_is_padded_on_the_right():
    assert padding_side("no-such-type") == "right"


def test_patches_are_cut_as_transformers_cuts_them():
    images = torch.randn(2, 3, 16, 24)
    cut = patches(images, 8)
    expected = torch.stack([convert_image_to_patches(image, 8) for image in images])
    assert torch.equal(cut["pixel_values"], expected)
    assert cut["spatial_shapes"].tolist() == [[2, 3], [2, 3]]
    assert cut["pixel_attention_mask"].tolist() == [[1] * 6] * 2


def test_an_image_that_is_not_whole_patches_is_refused():
    with pytest.raises(ConfigError, match="18 x 24 pixels is not whole patches of 8 x 8"):
        patches(torch.randn(1, 3, 18, 24), 8)


def test_an_exported_model_of_patches_comes_with_a_processor_that_feeds_it_alike(tmp_path):
    adapter = build("siglip2", vision_config=SIGLIP2)
    assert adapter.image_size == (32, 32)
    adapter.export(tmp_path / "out")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    image = picture(32)
    theirs = processor(images=image, return_tensors="pt")
    with torch.no_grad():
        ours = adapter.forward({"image": normalised(image)})
        logits = adapter.load_exported(tmp_path / "out")(**theirs).logits
    torch.testing.assert_close(logits, ours, atol=1e-5, rtol=0)


def test_a_picture_of_another_shape_is_stretched_for_patches_in_training_and_in_predicting(tmp_path):
    adapter = build("siglip2", vision_config=SIGLIP2)
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    with torch.no_grad():
        ours = adapter.forward(adapter.transform()([wide]))
    record = ExportRecord(adapter.name, {}, "image", "single", tuple("abcde"), size=(32, 32))
    exported = load_folder(adapter.export(tmp_path / "out"), record)
    torch.testing.assert_close(exported.logits([wide]), ours, atol=1e-5, rtol=0)


def test_an_exported_model_of_colours_comes_with_a_processor_that_feeds_it_alike(tmp_path):
    adapter = build("imagegpt", n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=28)
    assert adapter.image_size == (8, 8)
    assert adapter.grid(-1) == (8, 8)
    adapter.export(tmp_path / "out")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    image = picture(8)
    theirs = processor(images=image, return_tensors="pt")
    assert torch.equal(theirs["input_ids"], colour_tokens(normalised(image), colours(None, 27)))
    assert theirs["input_ids"].unique().numel() > 10
    loaded = type(adapter)(adapter.load_exported(tmp_path / "out"))
    with torch.no_grad():
        assert torch.equal(loaded.forward({"image": normalised(image)}), adapter.forward({"image": normalised(image)}))


def test_a_palette_beside_the_weights_is_the_one_used():
    palette = colours(ImageGPTImageProcessorPil(clusters=[[-1, -1, -1], [1, 1, 1]]), 512)
    assert palette.tolist() == [[-1, -1, -1], [1, 1, 1]]
    image = torch.tensor([-0.9, 0.1]).expand(1, 3, 1, 2)
    assert colour_tokens(image, palette).tolist() == [[0, 1]]
    assert colours(None, 512).unique(dim=0).shape == (512, 3)
