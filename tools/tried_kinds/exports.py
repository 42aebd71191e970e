"""What an export holds: weights, names of classes, settings."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import timm
import torch
import torchvision
import transformers
from language import decoder
from small_zoo import BACKBONES, inputs_of, labels_of, small, snapshot

import mdpd_plugins as mdpd
from mdpd_plugins.adapters import Adapter, build_backbone
from tools.tried_kinds.case import case, refusal
from tools.tried_kinds.learning import equal, learned


def _answers(one: Adapter, other: Adapter) -> bool:
    with torch.no_grad():
        return equal(other.forward(inputs_of(one)), one.forward(inputs_of(one)))


@case(
    "An output layer that is the input embedding is saved once, and comes back untied or empty.",
    "transformers 38870",
    "tied as before, with the same answers",
)
def tied_weights(folder: Path) -> str:
    adapter = decoder("gpt2")
    ids = torch.randint(5, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    learned(adapter, ({"input_ids": ids}, ids), task="language")
    mdpd.export(adapter, folder / "out")
    again = transformers.AutoModelForCausalLM.from_pretrained(folder / "out")
    tied = again.lm_head.weight is again.transformer.wte.weight
    with torch.no_grad():
        same = equal(again(input_ids=ids).logits, adapter.model(input_ids=ids).logits)
    return "tied as before, with the same answers" if tied and same else f"tied: {tied}, same answers: {same}"


@case(
    "Weights are views of transposed or larger tensors, which safetensors refuses to save.",
    "safetensors 469",
    "exported, with the same answers",
)
def views_of_other_tensors(folder: Path) -> str:
    adapter = small("hf-vit")
    first, second = (layer.attention.q_proj.weight for layer in adapter.model.vit.layers[:2])
    first.data = first.data.t().contiguous().t()
    second.data = torch.randn(64, 64)[:32, :32]
    learned(adapter)
    mdpd.export(adapter, folder / "out")
    again = mdpd.adapt(mdpd.load(folder / "out", device="cpu"))
    return "exported, with the same answers" if _answers(adapter, again) else "other answers"


@case(
    "The output layer that was trained is not saved beside the updates, and is random after loading.",
    "peft 310",
    "the loaded output layer is the trained one, bit for bit",
)
def the_output_layer(folder: Path) -> str:
    adapter = small("hf-minilm")
    before = snapshot(adapter.model.classifier)
    learned(adapter)
    mdpd.export(adapter, folder / "out")
    loaded = mdpd.load(folder / "out", device="cpu").classifier.state_dict()
    own = adapter.model.classifier.state_dict()
    same = all(torch.equal(v, own[k]) and not torch.equal(v, before[k]) for k, v in loaded.items())
    return "the loaded output layer is the trained one, bit for bit" if same else "it is another"


@case(
    "Names of classes are lost, and predictions are called LABEL_0.",
    "peft 1486",
    "transformers reads our names, both ways",
)
def names_of_classes(folder: Path) -> str:
    adapter, names = small("hf-minilm"), ("café", "b, c", "d|e", "LABEL_0", "5")
    learned(adapter, classes=names)
    mdpd.export(adapter, folder / "out")
    config = transformers.AutoConfig.from_pretrained(folder / "out")
    same = config.id2label == dict(enumerate(names)) and config.label2id == {n: i for i, n in enumerate(names)}
    return "transformers reads our names, both ways" if same else str(config.id2label)


@case(
    "MMPretrain's checkpoint says its classes elsewhere than its inferencer looks.",
    "mmpretrain 1091",
    "the loaded model has our names",
)
def names_for_mmpretrain(folder: Path) -> str:
    adapter, names = small("mm-resnet"), ("v", "w", "x", "y", "z")
    learned(adapter, classes=names)
    mdpd.export(adapter, folder / "out")
    found = mdpd.adapt(mdpd.load(folder / "out", device="cpu")).class_names(5)
    return "the loaded model has our names" if found == names else str(found)


@case(
    "Weights that were trained with one activation are used with another, since the name alone says which.",
    "open_clip 771",
    "OpenCLIP builds the export with QuickGELU, and the same answers",
)
def the_activation(folder: Path) -> str:
    adapter = build_backbone("open_clip/ViT-B-16-quickgelu", pretrained=None, num_classes=5, **BACKBONES["oc-image"][1])
    learned(adapter)
    mdpd.export(adapter, folder / "out")
    model = open_clip.create_model(f"local-dir:{folder / 'out'}").eval()
    with torch.no_grad():
        same = equal(model.encode_image(inputs_of(adapter)["image"]), adapter.forward(inputs_of(adapter)))
    quick = type(model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    return "OpenCLIP builds the export with QuickGELU, and the same answers" if quick and same else f"{quick}, {same}"


@case(
    "Scales that are called gamma are renamed in loading, and stay random.",
    "timm 2324",
    "timm and transformers read the trained ones",
    at_first="transformers could not read an export of timm at all, which said the number of classes twice",
)
def scales_called_gamma(folder: Path) -> str:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5, img_size=32, init_values=0.3)
    adapter = mdpd.adapt(model)
    learned(adapter, (torch.randn(4, 3, 32, 32), labels_of()))
    mdpd.export(adapter, folder / "out")
    images = torch.randn(2, 3, 32, 32)
    other = transformers.AutoModelForImageClassification.from_pretrained(folder / "out").eval()
    with torch.no_grad():
        right = adapter.model(images)
        by_timm = equal(mdpd.load(folder / "out", device="cpu")(images), right)
        by_transformers = equal(other(images).logits, right)
    if by_timm and by_transformers:
        return "timm and transformers read the trained ones"
    return f"timm: {by_timm}, transformers: {by_transformers}"


@case(
    "A network has auxiliary classifiers, which give a tuple in training mode.",
    "torchvision 302",
    "it gives logits, and its export is loaded with them",
    at_first="it could be trained for other classes, and its export failed at the end",
)
def auxiliary_classifiers(folder: Path) -> str:
    model = torchvision.models.googlenet(num_classes=7, init_weights=False).train()
    images = torch.randn(2, 3, 64, 64)
    adapter = mdpd.adapt(model, num_classes=3, example_inputs=images)
    mdpd.export(adapter, folder / "out")
    again = mdpd.load(folder / "out", device="cpu")
    with torch.no_grad():
        same = equal(again(images), adapter.forward({"image": images})) and again.aux1 is not None
    return "it gives logits, and its export is loaded with them" if same else "other answers"


@case(
    "A layer's weight is worked out from others, so an update that is added to it is lost.",
    "peft 2556",
    "such layers get no update, and the merged model answers as before",
    at_first="fading refused the model at the end of the training",
)
def weights_worked_out_from_others(folder: Path) -> str:
    adapter = small("hf-vit")
    for layer in adapter.model.vit.layers:
        torch.nn.utils.parametrizations.weight_norm(layer.attention.q_proj)
    adapter = mdpd.adapt(adapter.model)
    batch = inputs_of(adapter), labels_of()
    student = mdpd.distill(adapter, steps=1, reduction=4, backbone_every=1, warmup=0.0)
    if any("q_proj" in name for name in student.low_rank):
        return "they get one"
    student.backward(*batch)
    torch.optim.AdamW(student.parameter_groups()).step()
    before = student(batch[0])["backbone"]
    mdpd.fade(student, repeats=1)
    with torch.no_grad():
        same = equal(adapter.forward(batch[0]), before, 1e-4)
    return "such layers get no update, and the merged model answers as before" if same else "other answers"


@case(
    "OpenCLIP's models of half precision hold norms in float32 beside it.",
    "open_clip 916",
    "refused by name, and the way out works",
    at_first="the way out that the message names, model.float(), gave a model that could get no output layer",
)
def halves_beside_floats(folder: Path) -> str:
    parts = {key: BACKBONES["oc-image"][1][key] for key in ("vision_cfg", "text_cfg")}
    parts["vision_cfg"] = {**parts["vision_cfg"], "image_size": 32}
    (folder / "tried-small.json").write_text(json.dumps({"embed_dim": 16, **parts}))
    open_clip.add_model_config(folder)
    model = open_clip.create_model("tried-small", precision="fp16")
    said = refusal(lambda: mdpd.adapt(model, num_classes=3, modality="image"), "several types", "model.float()")
    adapter = mdpd.adapt(model.float(), num_classes=3, modality="image")
    works = adapter.forward(adapter.example_inputs()).isfinite().all()
    return f"{said}, and the way out works" if works else said


@case(
    "A file of safetensors says no format, and transformers cannot load it.",
    "transformers 25282",
    "every file that an export holds says its format",
    at_first="those for OpenCLIP and torchvision, and of models of no zoo, did not",
)
def format_of_the_file(folder: Path) -> str:
    silent = []
    exported = {key: small(key) for key in ("hf-vit", "oc-image")}
    exported["torchvision"] = mdpd.adapt(torchvision.models.resnet18(num_classes=5))
    for key, adapter in exported.items():
        for file in adapter.export(folder / key).glob("*.safetensors"):
            with file.open("rb") as opened:
                head = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
            silent += [file.name] if head.get("__metadata__", {}).get("format") != "pt" else []
    return f"{', '.join(silent)} do not" if silent else "every file that an export holds says its format"
