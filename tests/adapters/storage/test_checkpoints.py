"""Weights: taken as they are, or refused with the reason; nothing in a file is ever run."""

import os
from pathlib import Path

import pytest
import small_zoo
import torch

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.adapters.storage.checkpoint import read_state_dict
from mdpd_plugins.registry import CheckpointError, ConfigError, UnknownBackboneError, load_catalogue

EXPORTS = ("hf-vit", "hf-dinov2", "hf-minilm", "mm-vit", "mm-deit", "mm-resnet", "oc-image", "oc-text")


def build(key: str, pretrained, num_classes: int = 5, **options):
    name, own = small_zoo.BACKBONES[key]
    return build_backbone(name, pretrained=str(pretrained), num_classes=num_classes, **{**own, **options})


@pytest.mark.parametrize("key", EXPORTS)
def test_weights_of_a_folder_are_taken_bit_for_bit(key, tmp_path):
    trained = small_zoo.small(key)
    folder = trained.export(tmp_path / "export")
    again = build(key, folder)
    # The projection of OpenCLIP's other tower led to a space that is gone, and is zero.
    other = {"oc-image": {"text_projection"}, "oc-text": {"visual.proj"}}.get(key, set())
    assert small_zoo.changed(small_zoo.snapshot(trained.model), again.model) == other
    assert not any(again.model.state_dict()[k].any() for k in other)
    assert str(folder) in again.origin
    assert not again.random


@pytest.mark.parametrize("key", EXPORTS)
def test_a_checkpoint_with_another_number_of_classes_gives_its_body(key, tmp_path):
    trained = small_zoo.small(key)
    again = build(key, trained.export(tmp_path / "export"), num_classes=3)
    own, theirs = again.model.state_dict(), trained.model.state_dict()
    reshaped = {k for k in own if own[k].shape != theirs[k].shape}
    assert reshaped <= {*again.head_parameters(), "visual.proj", "text_projection"}
    assert reshaped
    assert not [k for k in own.keys() - reshaped if k in again.parameters() and not torch.equal(own[k], theirs[k])]
    assert again.forward(small_zoo.inputs_of(again)).shape == (4, 3)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_bare_state_dict_is_read_from_either_format(suffix, tmp_path):
    from safetensors.torch import save_file

    state = {"a.weight": torch.arange(4.0), "b": torch.ones(2, dtype=torch.int64)}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"meta": {"epoch": 3}, "state_dict": state}, path)
    else:
        save_file(state, str(path))
    read = read_state_dict(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[k], state[k]) for k in state)


