"""Published weights that the hub's local cache holds are taken from there, without asking the network."""

from pathlib import Path

import pytest
import torch
from small_zoo import BACKBONES, small

from mdpd_plugins.adapters import build_backbone


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and no way out: (repository) -> the folder of its one revision."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def snapshot(repo: str) -> Path:
        home, revision = tmp_path / f"models--{repo.replace('/', '--')}", "a" * 40
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(revision)
        folder = home / "snapshots" / revision
        folder.mkdir(parents=True)
        return folder

    return snapshot


def test_transformers(cache):
    from transformers import ViTModel

    published = ViTModel(small("hf-vit").model.config)
    published.save_pretrained(cache("google/vit-base-patch16-224-in21k"))
    adapter = build_backbone("huggingface/vit-base-patch16-224", num_classes=7)
    assert adapter.origin == "HuggingFace hub, google/vit-base-patch16-224-in21k"
    own = adapter.model.state_dict()
    shared = {k: v for k, v in published.state_dict().items() if not k.startswith("pooler")}
    assert len(shared) > 30 and all(torch.equal(v, own[f"vit.{k}"]) for k, v in shared.items())


@pytest.mark.parametrize("tower", ["image", "text"])
def test_open_clip(cache, tower):
    import open_clip
    from safetensors.torch import save_file

    name, options = BACKBONES["oc-image"]
    published = small("oc-image", num_classes=512)  # the width of the published joint space
    tag = next(t for t in open_clip.list_pretrained_tags_by_model("ViT-B-16") if t.startswith("laion"))
    repo = open_clip.get_pretrained_cfg("ViT-B-16", tag)["hf_hub"].strip("/")
    save_file(published.model.state_dict(), cache(repo) / "open_clip_model.safetensors")
    adapter = build_backbone(name, pretrained=tag, num_classes=5, **{**options, "tower": tower})
    assert adapter.origin == f"OpenCLIP, ViT-B-16 {tag}"
    own, theirs = adapter.model.state_dict(), published.model.state_dict()
    ends = {"visual.proj", "text_projection"}
    assert {k for k in own if not torch.equal(own[k], theirs[k])} == ends
    assert all(5 in own[k].shape for k in ends)
