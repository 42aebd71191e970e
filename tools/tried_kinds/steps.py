"""What a training step changes, and what it must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from language import decoder
from small_zoo import BACKBONES, inputs_of, labels_of, small, snapshot

import mdpd_plugins as mdpd
from mdpd_plugins.adapters import Adapter, build_backbone
from tools.tried_kinds.case import case, refusal
from tools.tried_kinds.learning import QUICK, equal, learned, student_of


@case(
    "Running statistics of BatchNorm move while the model counts as frozen, and a reloaded model answers otherwise.",
    "peft 1732",
    "every running statistic is what it was, bit for bit",
)
def running_statistics(folder: Path) -> str:
    adapter = small("mm-resnet")
    adapter.model.train()
    before = {k: v for k, v in snapshot(adapter.model).items() if "running" in k or "num_batches" in k}
    model = learned(adapter)
    moved = [k for k, v in before.items() if not torch.equal(v, model.state_dict()[k])]
    return (
        f"{', '.join(moved[:3])} moved"
        if moved or not before
        else ("every running statistic is what it was, bit for bit")
    )


@case("The last batch of an epoch has one sample, and BatchNorm refuses it.", "torch 4534", "it trains")
def a_batch_of_one(folder: Path) -> str:
    adapter = small("mm-resnet")
    before = snapshot(adapter.model)
    model = learned(adapter, (inputs_of(adapter, 1), labels_of(1)))
    changed = any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return "it trains" if changed else "nothing changed"


@case(
    "Recomputation of activations, with frozen first layers, leaves later ones without gradients.",
    "transformers 23170",
    "all gradients are there, and are those of the plain graph bit for bit",
)
def recomputation_behind_frozen_layers(folder: Path) -> str:
    found = []
    for recompute in (True, False):
        adapter = small("hf-vit")
        torch.manual_seed(0)
        student = mdpd.distill(adapter, steps=1, recompute=recompute, **QUICK)
        student.backward(inputs_of(adapter), labels_of())
        found.append({k: p.grad for k, p in student.trainable.items()})
    # Of a pair of matrices that starts with B = 0, A has no gradient yet.
    none = [k for k, g in found[0].items() if g is None or (not g.any() and ".lora_A." not in k)]
    if none:
        return f"no gradient of {', '.join(none[:3])}"
    same = all(torch.equal(g, found[1][k]) for k, g in found[0].items())
    return "all gradients are there, and are those of the plain graph bit for bit" if same else "they differ"


def _merged(adapter: Adapter, tolerance: float, *batches: tuple[Any, Any]) -> str:
    student = student_of(adapter, *batches, rate=5.0)
    inputs = batches[0][0] if batches else inputs_of(adapter)
    before = student(inputs)["backbone"]
    _, report = mdpd.fade(student, repeats=1)
    with torch.no_grad():
        after = adapter.forward(adapter.as_inputs(inputs)).float()
    same = equal(after, before, tolerance) and report.merged
    return f"the merged model answers as before, to {tolerance:g}" if same else f"{report.merged} merged, they differ"


@case(
    "A merged model answers otherwise than the one with low-rank updates beside it.",
    "peft 2502",
    "the merged model answers as before, to 0.0001",
)
def merging(folder: Path) -> str:
    return _merged(small("hf-vit"), 1e-4)


@case(
    "Updates of convolutions are added to the kernel wrongly.",
    "peft 637",
    "the merged model answers as before, to 0.0001",
)
def merging_into_convolutions(folder: Path) -> str:
    return _merged(small("mm-resnet"), 1e-4)


@case(
    "An update of a grouped convolution has another shape than its kernel.",
    "peft 2549",
    "the merged model answers as before, to 0.0001",
)
def grouped_convolutions(folder: Path) -> str:
    torch.manual_seed(0)
    model = timm.create_model("convnext_atto", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), num_classes=5)
    images = torch.randn(2, 3, 32, 32)
    return _merged(mdpd.adapt(model, example_inputs=images), 1e-4, (images, labels_of(2)))


@case(
    "Merging into weights of bfloat16 loses what was learned to rounding.",
    "peft 1388",
    "the merged model answers as before, to 0.03",
)
def merging_into_bfloat16(folder: Path) -> str:
    name, options = BACKBONES["hf-vit"]
    torch.manual_seed(0)
    return _merged(build_backbone(name, pretrained=None, num_classes=5, dtype="bfloat16", **options), 0.03)


@case(
    "The user froze some weights; after merging, everything or nothing asks for gradients.",
    "peft 282",
    "each flag is what it was",
)
def flags_of_gradients(folder: Path) -> str:
    adapter = small("hf-vit")
    adapter.model.vit.embeddings.requires_grad_(False)
    before = {n: p.requires_grad for n, p in adapter.model.named_parameters()}
    after = {n: p.requires_grad for n, p in learned(adapter).named_parameters()}
    return "each flag is what it was" if after == before else "flags differ"


@case(
    "Padding beside a text changes its answer.",
    "transformers 3150",
    "neither path's answer changes, to 1e-05",
)
def padding(folder: Path) -> str:
    adapter = small("hf-minilm")
    student, inputs = student_of(adapter), inputs_of(adapter)
    wider = {k: torch.nn.functional.pad(v, (0, 7)) for k, v in inputs.items()}
    one, other = student(inputs), student(wider)
    same = all(equal(other[path], one[path]) for path in ("backbone", "side"))
    return "neither path's answer changes, to 1e-05" if same else "answers change"


@case(
    "Texts of different lengths count differently when a batch is taken in pieces.",
    "transformers 24725",
    "the gradients are those of the whole batch, to 1e-05",
)
def pieces_of_a_batch(folder: Path) -> str:
    found = []
    for pieces in (None, 1):
        adapter = decoder("gpt2")
        ids = torch.randint(5, 300, (3, 12), generator=torch.Generator().manual_seed(0))
        mask = (torch.arange(12) < torch.tensor([12, 4, 9])[:, None]).long()
        torch.manual_seed(0)
        student = mdpd.distill(adapter, steps=1, task="language", sub_batch=pieces, **QUICK)
        student.backward({"input_ids": ids, "attention_mask": mask}, ids)
        found.append(torch.cat([p.grad.flatten() for p in student.trainable.values()]))
    return "the gradients are those of the whole batch, to 1e-05" if equal(*found) else "gradients differ"


@case(
    "A model comes in training mode, so its features are drawn at random.",
    "open_clip 915",
    "two steps from one state have the same losses",
)
def patch_dropout(folder: Path) -> str:
    vision = {**BACKBONES["oc-image"][1]["vision_cfg"], "patch_dropout": 0.5}
    adapter = small("oc-image", vision_cfg=vision)
    return _twice(adapter, inputs_of(adapter))


@case(
    "Whole blocks are skipped at random in training, also of a model that only teaches.",
    "deit 167",
    "two steps from one state have the same losses, and closing leaves the model in training mode",
)
def drop_path(folder: Path) -> str:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5, img_size=32, drop_path_rate=0.5, proj_drop_rate=0.5)
    said = _twice(mdpd.adapt(model.train()), torch.randn(4, 3, 32, 32))
    return said + ", and closing leaves the model in training mode" * all(m.training for m in model.modules())


def _twice(adapter: Adapter, inputs: Any) -> str:
    losses = []
    for seed in range(2):
        adapter.model.train()
        torch.manual_seed(0)
        with mdpd.distill(adapter, steps=1, **QUICK) as student:
            torch.manual_seed(seed)  # what dropout would draw from
            losses.append(student.backward(inputs, labels_of()))
    return "two steps from one state have the same losses" if losses[0] == losses[1] else "losses differ"


@case(
    "Weight decay is kept from norms by their name, which some models write otherwise.",
    "transformers 42754",
    "no norm decays",
)
def decay_of_norms(folder: Path) -> str:
    decaying = []
    for key in ("hf-vit", "mm-vit", "oc-image", "mm-resnet"):
        adapter = small(key)
        norms = {id(p): name for name, p in adapter.norm_parameters().items()}
        groups = mdpd.distill(adapter, steps=1, **QUICK).parameter_groups()
        decaying += [norms[id(p)] for g in groups if g["weight_decay"] for p in g["params"] if id(p) in norms]
    return f"{', '.join(decaying[:3])} decay" if decaying else "no norm decays"


@case(
    "Answers (B, 1) against labels (B,) make a square of differences, and a wrong loss.",
    "torch 16045",
    "refused by name",
)
def labels_in_a_column(folder: Path) -> str:
    adapter = small("hf-vit", num_classes=1)
    batch = inputs_of(adapter), torch.arange(4.0)[:, None]
    return refusal(lambda: student_of(adapter, batch, task="float"), "(4, 1)", "(4,)")


@case(
    "A model of several outputs is to learn one number a sample.",
    "torch 16413",
    "refused by name",
    at_first="an error of PyTorch's in the first step; a batch of as many samples as outputs was learned wrongly",
)
def a_number_and_several_outputs(folder: Path) -> str:
    adapter = small("hf-vit", num_classes=4)
    return refusal(lambda: student_of(adapter, (inputs_of(adapter), torch.arange(4.0)), task="float"), "4 outputs")


@case("Labels of a regression are whole numbers.", "transformers 27707", "the losses are those of the same floats")
def whole_numbers(folder: Path) -> str:
    adapter = small("hf-vit", num_classes=1)
    losses = []
    for labels in (torch.arange(4), torch.arange(4.0)):
        torch.manual_seed(0)
        with mdpd.distill(adapter, steps=1, task="float", **QUICK) as student:
            losses.append(student.backward(inputs_of(adapter), labels))
    return "the losses are those of the same floats" if losses[0] == losses[1] else "losses differ"


@case("Class indices come as floats.", "transformers 19181", "refused by name")
def indices_as_floats(folder: Path) -> str:
    adapter = small("hf-vit")
    return refusal(lambda: student_of(adapter, (inputs_of(adapter), labels_of().float())), "class indices")


@case("Class indices begin at one, and the last has no output.", "transformers 10449", "refused by name")
def indices_from_one(folder: Path) -> str:
    adapter = small("hf-vit")
    return refusal(
        lambda: student_of(adapter, (inputs_of(adapter), torch.tensor([1, 2, 4, 5]))), "from 1 to 5", "0 to 4"
    )


@case(
    "Pictures are read as levels from 0 to 255, and nobody normalised them.",
    "torchvision 2788",
    "refused by name",
    at_first="trained on as they were",
)
def levels_of_pictures(folder: Path) -> str:
    levels = (255 * torch.rand(4, 3, 32, 32)).to(torch.uint8)
    return refusal(lambda: student_of(small("hf-vit"), (levels, labels_of())), "torch.uint8", "adapter.transform()")


@case(
    "A notebook's cell is run again, and puts updates into a model that has them already.",
    "peft 2295",
    "refused by name, and after closing the model is as it came",
    at_first="an error of peft's; without low-rank updates, a second student beside the first",
)
def a_cell_that_is_run_again(folder: Path) -> str:
    adapter = small("hf-minilm")
    before = snapshot(adapter.model)
    student = student_of(adapter)
    said = refusal(lambda: student_of(adapter), "an earlier student", "student.close()")
    student.close()
    same = adapter.model.state_dict().keys() == before.keys()
    same = same and all(torch.equal(v, before[k]) for k, v in adapter.model.state_dict().items())
    return f"{said}, and after closing the model is as it came" if same else said


@case(
    "A model was offloaded, so its weights have no numbers here.",
    "accelerate 3617",
    "refused by name",
    at_first="an error of PyTorch's about meta tensors",
)
def offloaded_weights(folder: Path) -> str:
    import accelerate

    model = small("hf-minilm").model
    accelerate.cpu_offload(model)
    return refusal(lambda: mdpd.adapt(model), "has no numbers here", "device_map")
