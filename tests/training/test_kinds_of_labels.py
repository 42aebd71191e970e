"""Runs on every kind of label, from data to the summary's metrics."""

from __future__ import annotations

import pytest
import torch
import transformers
from kinds_of_labels import cola, mrpc, several, stsb
from PIL import Image
from running import trained, write_config

from mdpd_plugins.exports import evaluate_export, load_export
from mdpd_plugins.training import load_config
from mdpd_plugins.training.experiment import build_experiment


@pytest.mark.parametrize(
    ("write", "metrics"),
    [
        (cola, ["accuracy", "f1", "matthews_correlation"]),
        (mrpc, ["accuracy", "f1", "matthews_correlation"]),
        (stsb, ["pearson", "spearman", "mse"]),
        (several, ["micro_f1", "macro_f1", "mean_average_precision"]),
    ],
)
def test_texts_from_data_to_what_the_zoo_makes_of_the_export(tmp_path, write, metrics):
    (tmp_path / "data").mkdir()
    data = {"source": write(tmp_path / "data"), "max_length": 16}
    config = write_config(tmp_path / "config", "hf-minilm", data=data, train={"max_steps": 3})
    found = trained(config, tmp_path / "run")["metrics"]
    assert list(found) == [f"{path}/{name}" for path in ("backbone", "side") for name in metrics]
    assert all(abs(value) <= 1 for key, value in found.items() if not key.endswith("mse"))

    exported = load_export(tmp_path / "run" / "export")
    again = evaluate_export(exported, load_config(tmp_path / "run" / "config.py"))
    assert again == pytest.approx({name: found[f"backbone/{name}"] for name in metrics}, abs=1e-5)

    # transformers' own pipeline: what it says of an example is the logits under the function of that kind of label.
    text = ("a plane", "one plane") if write in (mrpc, stsb) else "a plane"
    scores = {mrpc: torch.softmax, cola: torch.softmax, several: lambda z, _: z.sigmoid(), stsb: lambda z, _: z}
    wanted = scores[write](exported.logits([text])[0], 0).tolist()
    pipe = transformers.pipeline("text-classification", model=str(tmp_path / "run" / "export"), device="cpu")
    pair = {"text": text[0], "text_pair": text[1]} if isinstance(text, tuple) else text
    said = pipe([pair], top_k=None)[0]
    assert [each["score"] for each in sorted(said, key=lambda each: pipe.model.config.label2id[each["label"]])] == (
        pytest.approx(wanted, abs=1e-5)
    )


def test_a_task_of_glue_has_its_official_metric_as_main_one(tmp_path):
    config = write_config(tmp_path, "hf-minilm", data={"source": cola(tmp_path)})
    assert build_experiment(load_config(config)).task.main_metric == "matthews_correlation"


def test_a_task_of_vtab_is_evaluated_on_its_test_data_in_the_end(tmp_path):
    home = tmp_path / "vtab" / "kitti"
    (home / "images").mkdir(parents=True)
    lines = []
    for i in range(14):
        Image.new("RGB", (20, 16), (17 * i, 90, 0)).save(home / "images" / f"{i}.jpg")
        lines.append(f"images/{i}.jpg {i % 4}")
    for name, part in {"train800": lines[:8], "val200": lines[8:10], "train800val200": lines[:10]}.items():
        (home / f"{name}.txt").write_text("\n".join(part))
    (home / "test.txt").write_text("\n".join(lines[10:]))
    source = {"type": "vtab", "name": "kitti", "root": str(tmp_path / "vtab")}
    config = write_config(tmp_path / "config", data={"source": source}, train={"max_steps": 2})
    tuning, final = (build_experiment(load_config(config, {"data.source.full": full})) for full in (False, True))
    assert [len(e.train_loader.dataset) for e in (tuning, final)] == [8, 10]
    assert [len(e.val_loader.dataset) for e in (tuning, final)] == [2, 4]
    assert final.task.num_outputs == 4 and "backbone/accuracy" in trained(config, tmp_path / "run")["metrics"]
