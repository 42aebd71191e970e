"""An export, loaded by its zoo with its own preparation of inputs, gives what training measured."""

from __future__ import annotations

import json

import pytest
import torch
from exporting import export, of_the_backbone, table
from running import image_folder, text_table, trained, weights, write_config

from mdpd_plugins.data import load_source
from mdpd_plugins.exports import evaluate_export, load_export
from mdpd_plugins.exports.record import read_record, write_record
from mdpd_plugins.registry.errors import CheckpointError, ConfigError, DataError
from mdpd_plugins.training import build_experiment, load_config
from mdpd_plugins.training.experiment import first_batch

# One of each zoo and a text, trained; the others exported with drawn weights.
TRAINED, DRAWN = (
    ("hf-vit", "mm-vit", "oc-image", "hf-minilm"),
    ("oc-text", "mm-resnet", "mm-bgr", "mm-plain", "encoder"),
)
TEXTS = ("hf-minilm", "oc-text")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Bit for bit needs the same number of threads on both sides."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Texts of changing length, and pictures of changing shape: none is as wide as it is high."""
    base = tmp_path_factory.mktemp("data")
    pictures = {"source": {"type": "image_folder", "root": str(image_folder(base / "pictures")), "val_size": 18}}
    texts = table(text_table(base / "texts.csv"), val_size=20)
    return lambda key: texts if key in TEXTS else pictures


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Backbone key -> (folder, experiment with the exported weights, metrics of the backbone path)."""
    base, found = tmp_path_factory.mktemp("runs"), {}
    for key in TRAINED:
        # Large steps, so that a path that had not been trained would be told from one that had.
        steps = {"optim": {"norm_lr": 0.02, "head_lr": 0.02}, "train": {"max_steps": 4}}
        distill = {"reduction": 4, "bottleneck": 8, "backbone_every": 2, "warmup": 0.0}
        config = write_config(base / key, key, data=data(key), distill=distill, **steps)
        summary = trained(config, base / key)
        experiment = build_experiment(load_config(base / key / "config.py"))
        experiment.distiller.load_state_dict(weights(base / key, 4))
        found[key] = base / key, experiment, of_the_backbone(summary)
    for key in DRAWN:
        experiment, metrics = export(base / key, key, data=data(key))
        found[key] = base / key, experiment, metrics
    return found


@pytest.mark.parametrize("key", TRAINED + DRAWN)
def test_evaluating_an_export_on_its_runs_config_gives_the_runs_metrics(runs, key):
    folder, _, metrics = runs[key]
    found = evaluate_export(load_export(folder / "export", "cpu"), load_config(folder / "config.py"))
    assert found == metrics != {}


@pytest.mark.parametrize("key", TRAINED + DRAWN)
def test_the_zoos_preparation_and_forward_give_the_logits_of_training(runs, key):
    folder, experiment, _ = runs[key]
    exported = load_export(folder / "export", "cpu")
    batch, source = first_batch(experiment.val_loader), load_source(experiment.config.data.source, "val")
    with torch.no_grad():
        ours = experiment.adapter.forward(batch["inputs"])
    theirs = exported.logits([source[i][0] for i in range(len(ours))])
    assert len(theirs) > 1 and theirs.std() > 0
    if key.startswith("mm"):  # it normalises on the scale of 0 to 255
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(theirs, ours)


@pytest.mark.parametrize("key", ["mm-vit", "mm-resnet"])
def test_mmpretrain_computes_the_same_from_the_same_inputs(runs, key):
    folder, experiment, _ = runs[key]
    inputs = first_batch(experiment.val_loader)["inputs"]
    model = load_export(folder / "export", "cpu").model
    with torch.no_grad():
        assert torch.equal(model(inputs["image"], mode="tensor"), experiment.adapter.forward(inputs))


def test_the_other_split_and_options_are_evaluated_too(runs):
    folder, _, metrics = runs["hf-vit"]
    exported = load_export(folder / "export", "cpu")
    config = load_config(folder / "config.py", {"data.source.test_size": 4, "data.eval_batch_size": 3})
    assert evaluate_export(exported, config, "test").keys() == metrics.keys()


def test_the_record_says_what_the_zoos_files_do_not(runs):
    for key, (folder, _, metrics) in runs.items():
        record = load_export(folder / "export", "cpu").record
        assert record.classes == (("a", "b") if key in TEXTS else ("bright", "dark", "striped")), key
        assert record.modality == ("text" if key in TEXTS else "image")
        assert (record.size is None) != (record.max_length is None)
        assert {k.removeprefix("backbone/"): v for k, v in record.metrics.items() if "side" not in k} == metrics


# ---- data that does not fit


@pytest.fixture
def refused(runs):
    def call(key, source=None, **options):
        folder, _, _ = runs[key]
        config = load_config(folder / "config.py", options)
        config.data.source = source or config.data.source
        with pytest.raises(DataError) as error:
            evaluate_export(load_export(folder / "export", "cpu"), config)
        return str(error.value)

    return call


def test_classes_in_another_order_are_refused_and_both_orders_shown(refused):
    message = refused("hf-vit", **{"data.source.classes": ["dark", "bright", "striped"]})
    assert "in another order" in message
    assert "Data: dark, bright, striped. Export: bright, dark, striped" in message


def test_other_classes_are_refused(refused, tmp_path):
    root = image_folder(tmp_path / "other", count=4, classes=("cat", "dog", "owl"))
    message = refused("oc-image", data_root=str(root))
    assert "of other names" in message and "Data: cat, dog, owl. Export: bright, dark, striped" in message


def test_another_modality_or_kind_of_label_is_refused(refused, tmp_path, data):
    assert "reads images, but the data is text" in refused("mm-vit", data("hf-minilm")["source"])
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("text,label\n" + "".join(f"word {i},{i / 2}\n" for i in range(30)))
    message = refused("hf-minilm", table(numbers, label_kind="float")["source"])
    assert "'single' labels, but the data has 'float' ones" in message


# ---- folders that do not fit


@pytest.fixture
def folder(runs, tmp_path):
    """A copy of an export that a test may spoil."""
    import shutil

    def copy(key):
        return shutil.copytree(runs[key][0] / "export", tmp_path / key)

    return copy


def test_an_export_without_its_record_says_how_to_get_one(folder):
    export = folder("hf-vit")
    (export / "mdpd.json").unlink()
    with pytest.raises(ConfigError, match="export again with `mdpd export WORK_DIR OUT`"):
        load_export(export)


def test_a_work_directory_is_told_from_its_export(runs, tmp_path):
    with pytest.raises(ConfigError, match="work directory, and its export is '.*export'"):
        load_export(runs["hf-vit"][0])
    with pytest.raises(ConfigError, match="is no folder"):
        load_export(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[]", '{"backbone": "a/b"}', '{"classes": 3}'])
def test_a_record_that_cannot_be_read_is_named(folder, text):
    export = folder("hf-vit")
    (export / "mdpd.json").write_text(text)
    with pytest.raises(CheckpointError, match="is not a record of an export"):
        load_export(export)


def test_a_later_versions_further_entries_do_no_harm(folder):
    export = folder("hf-vit")
    content = json.loads((export / "mdpd.json").read_text())
    write_record(export, {**content, "licence": "MIT"})
    assert load_export(export).record.backbone == content["backbone"]


WEIGHTS = {"hf-vit": "model.safetensors", "mm-vit": "model.pth", "oc-image": "open_clip_model.safetensors"}


@pytest.mark.parametrize("key", WEIGHTS)
def test_weights_that_are_cut_short_or_gone_are_one_error(folder, key):
    file = folder(key) / WEIGHTS[key]
    file.write_bytes(file.read_bytes()[:1000])
    read_record(file.parent).write(file.parent)  # as if it had been exported so: the zoo's own loader finds it
    with pytest.raises(CheckpointError):
        load_export(file.parent)
    file.unlink()
    read_record(file.parent).write(file.parent)
    with pytest.raises(CheckpointError):
        load_export(file.parent)


@pytest.mark.parametrize("key", ["hf-vit", "mm-vit"])
def test_weights_that_lack_a_tensor_are_not_filled_in_at_random(folder, key):
    from safetensors.torch import load_file, save_file

    file = folder(key) / WEIGHTS[key]
    if key == "mm-vit":
        state = torch.load(file)
        del state["state_dict"]["head.layers.head.weight"]
        torch.save(state, file)
    else:
        state = load_file(file)
        del state["classifier.weight"]
        save_file(state, file, metadata={"format": "pt"})
    read_record(file.parent).write(file.parent)
    with pytest.raises(CheckpointError, match="1 missing"):
        load_export(file.parent)


def test_a_device_that_is_not_there_is_refused(runs):
    with pytest.raises(ConfigError, match="device 'gpu' cannot be used here"):
        load_export(runs["hf-vit"][0] / "export", "gpu")
