"""The Python API: README's lines as they stand there on live models of four libraries, and their wrong uses."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_zoo
import timm
import torch
import torchvision
import transformers
from running import write_config
from torch import nn

import mdpd_plugins as mdpd
from mdpd_plugins.training import build_experiment, load_config

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPET = next(code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "mdpd.distill" in code)
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CLASSES = 5


def bert() -> nn.Module:
    config = transformers.BertConfig(**BERT, vocab_size=90, num_labels=CLASSES)
    return transformers.BertForSequenceClassification(config)


def pictures(side: int) -> Callable[[], Any]:
    return lambda: torch.randn(4, 3, side, side)


def texts() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 90, (4, 12))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    return transformers.BatchEncoding({"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask})


LIVE: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "timm-vit": (lambda: timm.create_model("test_vit", num_classes=CLASSES), pictures(160)),
    "torchvision-swin": (lambda: torchvision.models.swin_t(num_classes=CLASSES), pictures(64)),
    "transformers-bert": (bert, texts),
}


def live(key: str) -> tuple[nn.Module, list[tuple[Any, torch.Tensor]]]:
    """A model with drawn weights in training mode, and three batches."""
    torch.manual_seed(0)
    make, batch = LIVE[key]
    return make().train(), [(batch(), torch.arange(4) % CLASSES) for _ in range(3)]


def outputs(model: nn.Module, inputs: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        out = model(**inputs) if isinstance(inputs, transformers.BatchEncoding) else model(inputs)
    return getattr(out, "logits", out)


def run_snippet(scope: dict[str, Any], folder: Path) -> None:
    code = SNIPPET.replace('"out"', repr(str(folder / "out")))
    exec(compile(code, "README.md", "exec"), scope)


@pytest.mark.parametrize("key", LIVE)
def test_the_lines_of_the_readme_as_they_stand_there(key, tmp_path):
    model, loader = live(key)
    keys, before = model.state_dict().keys(), outputs(model, loader[0][0])
    scope = {"model": model, "loader": loader, "torch": torch}
    run_snippet(scope, tmp_path)
    assert scope["student"].adapter.model is model and scope["report"].keys_equal
    assert model.state_dict().keys() == keys and not any(p.grad is not None for p in model.parameters())
    after = outputs(model, loader[0][0])
    assert not torch.equal(after, before), "nothing was learned"
    # What is loaded back is another module of the same class, with the same answers.
    again = scope["model"]
    assert again is not model and type(again) is type(model)
    torch.testing.assert_close(outputs(again.cpu(), loader[0][0]), after, rtol=1e-5, atol=1e-6)


def test_the_lines_of_the_readme_on_an_open_clip_tower(tmp_path):
    adapter = small_zoo.small("oc-image", num_classes=CLASSES)
    scope = {
        "model": adapter.model,
        "loader": [(small_zoo.inputs_of(adapter), small_zoo.labels_of()) for _ in range(3)],
        "torch": torch,
    }
    code = SNIPPET.replace("mdpd.adapt(model)", "given").replace('"out"', repr(str(tmp_path / "out")))
    exec(compile(code, "README.md", "exec"), {**scope, "given": adapter})
    image = small_zoo.inputs_of(adapter)["image"]
    with torch.no_grad():
        loaded = mdpd.load(tmp_path / "out", device="cpu").encode_image(image)
        torch.testing.assert_close(loaded, adapter.model.eval().encode_image(image))


@pytest.mark.parametrize("key", LIVE)
@pytest.mark.parametrize("ends", ["close", "with", "exception"])
def test_closing_leaves_the_model_exactly_as_it_came(key, ends):
    model, loader = live(key)
    model.head_of_somebody = None  # an attribute of the user's own
    before = {k: v.clone() for k, v in model.state_dict().items()}
    parameters, modes = dict(model.named_parameters()), [m.training for m in model.modules()]
    attributes = {n: sorted(vars(m)) for n, m in model.named_modules()}
    plain = outputs(model, loader[0][0])
    model.train()
    adapter = mdpd.adapt(model)
    student = mdpd.distill(adapter, steps=3)
    optimizer = torch.optim.AdamW(student.parameter_groups(scale=10.0))

    def step() -> None:
        student.backward(*loader[0])
        optimizer.step()

    if ends == "close":
        step()
        student.close()
        student.close()
    elif ends == "with":
        with student:
            step()
    else:
        with pytest.raises(KeyboardInterrupt), student:
            step()
            raise KeyboardInterrupt
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.state_dict().keys() == before.keys()
    assert all(p is parameters[n] and p.requires_grad and p.grad is None for n, p in model.named_parameters())
    assert attributes == {n: sorted(vars(m)) for n, m in model.named_modules()}
    assert torch.equal(outputs(model, loader[0][0]), plain)


def test_fading_after_an_exception_gives_an_equal_module_back():
    model, loader = live("transformers-bert")
    student = mdpd.distill(mdpd.adapt(model), steps=3)
    optimizer = torch.optim.AdamW(student.parameter_groups())
    student.backward(*loader[0])
    optimizer.step()

    def interrupted(loss: torch.Tensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        student.backward(*loader[1], backward=interrupted)
    trained = student(loader[0][0])["backbone"]
    faded, report = mdpd.fade(student)
    assert faded is model and report.keys_equal
    torch.testing.assert_close(outputs(model, loader[0][0]), trained, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["mdpd", "mdpd_low_rank", "lora_checkpointed"])
def test_a_plain_loop_is_the_configurations_run_bit_for_bit(method, tmp_path):
    given = {"reduction": 4, "bottleneck": 8, "method": method}
    config = load_config(write_config(tmp_path, distill=given, train={"max_steps": 6}))
    experiment = build_experiment(config)  # from its seed, as a run does
    start = small_zoo.snapshot(experiment.distiller)
    batches = [batch for batch, _ in zip(experiment.train_loader, range(6), strict=False)]

    name, options = small_zoo.BACKBONES["hf-vit"]
    adapter = mdpd.create(name, pretrained=None, num_classes=10, **options)
    student = mdpd.distill(adapter, steps=6, classes=experiment.task.classes, **given)
    student.load_state_dict(start)
    optimizer = torch.optim.AdamW(student.parameter_groups())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
    for batch in batches:
        student.backward(batch["inputs"], batch["labels"])
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()

    from mdpd_plugins.training.running import build_runner, run_to_the_end

    config.work_dir = str(tmp_path / "run")
    run_to_the_end(build_runner(experiment, None))
    ours, theirs = student.state_dict(), experiment.distiller.state_dict()
    assert ours.keys() == theirs.keys()
    assert [k for k in ours if not torch.equal(ours[k], theirs[k])] == []
    assert any(not torch.equal(v, start[k]) for k, v in ours.items())


def test_accelerates_backward_takes_the_place_of_the_losses_own():
    accelerate = pytest.importorskip("accelerate")
    found = []
    for backward in (None, accelerate.Accelerator(cpu=True).backward):
        model, loader = live("transformers-bert")
        torch.manual_seed(1)
        student = mdpd.distill(mdpd.adapt(model), steps=3)
        optimizer = torch.optim.AdamW(student.parameter_groups())
        for inputs, labels in loader:
            student.backward(inputs, labels, backward=backward)
            optimizer.step()
            optimizer.zero_grad()
        found.append(outputs(mdpd.fade(student)[0], loader[0][0]))
    assert torch.equal(*found)


def test_pictures_and_texts_become_inputs_by_the_adapters_transform():
    from PIL import Image

    adapter = mdpd.adapt(timm.create_model("test_vit", num_classes=CLASSES))
    pictures = [Image.new("RGB", (60, 40), (200, 10, 90)), Image.new("L", (30, 90), 7)]
    inputs = adapter.transform()(pictures)
    assert inputs["image"].shape == (2, 3, 160, 160) and inputs["image"].dtype == torch.float32
    student = mdpd.distill(adapter, steps=1)
    assert {"side/task"} <= student.backward(inputs, torch.tensor([0, 1])).keys()


# --- wrong uses


@pytest.fixture
def student():
    model, loader = live("transformers-bert")
    return mdpd.distill(mdpd.adapt(model), steps=2), loader


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(mdpd.MDPDError) as error:
        call()
    return str(error.value)


def test_labels_that_do_not_fit(student):
    student, loader = student
    inputs, labels = loader[0]
    before = small_zoo.snapshot(student)
    assert "labels from 3 to 6" in refused(lambda: student.backward(inputs, labels.clamp(max=3) + 3))
    assert "shape (3,)" in refused(lambda: student.backward(inputs, labels[:3]))
    assert "class indices" in refused(lambda: student.backward(inputs, labels.float()))
    assert not small_zoo.changed(before, student) and all(p.grad is None for p in student.parameters())


def test_more_steps_than_were_said(student):
    student, loader = student
    for batch in loader[:2]:
        student.backward(*batch)
    assert "steps=2 was given" in refused(lambda: student.backward(*loader[2]))


def test_anything_after_the_end(student):
    student, loader = student
    mdpd.fade(student)
    for call in (lambda: student.backward(*loader[0]), lambda: mdpd.fade(student), student.parameter_groups):
        assert "after fading: the side network is gone" in refused(call)


def test_a_model_without_a_classifier():
    model = transformers.BertModel(transformers.BertConfig(**BERT, vocab_size=90))
    said = refused(lambda: mdpd.distill(mdpd.adapt(model), steps=2))
    assert "has no output layer for classes" in said and "adapt(model, num_classes=...)" in said


def test_what_is_no_model_no_adapter_or_no_inputs(student):
    student, loader = student
    assert "takes a live torch.nn.Module, and str" in refused(lambda: mdpd.adapt("resnet50"))
    assert "call adapt(model) first" in refused(lambda: mdpd.distill(bert(), steps=2))
    assert "adapter.transform() makes" in refused(lambda: student.backward(["a text"], loader[0][1]))


def test_settings_and_rates_that_do_not_exist():
    adapter = mdpd.adapt(bert())
    assert "did you mean 'reduction'" in refused(lambda: mdpd.distill(adapter, steps=2, reduktion=8))
    assert "did you mean 'mdpd_low_rank'" in refused(lambda: mdpd.distill(adapter, steps=2, method="mdpd_lowrank"))
    assert "did you mean 'single'" in refused(lambda: mdpd.distill(adapter, steps=2, task="singel"))
    assert "at least 1" in refused(lambda: mdpd.distill(adapter, steps=0))
    assert "2 classes were named" in refused(lambda: mdpd.distill(adapter, steps=2, classes=["a", "b"]))
    with mdpd.distill(adapter, steps=2) as student:
        assert "did you mean 'norm_lr'" in refused(lambda: student.parameter_groups(norm_rl=1e-3))
        assert "scale=-1" in refused(lambda: student.parameter_groups(scale=-1))


def test_exporting_over_something_else_and_loading_what_is_no_export(tmp_path):
    adapter = mdpd.adapt(bert())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("do not lose me")
    assert "holds something that is no earlier export" in refused(lambda: mdpd.export(adapter, tmp_path / "mine"))
    assert "has no mdpd.json" in refused(lambda: mdpd.load(tmp_path / "mine"))
    assert "is no folder" in refused(lambda: mdpd.load(tmp_path / "nowhere"))


class Own(nn.Module):
    """A network of nobody's library."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()) for _ in range(3)
        )
        self.stem, self.head = nn.Linear(6, width), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean(1))


