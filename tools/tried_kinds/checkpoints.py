"""Weights that are loaded into a model: their sizes and their names."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from small_zoo import BACKBONES, small

from mdpd_plugins.adapters import Adapter, build_backbone
from tools.tried_kinds.case import case, refusal


def _built(key: str, pretrained: Path, num_classes: int = 5, **options: object) -> Adapter:
    name, own = BACKBONES[key]
    return build_backbone(name, pretrained=str(pretrained), num_classes=num_classes, **{**own, **options})


@case(
    "A checkpoint has names for two classes, and the model is built for three.",
    "transformers 3093",
    "three names, none of them the checkpoint's",
)
def names_of_other_classes(folder: Path) -> str:
    trained = small("hf-minilm", num_classes=2)
    trained.set_labels(("bad", "good"))
    trained.export(folder / "two")
    found = _built("hf-minilm", folder / "two", num_classes=3).class_names(3)
    return "three names, none of them the checkpoint's" if len(found) == 3 and "bad" not in found else str(found)


@case(
    "Weights of one picture size are loaded for another, and tables of positions do not fit.",
    "timm 1794",
    "positions are resized, and all else is taken bit for bit",
)
def another_size(folder: Path) -> str:
    for key in ("hf-vit", "mm-vit", "oc-image"):
        trained = small(key)
        again = _built(key, trained.export(folder / key), image_size=64)
        own, theirs = again.model.state_dict(), trained.model.state_dict()
        resized = [k for k in own if own[k].shape != theirs[k].shape]
        lost = [k for k in again.parameters() if k not in resized and not torch.equal(own[k], theirs[k])]
        if not resized or not all("pos" in k for k in resized) or lost:
            return f"{key}: {resized or 'nothing'} resized, {lost or 'nothing'} lost"
        if not again.forward(again.example_inputs()).isfinite().all():
            return f"{key}: no answer"
    return "positions are resized, and all else is taken bit for bit"


@case(
    "Sizes that do not match are ignored, and parts of the model stay random without a word.",
    "transformers 14073",
    "refused by name",
)
def sizes_that_do_not_match(folder: Path) -> str:
    trained = small("hf-minilm").export(folder / "out")
    return refusal(lambda: _built("hf-minilm", trained, type_vocab_size=5), "token_type_embeddings", "another shape")


@case(
    "Every key begins with what DistributedDataParallel and torch.compile put before it.",
    "accelerate 438",
    "taken bit for bit",
)
def prefixes_of_wrappers(folder: Path) -> str:
    for key in ("mm-vit", "oc-image"):
        trained = small(key)
        state = {f"module._orig_mod.{k}": v for k, v in trained.model.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": state}, folder / f"{key}.pth")
        again = _built(key, folder / f"{key}.pth").model.state_dict()
        if wrong := [k for k in trained.parameters() if not torch.equal(again[k], trained.model.state_dict()[k])]:
            return f"{key}: {wrong[:3]} are others"
    return "taken bit for bit"


@case(
    "A training framework put 'model.' before every key, and nothing of the checkpoint is loaded.",
    "timm 1349",
    "refused by name",
)
def prefixes_of_frameworks(folder: Path) -> str:
    state = {f"model.{k}": v for k, v in small("mm-vit").model.state_dict().items()}
    torch.save({"state_dict": state}, folder / "lightning.ckpt")
    return refusal(lambda: _built("mm-vit", folder / "lightning.ckpt"), "missing", "unexpected (model.")


@case(
    "A checkpoint holds the averages that were kept in training beside the weights.",
    "mmpretrain 742",
    "the weights are taken bit for bit",
    at_first="refused, as a checkpoint of another architecture",
)
def averages_beside_the_weights(folder: Path) -> str:
    trained = small("mm-resnet").model.state_dict()
    averages = {f"ema_{k.replace('.', '_')}": torch.zeros_like(v) for k, v in trained.items()}
    torch.save({"meta": {}, "state_dict": {**trained, **averages}}, folder / "epoch_3.pth")
    again = _built("mm-resnet", folder / "epoch_3.pth").model.state_dict()
    same = all(torch.equal(v, trained[k]) for k, v in again.items())
    return "the weights are taken bit for bit" if same else "others are taken"


@case(
    "A checkpoint of a whole training holds other things than tensors, and cannot be opened safely.",
    "open_clip 1078",
    "refused by name",
)
def more_than_tensors(folder: Path) -> str:
    import argparse

    state = small("oc-image").model.state_dict()
    torch.save({"args": argparse.Namespace(lr=0.1), "state_dict": state}, folder / "epoch_3.pt")
    return refusal(lambda: _built("oc-image", folder / "epoch_3.pt"), "epoch_3.pt", "state_dict alone")


@case(
    "An old checkpoint calls the scales and shifts of its norms gamma and beta.",
    "transformers 11809",
    "taken bit for bit",
)
def norms_called_gamma(folder: Path) -> str:
    trained = small("hf-minilm")
    file = trained.export(folder / "out") / "model.safetensors"
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in load_file(file).items()
    }
    save_file(old, file, metadata={"format": "pt"})
    again = _built("hf-minilm", folder / "out").model.state_dict()
    same = all(torch.equal(v, again[k]) for k, v in trained.model.state_dict().items())
    return "taken bit for bit" if same and any("gamma" in k for k in old) else "others are taken"


@case(
    "A pretrained file is of 1,000 classes, and the data has 20.",
    "mmpretrain 1744",
    "the output layer is new, and all else is taken bit for bit",
)
def another_number_of_classes(folder: Path) -> str:
    for key in ("hf-vit", "mm-resnet", "oc-image"):
        trained = small(key, num_classes=1000)
        again = _built(key, trained.export(folder / key), num_classes=20)
        own, theirs, head = again.model.state_dict(), trained.model.state_dict(), again.head_parameters()
        lost = [k for k in again.parameters() if k not in head and not torch.equal(own[k], theirs[k])]
        if lost or again.num_outputs != 20:
            return f"{key}: {again.num_outputs} outputs, {lost[:3]} lost"
    return "the output layer is new, and all else is taken bit for bit"
