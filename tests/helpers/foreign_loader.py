"""Loads exports as somebody does who has never heard of this project: `python -I foreign_loader.py JOBS.json`.

JOBS.json: a list of {"kind", "folder", "inputs", "logits"}; inputs are read from one file, logits written to another.
A job may have "code" instead, the lines of a model card, which find images, ids and mask and leave logits.
"""

import importlib.abc
import json
import sys


class Blocker(importlib.abc.MetaPathFinder):
    """This project is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mdpd_plugins":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, Blocker())

import torch  # noqa: E402

torch.set_num_threads(1)


def images(folder, inputs):
    from transformers import AutoModelForImageClassification

    return AutoModelForImageClassification.from_pretrained(folder)(pixel_values=inputs["image"]).logits


def texts(folder, inputs):
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder)(**inputs).logits


def encoder(code, inputs):
    given = {"images": inputs.get("image"), "ids": inputs.get("input_ids"), "mask": inputs.get("attention_mask")}
    exec(code, given)
    return given["logits"]


def mmpretrain(folder, inputs):
    from mmpretrain import get_model

    return get_model(f"{folder}/config.py", pretrained=f"{folder}/model.pth")(inputs["image"], mode="tensor")


def _clip(folder):
    import open_clip

    return open_clip.create_model_and_transforms(f"local-dir:{folder}")[0].eval()


def clip_image(folder, inputs):
    return _clip(folder).encode_image(inputs["image"])


def clip_text(folder, inputs):
    return _clip(folder).encode_text(inputs["input_ids"])


if __name__ == "__main__":
    try:
        import mdpd_plugins  # noqa: F401
    except ModuleNotFoundError:
        pass
    else:
        sys.exit("mdpd_plugins can be imported here")
    with open(sys.argv[1]) as file:
        jobs = json.load(file)
    for job in jobs:
        with torch.no_grad():
            logits = globals()[job["kind"]](job.get("code", job["folder"]), torch.load(job["inputs"]))
        torch.save(logits, job["logits"])