def test_a_model_of_ones_own_is_exported_by_its_weights_and_loaded_into_another(tmp_path):
    torch.manual_seed(0)
    model, x = Own(), torch.randn(4, 7, 6)
    adapter = mdpd.adapt(model, example_inputs=x)
    assert len(adapter.blocks()) == 3 and adapter.num_outputs == CLASSES
    student = mdpd.distill(adapter, steps=1, reduction=4)
    optimizer = torch.optim.AdamW(student.parameter_groups())
    student.backward(x, torch.arange(4))
    optimizer.step()
    mdpd.fade(student)
    mdpd.export(adapter, tmp_path / "out")
    assert "belongs to no zoo" in refused(lambda: mdpd.load(tmp_path / "out"))
    again = mdpd.load(tmp_path / "out", Own())
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    other = Own(24)
    before = small_zoo.snapshot(other)
    assert "another architecture" in refused(lambda: mdpd.load(tmp_path / "out", other))
    assert not small_zoo.changed(before, other)


@pytest.mark.parametrize("method", ["mdpd", "mdpd_low_rank"])
def test_one_student_at_a_time_and_no_export_before_its_end(method, tmp_path):
    adapter = mdpd.adapt(bert())
    student = mdpd.distill(adapter, steps=3, method=method)
    assert "an earlier student of" in refused(lambda: mdpd.distill(adapter, steps=3, method=method))
    assert "call fade(student)" in refused(lambda: mdpd.export(adapter, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    student.close()
    mdpd.fade(mdpd.distill(adapter, steps=3, method=method))
    mdpd.export(adapter, tmp_path / "out")
    with mdpd.distill(adapter, steps=3, method=method):
        pass


def test_pruned_weights_are_trained_around_and_the_export_says_how_to_make_them_plain(tmp_path):
    from torch.nn.utils import prune

    model = bert()
    layers = [layer.intermediate.dense for layer in model.bert.encoder.layer]
    for layer in layers:
        prune.l1_unstructured(layer, "weight", 0.5)
    adapter = mdpd.adapt(model)
    student = mdpd.distill(adapter, steps=1, backbone_every=1, warmup=0.0)
    assert student.low_rank and not any("intermediate" in name for name in student.low_rank)
    student.backward(texts(), torch.arange(4))
    torch.optim.AdamW(student.parameter_groups()).step()
    mdpd.fade(student)
    assert "torch.nn.utils.prune.remove" in refused(lambda: mdpd.export(adapter, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    for layer in layers:
        prune.remove(layer, "weight")
    mdpd.export(adapter, tmp_path / "out")


def test_importing_the_package_loads_no_framework():
    script = "import sys, mdpd_plugins as mdpd; dir(mdpd); print({'torch', 'mmengine', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert set(mdpd.__all__) <= set(dir(mdpd)) and all(getattr(mdpd, name) is not None for name in mdpd.__all__)
