"""Language modelling in the engine: no path sees ahead, and the side network only reads the output layer."""

from unittest.mock import patch

import pytest
import torch
from language import blocks, decoder, language_distiller
from mmengine.config import Config
from small_zoo import changed, snapshot

from mdpd_plugins.adapters import Layout
from mdpd_plugins.engine import fade
from mdpd_plugins.engine.low_rank import low_rank_targets
from mdpd_plugins.engine.side import AttentionSideBlock
from mdpd_plugins.registry import ConfigError
from mdpd_plugins.training.config import DEFAULTS
from mdpd_plugins.training.optim import AveragedOptimWrapper, build_optim

LENGTH = 12


def steps(distiller, count=4, batch=None):
    """Train, and return the last step's loss terms."""
    optim = build_optim(distiller, Config(DEFAULTS))
    for _ in range(count):
        terms = distiller.train_step(batch or blocks(), optim)
    return terms


def outputs(distiller, ids):
    """Logits (B, T, V) of both paths."""
    inputs = {"input_ids": ids}
    with torch.no_grad(), distiller.adapter.capture() as seen:
        logits = distiller.adapter.forward(inputs)
    with torch.no_grad():
        return {"backbone": logits, "side": distiller.run_side(seen, inputs).logits}


@pytest.mark.parametrize("key", ["gpt2", "llama"])
@pytest.mark.parametrize("padded", [False, True])
def test_no_output_of_either_path_depends_on_a_later_token(key, padded):
    distiller = language_distiller(decoder(key))
    steps(distiller)  # with masked generation, whose convolutions look ahead
    ids = blocks(2, LENGTH)["labels"]
    before = outputs(distiller, ids)
    for t in range(LENGTH - 1):
        later = ids.clone()
        later[:, t + 1 :] = (later[:, t + 1 :] + 7) % 300
        after = outputs(distiller, later)
        for path, logits in before.items():
            assert torch.equal(logits[:, : t + 1], after[path][:, : t + 1]), (path, t)
            assert not torch.equal(logits[:, t + 1], after[path][:, t + 1]), (path, t)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_causal_side_block_leaves_padding_out(side):
    torch.manual_seed(0)
    block, x = AttentionSideBlock(8, 4, 2.0, causal=True), torch.randn(1, 6, 8)
    real = slice(2, None) if side == "left" else slice(0, 4)
    valid = torch.zeros(1, 6, dtype=torch.bool)
    valid[:, real] = True
    with torch.no_grad():
        found = block(x, Layout(0, None), valid)
        torch.testing.assert_close(found[:, real], block(x[:, real], Layout(0, None), None))
    assert found.isfinite().all()


@pytest.mark.parametrize("key", ["gpt2", "llama"])
def test_the_side_network_reads_the_output_layer_and_neither_owns_nor_changes_it(key):
    distiller = language_distiller(decoder(key, vocabulary=5000), method="ladder")
    assert sum(p.numel() for p in distiller.side_parameters()) < 5000
    before = snapshot(distiller.backbone)
    with distiller.adapter.capture() as states:
        distiller.adapter.forward(blocks()["inputs"])
    distiller.backbone.requires_grad_(True)
    distiller.run_side(states, blocks()["inputs"]).logits.sum().backward()
    assert all(p.grad is None for p in distiller.backbone.parameters())
    assert all(p.grad is not None for p in distiller.side.parameters())
    steps(distiller)
    assert not changed(before, distiller.backbone)


@pytest.mark.parametrize("gradient", ["exact", "last_k", "local"])
def test_a_tied_model_changes_its_norms_and_nothing_else(gradient):
    distiller = language_distiller(decoder("gpt2"), norm_gradient=gradient, last_k=1)
    before = snapshot(distiller.backbone)
    terms = steps(distiller)
    assert any(name.startswith("backbone/") for name in terms)
    norms = {k for k in before if ".ln_" in k}
    last = {k for k in norms if ".h.2." in k or ".ln_f." in k}
    # Imitated are the first two of three blocks, and the last one is generated.
    assert changed(before, distiller.backbone) == (last if gradient == "last_k" else norms)


@pytest.mark.parametrize("key", ["gpt2", "llama"])
def test_behind_the_blocks_alone(key):
    distiller = language_distiller(decoder(key), norm_gradient="head")
    before = snapshot(distiller.backbone)
    steps(distiller)
    tied = {"transformer.ln_f.weight", "transformer.ln_f.bias"}
    assert changed(before, distiller.backbone) == (tied if key == "gpt2" else {"lm_head.weight"})


def test_a_model_with_nothing_behind_its_blocks_says_so():
    adapter = decoder("llama", tie_word_embeddings=True)
    adapter.model.model.norm = torch.nn.Identity()
    with pytest.raises(ConfigError, match="no parameters of its own behind its blocks.*norm_gradient='exact'"):
        language_distiller(adapter, norm_gradient="head")


@pytest.mark.parametrize("key", ["gpt2", "llama"])
@pytest.mark.parametrize("update", ["lora", "norm+low_rank"])
def test_low_rank_updates_are_merged_into_the_plain_model(key, update):
    adapter = decoder(key)
    before = snapshot(adapter.model)
    targets = low_rank_targets(adapter, everywhere=update != "lora")
    assert (
        len(targets)
        == 3 * {"gpt2lora": 1, "llamalora": 2, "gpt2norm+low_rank": 4, "llamanorm+low_rank": 7}[key + update]
    )
    distiller = language_distiller(adapter, backbone_update=update)
    steps(distiller)
    model, report = fade(distiller, blocks()["inputs"], repeats=1)
    assert report.merged == len(targets) and report.keys_equal
    assert {f"{name}.weight" for name in targets} <= changed(before, model)


@pytest.mark.parametrize("settings", [{}, {"norm_gradient": "local"}, {"backbone_update": "all"}])
def test_batches_in_pieces_have_the_gradients_of_the_whole(settings):
    whole, pieces = (gradients(settings, size) for size in (None, 3))
    assert whole.keys() == pieces.keys()
    for key, value in whole.items():
        torch.testing.assert_close(value, pieces[key], rtol=1e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")


def gradients(settings, size):
    """Of one step of both paths, before any update."""
    distiller = language_distiller(decoder("gpt2"), sub_batch=size, **settings)
    with patch.object(AveragedOptimWrapper, "step"), patch.object(AveragedOptimWrapper, "zero_grad"):
        steps(distiller, 1, blocks(4))
    return {n: p.grad for n, p in distiller.named_parameters() if p.grad is not None}