@pytest.mark.parametrize("key", ["hf-vit", "mm-vit", "oc-image"])
def test_a_missing_checkpoint_is_an_error_that_says_what_could_be_given(key, tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing_here.*does not exist"):
        build(key, tmp_path / "nothing_here")


OTHER = {
    # what the checkpoint is of -> what it is given to, and a key that differs
    "hf-vit": ({"num_hidden_layers": 2}, r"missing \(vit\.layers\.2\."),
    "mm-vit": (
        {
            "backbone": {
                "patch_size": 8,
                "arch": {"embed_dims": 32, "num_layers": 2, "num_heads": 4, "feedforward_channels": 64},
            }
        },
        r"missing \(backbone\.layers\.2\.",
    ),
    "oc-image": (
        {"vision_cfg": {"layers": 2, "width": 64, "head_width": 16, "patch_size": 8}},
        r"missing \(visual\.transformer\.resblocks\.2\.",
    ),
}


@pytest.mark.parametrize("key", OTHER)
def test_a_shallower_models_checkpoint_is_refused_with_the_keys_that_are_missing(key, tmp_path):
    options, message = OTHER[key]
    folder = small_zoo.small(key, **options).export(tmp_path / "export")
    with pytest.raises(CheckpointError, match=message):
        build(key, folder, **small_zoo.BACKBONES[key][1])


@pytest.mark.parametrize("key", OTHER)
def test_a_deeper_models_checkpoint_is_refused_with_the_keys_that_are_too_many(key, tmp_path):
    folder = small_zoo.small(key).export(tmp_path / "export")
    with pytest.raises(CheckpointError, match=r"another architecture.* unexpected \("):
        build(key, folder, **OTHER[key][0])


@pytest.mark.parametrize(
    ("key", "wider", "named"),
    [
        ("hf-vit", {"hidden_size": 64}, r"of another shape \(vit\."),
        (
            "mm-vit",
            {
                "backbone": {
                    "patch_size": 8,
                    "arch": {"embed_dims": 64, "num_layers": 3, "num_heads": 4, "feedforward_channels": 64},
                }
            },
            r"of another shape \(backbone\.",
        ),
        (
            "oc-image",
            {"vision_cfg": {"layers": 3, "width": 128, "head_width": 16, "patch_size": 8}},
            r"of another shape \(visual\.",
        ),
    ],
)
def test_a_narrower_models_checkpoint_is_refused_with_the_keys_of_another_shape(key, wider, named, tmp_path):
    folder = small_zoo.small(key).export(tmp_path / "export")
    with pytest.raises(CheckpointError, match=named):
        build(key, folder, **wider)


@pytest.mark.parametrize(("given", "asked"), [("mm-vit", "mm-resnet"), ("mm-deit", "mm-vit"), ("hf-minilm", "hf-vit")])
def test_a_checkpoint_of_another_family_is_refused(given, asked, tmp_path):
    folder = small_zoo.small(given).export(tmp_path / "export")
    with pytest.raises(CheckpointError, match="another architecture|holds a 'bert' model"):
        build(asked, folder)


def test_a_file_of_another_framework_is_refused(tmp_path):
    folder = small_zoo.small("mm-vit").export(tmp_path / "export")
    with pytest.raises(CheckpointError, match=r"another architecture.*missing \(.*unexpected \(backbone\."):
        build("oc-image", folder / "model.pth")


class Payload:
    """Runs code when it is unpickled: it makes a folder."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("key", ["hf-vit", "mm-vit", "oc-image"])
def test_pickled_code_in_a_checkpoint_is_refused_and_not_run(key, tmp_path):
    adapter = small_zoo.small(key)
    folder = adapter.export(tmp_path / "export")
    state = {**adapter.model.state_dict(), "extra": Payload(tmp_path / "ran")}
    for file in folder.glob("*model*.*"):
        file.unlink()
    file = folder / {"hf-vit": "pytorch_model.bin", "mm-vit": "model.pth", "oc-image": "weights.pt"}[key]
    torch.save(state, file)
    with pytest.raises(CheckpointError, match="was refused.*run code from the file"):
        build(key, file if key == "oc-image" else folder)
    assert not (tmp_path / "ran").exists()
    # The file does what it says where it is trusted: the test would notice.
    torch.load(file, weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_says_so(content, suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.(pth|safetensors)'"):
        read_state_dict(path)


def test_plain_data_that_is_no_state_dict_says_so(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("num_classes", [0, -1])
def test_a_head_without_outputs_is_refused(num_classes):
    with pytest.raises(ConfigError, match=f"num_classes={num_classes}: a backbone needs at least one output"):
        build_backbone("huggingface/minilm-l6", pretrained=None, num_classes=num_classes)


@pytest.mark.parametrize(
    ("key", "options", "message"),
    [
        ("hf-vit", {"hidden_sise": 64}, r"no option 'hidden_sise': did you mean 'hidden_size'"),
        ("hf-minilm", {"num_layer": 2}, r"no option 'num_layer': did you mean"),
        ("mm-vit", {"backbon": {}}, r"no option 'backbon': did you mean 'backbone'"),
        ("mm-vit", {"backbone": {"arhc": "b"}}, r"cannot be built with .*arhc"),
        ("oc-image", {"vision_cfg": {"widht": 64}}, r"no vision_cfg option 'widht': did you mean 'width'"),
        ("oc-image", {"vision": {}}, r"takes no option 'vision'"),
        ("oc-image", {"tower": "sound"}, r"no tower 'sound': use 'image', 'text', or 'both'"),
    ],
)
def test_an_unknown_option_is_named_with_the_closest_known(key, options, message):
    name, own = small_zoo.BACKBONES[key]
    with pytest.raises(ConfigError, match=message):
        build_backbone(name, pretrained=None, num_classes=5, **{**own, **options})


def test_an_unknown_backbone_is_named_with_the_closest_known():
    with pytest.raises(UnknownBackboneError, match="huggingface/minilm-l6"):
        build_backbone("huggingface/minilm-l7", pretrained=None, num_classes=5)


@pytest.mark.parametrize("key", ["hf-vit", "hf-dinov2", "mm-vit", "oc-image"])
def test_auto_goes_on_from_random_weights_only_where_none_can_be_had_and_says_so(key, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    adapter = build(key, "auto")
    assert adapter.random
    assert "nor reachable" in adapter.origin or "no weights that fit" in adapter.origin


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_a_wrapper_puts_before_every_name_is_taken_off(prefix, suffix, tmp_path):
    from safetensors.torch import save_file

    state = {"a.weight": torch.ones(2), "module.weight": torch.zeros(2)}
    wrapped = {f"{prefix}{k}": v for k, v in state.items()}
    path = tmp_path / f"checkpoint{suffix}"
    save_file(wrapped, path) if suffix == ".safetensors" else torch.save({"state_dict": wrapped}, path)
    read = read_state_dict(path)
    assert read.keys() == state.keys() and all(torch.equal(read[k], v) for k, v in state.items())


@pytest.mark.parametrize("key", ["oc-image", "mm-resnet"])
def test_a_checkpoint_of_a_model_that_was_trained_on_several_devices_loads(key, tmp_path):
    first = small_zoo.small(key)
    path = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in first.model.state_dict().items()}}, path)
    other = {"oc-image": {"text_projection"}}.get(key, set())
    assert small_zoo.changed(small_zoo.snapshot(first.model), build(key, path).model) == other


@pytest.mark.parametrize("kind", ["modernbert", "data2vec-vision", "levit"])
def test_an_encoder_without_a_head_is_no_other_architecture_though_the_classifier_adds_a_norm(kind, tmp_path):
    import transformers
    from safetensors.torch import load_file, save_file

    small = next(iter(load_catalogue().get(f"huggingface/{kind}").small_options().values()))
    config = build_backbone(f"huggingface/{kind}", pretrained=None, num_classes=2, **small).config
    encoder = transformers.AutoModel.from_config(config)
    encoder.save_pretrained(tmp_path)
    adapter = build_backbone(f"huggingface/{kind}", pretrained=str(tmp_path), num_classes=3)
    own = adapter.model.base_model.state_dict()
    assert all(torch.equal(own[k], v) for k, v in encoder.state_dict().items())
    # What the encoder itself has must be there, norms too.
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    state.pop(next(k for k in state if "norm" in k.lower()))
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="keys 1 missing"):
        build_backbone(f"huggingface/{kind}", pretrained=str(tmp_path), num_classes=3)


def test_averages_that_a_training_kept_beside_the_weights_are_left_out(tmp_path):
    trained = small_zoo.small("mm-resnet").model.state_dict()
    averages = {f"ema_{k.replace('.', '_')}": torch.zeros_like(v) for k, v in trained.items()}
    torch.save({"meta": {}, "state_dict": {**trained, **averages}}, tmp_path / "epoch_3.pth")
    again = build("mm-resnet", tmp_path / "epoch_3.pth").model.state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in again.items())
    torch.save({"state_dict": {**trained, "ema_of_something": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"unexpected \(ema_of_something\)"):
        build("mm-resnet", tmp_path / "other.pth")


def test_a_file_without_a_state_dict_says_what_it_holds(tmp_path):
    torch.save({"model_ema": {"a": torch.zeros(1)}, "epoch": 3}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="holds no state dict.* and it holds 'model_ema', 'epoch'"):
        read_state_dict(tmp_path / "weights.pth")
