"""Encoders of transformers with an output layer of ours: pooling, export, and a checkpoint of a larger model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_zoo import randomise

pytest.importorskip("transformers")

from mdpd_plugins.adapters import adapt, build_backbone
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.testing.many import check_registered

LOADER = Path(__file__).parents[2] / "helpers" / "foreign_loader.py"
_PLAIN = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
_SIZES = {**_PLAIN, "intermediate_size": 64}
_IMAGES = {**_SIZES, "image_size": 32, "patch_size": 8}
ENCODERS = {
    "clip_vision_model": (_IMAGES, "pooler_output"),
    "clip_text_model": ({**_SIZES, "vocab_size": 600, "eos_token_id": 599, "bos_token_id": 598}, "pooler_output"),
    "vitdet": ({**_PLAIN, "image_size": 32, "pretrain_image_size": 32, "patch_size": 8}, "mean"),
    "vit_mae": (_IMAGES, "mean"),
    "granite": ({**_SIZES, "num_key_value_heads": 4, "vocab_size": 600}, "mean"),
    # A type with a classifier of its own, which reads the pooler.
    "bert": ({**_SIZES, "vocab_size": 600, "head": "mean"}, "mean"),
}


def small(model_type, **options):
    adapter = build_backbone(
        f"huggingface/{model_type}", pretrained=None, num_classes=4, **{**ENCODERS[model_type][0], **options}
    )
    randomise(adapter.model)
    return adapter


def logits(adapter):
    with torch.no_grad():
        return adapter.forward(adapter.example_inputs())


@pytest.mark.parametrize("model_type", ENCODERS)
def test_an_encoders_own_pooler_is_used_and_otherwise_the_mean(model_type):
    adapter = small(model_type)
    inputs = adapter.example_inputs()
    given = {"pixel_values": inputs["image"]} if "image" in inputs else dict(inputs)
    if model_type == "vit_mae":
        given["noise"] = torch.arange(16).expand(2, 16)
    with torch.no_grad():
        output, answer = adapter.model.encoder(**given), adapter.forward(inputs)
    assert adapter.model.pooling == ENCODERS[model_type][1]
    if model_type in ("granite", "bert"):
        # One text at a time, without padding.
        rows = [h[m.bool()].mean(0) for h, m in zip(output.last_hidden_state, inputs["attention_mask"], strict=True)]
        pooled = torch.stack(rows)
    elif ENCODERS[model_type][1] == "mean":
        pooled = output.last_hidden_state.mean({"vitdet": (2, 3), "vit_mae": 1}[model_type])
    else:
        pooled = output.pooler_output
    assert torch.allclose(adapter.model.head(pooled), answer, atol=1e-5)
    assert answer.shape == (2, 4) and answer.std() > 0


def test_a_masked_autoencoder_sees_the_whole_image_every_time():
    adapter = small("vit_mae")
    assert torch.equal(logits(adapter), logits(adapter))
    assert adapter.forward_features(adapter.example_inputs()).shape == (2, 17, 32)


def test_the_kit_passes():
    found = check_registered("huggingface/clip_vision_model")
    assert found["status"] == "pass", found["reason"]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Model type -> (our logits, those of the card's lines in a process without us)."""
    folder, jobs, ours = tmp_path_factory.mktemp("exports"), [], {}
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other process: bit for bit needs the same number on both sides
    for model_type in ("clip_vision_model", "clip_text_model", "vitdet", "granite", "bert"):
        adapter = small(model_type)
        target = adapter.export(folder / model_type)
        code = adapter.usage.split("```python\n")[1].split("```")[0].replace('"EXPORT', f'"{target}')
        inputs, names = adapter.example_inputs(), {"code": code}
        names |= {"inputs": str(folder / f"{model_type}.in"), "logits": str(folder / f"{model_type}.out")}
        torch.save(inputs, names["inputs"])
        jobs.append({"kind": "encoder", "folder": str(target), **names})
        ours[model_type] = logits(adapter)
    torch.set_num_threads(before)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-I", str(LOADER), str(folder / "jobs.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return {k: (v, torch.load(folder / f"{k}.out")) for k, v in ours.items()}


@pytest.mark.parametrize("model_type", ["clip_vision_model", "clip_text_model", "vitdet", "granite", "bert"])
def test_the_lines_on_the_card_give_the_same_logits_without_us(foreign, model_type):
    ours, theirs = foreign[model_type]
    assert torch.equal(ours, theirs)


def test_the_export_holds_the_zoos_files_and_the_output_layer(tmp_path):
    adapter = small("clip_vision_model")
    folder = adapter.export(tmp_path / "out")
    names = {"config.json", "model.safetensors", "preprocessor_config.json", "head.json", "head.safetensors"}
    assert {p.name for p in folder.iterdir()} == names
    loaded = adapt(adapter.load_exported(folder))
    assert type(loaded) is type(adapter)
    assert torch.equal(logits(loaded), logits(adapter))


@pytest.mark.parametrize("content", ["{", "[]", '{"pooling": "max", "dims": []}', '{"dims": [1]}'])
def test_a_damaged_output_layer_is_refused(tmp_path, content):
    adapter = small("clip_vision_model")
    folder = adapter.export(tmp_path / "out")
    (folder / "head.json").write_text(content)
    with pytest.raises(CheckpointError, match="head.json|no output layer"):
        adapter.load_exported(folder)
    (folder / "head.safetensors").unlink()
    with pytest.raises(CheckpointError, match="head.safetensors"):
        adapter.load_exported(folder)


def test_a_tower_is_taken_out_of_a_larger_models_checkpoint(tmp_path):
    import transformers

    text = ENCODERS["clip_text_model"][0]
    config = transformers.CLIPConfig(text_config=text, vision_config=_IMAGES, projection_dim=16)
    whole = transformers.CLIPModel(config)
    whole.save_pretrained(tmp_path)
    for name, tower in (("clip_vision_model", whole.vision_model), ("clip_text_model", whole.text_model)):
        adapter = build_backbone(f"huggingface/{name}", pretrained=str(tmp_path), num_classes=4)
        own, theirs = adapter.model.encoder.state_dict(), tower.state_dict()
        assert own.keys() == theirs.keys()
        assert all(torch.equal(own[k], theirs[k]) for k in own)
    with pytest.raises(CheckpointError, match="'clip'"):
        build_backbone("huggingface/vitdet", pretrained=str(tmp_path), num_classes=4)


def test_a_checkpoint_that_lacks_a_layer_is_refused(tmp_path):
    import transformers

    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**_IMAGES)).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 4}))
    with pytest.raises(CheckpointError, match="missing"):
        build_backbone("huggingface/clip_vision_model", pretrained=str(tmp_path), num_classes=4)


def test_the_mean_needs_no_pooler_in_the_checkpoint(tmp_path):
    import transformers

    config = transformers.BertConfig(**_SIZES, vocab_size=600)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    adapter = build_backbone("huggingface/bert", pretrained=str(tmp_path), num_classes=4, head="mean")
    assert adapter.model.pooling == "mean" and set(adapter.head_parameters()) == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("model_type", "head", "says"),
    [
        ("bert", "maen", "mean"),
        ("t5", "mean", "decoder"),
        ("vilt-b32", "mean", "question"),
        ("bert", "image", "huggingface/bert is a classifier of text inputs"),
        ("dinov2-small", "text", "classifier of image inputs"),
    ],
)
def test_a_head_that_cannot_be_is_refused(model_type, head, says):
    with pytest.raises(ConfigError, match=says):
        build_backbone(f"huggingface/{model_type}", pretrained=None, num_classes=4, head=head)
