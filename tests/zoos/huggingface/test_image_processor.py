"""Pictures as transformers prepares them: every image processor of the installed library, against itself."""

import json

import numpy as np
import pytest
import timm
import torch
import transformers
from pictures import odd_pictures
from transformers import AutoImageProcessor, CLIPConfig, CLIPModel, ViTConfig, ViTForImageClassification
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES, _load_class_with_fallback

from mdpd_plugins.adapters import adapt, build_backbone
from mdpd_plugins.registry import CheckpointError
from mdpd_plugins.zoos.huggingface.image_processor import image_processor, own_size, prepared_at

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VIT = {**SIZES, "image_size": 64, "patch_size": 16}


def processors() -> dict[str, type]:
    """Name -> class, of every image processor that is made without files."""
    transformers.logging.set_verbosity_error()
    found = {}
    for names in IMAGE_PROCESSOR_MAPPING_NAMES.values():
        kind = _load_class_with_fallback(names, "pil")
        if kind is not None:
            found[kind.__name__] = kind
    return found


CLASSES = processors()


def given(processor, pictures):
    """What transformers itself makes of pictures, one after the other."""
    rgb = [picture.convert("RGB") for picture in pictures]
    quantised = {"do_color_quantize": False} if hasattr(processor, "do_color_quantize") else {}
    return torch.cat([processor(one, return_tensors="pt", **quantised)["pixel_values"] for one in rgb])


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_processor_of_a_folder_prepares_pictures_as_it_does_itself(name, tmp_path):
    try:
        processor = CLASSES[name]()
    except TypeError:
        pytest.skip("it is not made without files")
    processor.save_pretrained(tmp_path)
    found, saved = image_processor(str(tmp_path), ViTConfig())
    assert saved and type(found) is type(processor)
    pictures = odd_pictures()
    size = own_size(found)
    if size is None or max(size) > 1024:
        # Where the size depends on the picture, or patches or several crops come out, there is the stretched form.
        batch = prepared_at(found, (64, 48), False)(pictures)["image"]
        assert batch.shape == (4, 3, 64, 48) and batch.isfinite().all()
        return
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    ours = prepared_at(found, size, False)
    assert ours.size == size
    torch.testing.assert_close(ours(pictures)["image"], given(theirs, pictures).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize("stretch", [False, True])
def test_every_processor_has_a_form_at_another_size(name, stretch):
    try:
        processor = CLASSES[name]()
    except TypeError:
        pytest.skip("it is not made without files")
    transform = prepared_at(processor, (96, 96), stretch)
    batch = transform(odd_pictures()[:2])["image"]
    assert transform.size == (96, 96) and batch.shape == (2, 3, 96, 96)


def saved_vit(folder, **options):
    ViTForImageClassification(ViTConfig(**VIT)).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}, **options).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5, "do_normalize": False},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 1},
    ],
)
@pytest.mark.parametrize("resize", ["auto", "stretch"])
def test_all_that_a_folder_says_is_done_in_training_and_said_in_the_export(options, resize, tmp_path):
    folder = saved_vit(tmp_path / "vit", **options)
    expected = given(AutoImageProcessor.from_pretrained(folder, backend="pil"), odd_pictures())
    adapter = build_backbone("huggingface/vit", pretrained=str(folder), num_classes=3)
    adapter.prepare(resize=resize)  # ViT's own way is to stretch
    assert torch.equal(adapter.transform()(odd_pictures())["image"], expected)
    out = adapter.export(tmp_path / "out")
    assert torch.equal(given(AutoImageProcessor.from_pretrained(out, backend="pil"), odd_pictures()), expected)


