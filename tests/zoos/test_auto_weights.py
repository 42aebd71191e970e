"""`pretrained="auto"`: the zoo's checkpoint over HTTP, then from the cache, then random with a plain word about it."""

import http.server
import threading
from pathlib import Path

import pytest
import torch
from small_zoo import BACKBONES, small

from mdpd_plugins.adapters import build_backbone

pytest.importorskip("mmpretrain")
NAME, OPTIONS = BACKBONES["mm-vit"]


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A model zoo on the loopback interface with one checkpoint: (the model it holds, the server)."""
    from mmpretrain.apis.model import ModelHub

    folder = tmp_path / "zoo"
    folder.mkdir()
    published = small("mm-vit", num_classes=11).model
    torch.save({"state_dict": published.state_dict()}, folder / "vit_small.pth")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    url = f"http://127.0.0.1:{server.server_address[1]}/vit_small.pth"
    listed = ModelHub.get

    def listed_here(name):  # the zoo's own entry, but for where its checkpoint lies
        entry = listed(name)
        entry.weights = url
        return entry

    monkeypatch.setattr(ModelHub, "get", listed_here)
    yield published, server
    server.shutdown()
    server.server_close()


def test_the_zoos_checkpoint_is_fetched_once_and_the_head_stays_fresh(served):
    published, server = served
    for fetched in (True, False):
        adapter = build_backbone(NAME, num_classes=5, **OPTIONS)
        assert adapter.origin == "MMPretrain model zoo, vit_small.pth"
        head = adapter.head_parameters()
        own, theirs = adapter.model.state_dict(), published.state_dict()
        assert all(torch.equal(own[k], theirs[k]) for k in own if k not in head)
        assert own["head.layers.head.weight"].shape[0] == 5
        if fetched:  # the second time only the cache can have it
            server.shutdown()
            server.server_close()


def test_an_unreachable_zoo_leaves_random_weights_and_no_half_file(served):
    _, server = served
    server.shutdown()
    server.server_close()
    adapter = build_backbone(NAME, num_classes=5, **OPTIONS)
    assert adapter.random and "vit_small.pth" in adapter.origin
    assert not list(Path(torch.hub.get_dir()).rglob("*vit_small*"))