def test_settings_in_the_newer_file_and_a_flipped_order_of_colours(tmp_path):
    tower = {**SIZES, "projection_dim": 16}
    config = CLIPConfig(text_config={**tower, "vocab_size": 99}, vision_config={**tower, "image_size": 64})
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    settings = transformers.CLIPImageProcessor(size=72, crop_size=64, image_mean=[0.3] * 3).to_dict()
    text = json.dumps({"image_processor": settings, "processor_class": "CLIPProcessor"}, default=dict)
    (tmp_path / "clip" / "processor_config.json").write_text(text)
    adapter = build_backbone("huggingface/clip_vision_model", pretrained=str(tmp_path / "clip"), num_classes=2)
    theirs = AutoImageProcessor.from_pretrained(tmp_path / "clip", backend="pil")
    assert tuple(theirs.image_mean) == (0.3,) * 3
    assert torch.equal(adapter.transform()(odd_pictures())["image"], given(theirs, odd_pictures()))

    red = np.zeros((50, 70, 3), np.uint8)
    red[..., 0] = 255
    mobile = build_backbone("huggingface/mobilevit", pretrained=None, num_classes=2, image_size=64)
    prepared = mobile.transform()([transformers.image_utils.PIL.Image.fromarray(red)])["image"]
    assert prepared.shape == (1, 3, 64, 64) and prepared[0, :, 32, 32].tolist() == [0, 0, 1]  # blue first


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [("dinov2", "Bit"), ("clip_vision_model", "CLIP"), ("siglip_vision_model", "Siglip"), ("dinov3_convnext", "ViT")],
)
def test_without_files_the_familys_usual_processor_serves(model_type, kind):
    processor, saved = image_processor("", transformers.AutoConfig.for_model(model_type))
    assert not saved and type(processor).__name__ == f"{kind}ImageProcessorPil"


def test_weights_without_settings_are_named_in_a_warning(tmp_path, caplog):
    ViTForImageClassification(ViTConfig(**VIT)).save_pretrained(tmp_path)
    adapter = build_backbone("huggingface/vit", pretrained=str(tmp_path), num_classes=3)
    assert adapter.image_size == (64, 64)
    assert f"{tmp_path} holds no settings of an image processor" in caplog.text


def test_damaged_settings_are_refused_by_name(tmp_path):
    saved_vit(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="settings in .* cannot be used"):
        build_backbone("huggingface/vit", pretrained=str(tmp_path), num_classes=3).transform()


def test_sizes_that_were_asked_for_win_and_lengths_keep_their_proportions(tmp_path):
    transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(
            image_size=56, patch_size=14, hidden_size=32, num_hidden_layers=2, num_attention_heads=2
        )
    ).save_pretrained(tmp_path)
    transformers.BitImageProcessor(size={"shortest_edge": 64}, crop_size=56).save_pretrained(tmp_path)
    adapter = build_backbone("huggingface/dinov2", pretrained=str(tmp_path), num_classes=3)
    assert adapter.image_size == (56, 56)
    adapter.prepare(input_size=(28, 28))
    processor = adapter.image_transform().processor
    assert (processor.size.shortest_edge, processor.crop_size.height, processor.crop_size.width) == (32, 28, 28)
    built = build_backbone("huggingface/vit", pretrained=str(saved_vit(tmp_path / "vit")), num_classes=3, image_size=32)
    assert built.image_size == (32, 32)


def test_a_live_model_is_given_what_its_checkpoints_processor_makes(tmp_path):
    folder = saved_vit(tmp_path, do_normalize=False)
    adapter = adapt(ViTForImageClassification.from_pretrained(folder))
    theirs = AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert torch.equal(adapter.transform()(odd_pictures())["image"], given(theirs, odd_pictures()))


@pytest.mark.parametrize(("size", "resize"), [(None, "auto"), ((96, 96), "auto"), ((96, 96), "stretch")])
def test_timms_models_in_transformers_are_given_what_timm_gives_them(size, resize, tmp_path):
    said = timm.create_model("test_vit.r160_in1k").pretrained_cfg
    config = transformers.TimmWrapperConfig(architecture="test_vit", pretrained_cfg=said, num_labels=3)
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path / "vit")
    adapter = build_backbone("huggingface/timm_wrapper", pretrained=str(tmp_path / "vit"), num_classes=3)
    adapter.prepare(input_size=size, resize=resize)
    data = timm.data.resolve_data_config(pretrained_cfg=said)
    data |= {"input_size": (3, *size)} if size else {}
    data |= {"crop_pct": 1.0, "crop_mode": "squash"} if resize == "stretch" else {}
    transform = timm.data.create_transform(**data, is_training=False)
    expected = torch.stack([transform(picture.convert("RGB")) for picture in odd_pictures()])
    assert torch.equal(adapter.transform()(odd_pictures())["image"], expected)
    theirs = AutoImageProcessor.from_pretrained(adapter.export(tmp_path / "out"))
    assert torch.equal(given(theirs, odd_pictures()), expected)
