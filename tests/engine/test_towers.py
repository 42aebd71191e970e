"""Two towers distilled as one backbone: a ladder beside each."""

import pytest
import small_zoo
import torch
import torch.nn.functional as F
import towers

from mdpd_plugins.engine import Distiller, Settings, fade
from mdpd_plugins.engine.side import PooledHead
from mdpd_plugins.engine.split import resolve_layers
from mdpd_plugins.registry import CapabilityError, ConfigError

BOTH = pytest.mark.parametrize("task", towers.TASKS)
# 4 blocks or more in one tower and 2 in the other: a layer counted in the wrong tower would be seen.
UNEVEN = ("hf-vit", "oc-text")


def set_up(task="answers", image="hf-vit", text="oc-text", **settings):
    adapter = towers.small_pair(image, text, towers.TASKS[task])
    return small_zoo.small_distiller(adapter, task=towers.TASKS[task], **settings)


def steps(distiller, optim, count=2):
    logs = []
    for seed in range(count):
        found = distiller.train_step(small_zoo.batch_of(distiller.adapter, seed=seed), optim)
        logs.append({k: float(v) for k, v in found.items()})
    return logs


def open_clip_set_up(**settings):
    return small_zoo.small_distiller(towers.open_clip_pair(), task=towers.MATCHES, **settings)


# --- what is trained


@pytest.mark.parametrize("pair", towers.PAIRS, ids="-".join)
@BOTH
def test_norms_output_layers_and_fusion_are_trained_and_nothing_else(pair, task):
    distiller, optim = set_up(task, *pair)
    adapter = distiller.adapter
    before, side = small_zoo.snapshot(distiller.backbone), small_zoo.snapshot(distiller.side)
    steps(distiller, optim)
    expected = {f"fusion.{k}" for k in adapter.model.fusion.state_dict()}
    for name, tower in (("image", adapter.image), ("text", adapter.text)):
        expected |= {f"{name}.{k}" for k in {**tower.norm_parameters(), **tower.head_parameters()}}
    assert small_zoo.changed(before, distiller.backbone) == expected
    assert small_zoo.changed(side, distiller.side) == side.keys()


def test_both_towers_of_open_clip_train_their_norms_projections_and_scale():
    distiller, optim = open_clip_set_up()
    before = small_zoo.snapshot(distiller.backbone)
    steps(distiller, optim)
    found = small_zoo.changed(before, distiller.backbone)
    assert {k for k in found if "ln_" not in k} == {"visual.proj", "text_projection", "logit_scale"}
    assert {k for k in before if "ln_" in k} <= found


def test_last_k_and_lists_of_layers_are_counted_in_each_tower():
    distiller, optim = set_up(norm_gradient="last_k", last_k=1, shallow=[0], deep=[-1])
    before = small_zoo.snapshot(distiller.backbone)
    logs = steps(distiller, optim)
    assert {k for k in logs[0] if k.startswith("side/")} == {
        "side/task",
        *("side/imitation_0", "side/imitation_3"),  # three blocks, then two
        *("side/generation_2", "side/generation_4"),
    }
    found = {k for k in small_zoo.changed(before, distiller.backbone) if "ayernorm" in k or "ln_" in k}
    blocks = ("image.vit.layers.2.", "text.transformer.resblocks.1.")
    inside = {k for k in found if ".layers." in k or "resblocks" in k}
    assert len(inside) == 8 and all(k.startswith(blocks) for k in inside)
    assert found - inside == {f"{k}.{p}" for k in ("image.vit.layernorm", "text.ln_final") for p in ("weight", "bias")}


def test_shares_of_the_depth_are_counted_in_each_tower():
    parts = [range(6), range(6, 10)]
    assert resolve_layers(0.5, parts, from_end=False) == [0, 1, 2, 6, 7]
    assert resolve_layers(0.25, parts, from_end=True) == [4, 5, 9]
    assert resolve_layers([0, -1], parts, from_end=True) == [0, 5, 6, 9]
    with pytest.raises(ConfigError, match="has 4 blocks"):
        resolve_layers([4], parts, from_end=False)


def test_the_tail_learns_at_every_step_in_both_towers():
    distiller, optim = set_up(backbone_every=2, tail_blocks=1)
    before = small_zoo.snapshot(distiller.backbone)
    steps(distiller, optim, 1)
    found = small_zoo.changed(before, distiller.backbone)
    assert "fusion.0.weight" in found and "text.ln_final.weight" in found
    inside = {k.partition(".layers.")[2][:1] for k in found if ".layers." in k}
    assert (inside, {k[27:28] for k in found if "resblocks" in k}) == ({"2"}, {"1"})


# --- gradients


def gradients(distiller, optim, batch=5):
    """Those that arrive in one step, before any update."""
    found = {}
    for wrapper in optim.values():
        wrapper.step = lambda w=wrapper: found.update(
            {id(p): p.grad.clone() for p in w.parameters if p.grad is not None}
        )
    distiller.train_step(small_zoo.batch_of(distiller.adapter, batch=batch), optim)
    return {n: found[id(p)] for n, p in distiller.named_parameters() if id(p) in found}


@pytest.mark.parametrize("pair", towers.PAIRS, ids="-".join)
@BOTH
def test_recomputed_gradients_are_plain_autograds_bit_for_bit(pair, task):
    plain = gradients(*set_up(task, *pair, recompute=False))
    exact = gradients(*set_up(task, *pair, recompute=True))
    assert plain.keys() == exact.keys() and {n.partition(".")[0] for n in plain} == {"side", "features", "backbone"}
    assert not [n for n in plain if not torch.equal(plain[n], exact[n])]


def test_the_pairs_gradient_is_that_of_the_loss_by_hand():
    distiller, optim = set_up(method="norm")
    adapter = distiller.adapter
    found = gradients(distiller, optim, batch=4)
    batch = small_zoo.batch_of(adapter)
    loss = F.cross_entropy(adapter.forward(batch["inputs"]), batch["labels"])
    expected = torch.autograd.grad(loss, list(distiller.trainable.values()))
    assert found.keys() == {f"backbone.{k}" for k in distiller.trainable}
    for key, gradient in zip(distiller.trainable, expected, strict=True):
        assert torch.equal(found[f"backbone.{key}"], gradient), key


@BOTH
def test_local_gradients_train_the_distilled_and_the_last_block_of_each_tower(task):
    distiller, optim = set_up(task, norm_gradient="local", shallow=[0], deep=[])
    before = small_zoo.snapshot(distiller.backbone)
    logs = steps(distiller, optim)
    assert {k for k in logs[0] if "local" in k} == {"backbone/local_0", "backbone/local_3"}
    found = small_zoo.changed(before, distiller.backbone)
    assert found == set(distiller.trainable)
    assert {k.partition(".layers.")[2][:1] for k in found if ".layers." in k} == {"0", "2"}


@pytest.mark.parametrize("image", ["hf-vit", "oc-image"])
def test_low_rank_updates_go_to_both_towers_and_merge_into_plain_ones(image):
    distiller, optim = set_up(image=image, backbone_update="norm+low_rank", rank=2)
    assert {k.partition(".")[0] for k in distiller.trainable if ".lora_" in k} == {"image", "text"}
    steps(distiller, optim)
    _, report = fade(distiller, small_zoo.inputs_of(distiller.adapter), repeats=1)
    assert report.keys_equal and report.merged > 0


@pytest.mark.parametrize("method", ["lora", "mdpd_low_rank"])
def test_low_rank_updates_of_both_towers_of_one_open_clip_model(method):
    adapter = towers.open_clip_pair()
    keys = set(adapter.model.state_dict())
    distiller, optim = small_zoo.small_distiller(adapter, task=towers.MATCHES, method=method, rank=2)
    updated = {k for k in distiller.trainable if ".lora_" in k}
    assert {k.partition(".")[0] for k in updated} == {"visual", "transformer"}
    steps(distiller, optim)
    model, report = fade(distiller, small_zoo.inputs_of(adapter), repeats=1)
    assert report.keys_equal and set(model.state_dict()) == keys and report.merged > 0


# --- pieces of a batch


@pytest.mark.parametrize("settings", [{}, {"norm_gradient": "local"}], ids=["exact", "local"])
def test_a_batch_in_pieces_gives_the_gradients_of_the_whole(settings):
    whole, pieces = (gradients(*set_up(sub_batch=s, **settings)) for s in (None, 2))
    assert whole.keys() == pieces.keys()
    for path in ("side.", "features.", "backbone."):
        mine = {n: g for n, g in whole.items() if n.startswith(path)}
        scale = max(float(g.abs().max()) for g in mine.values())
        for name, gradient in mine.items():
            torch.testing.assert_close(
                pieces[name], gradient, rtol=0, atol=2e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_what_a_pair_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="compares all samples of a batch.*sub_batch=None"):
        set_up("matches", sub_batch=2)
    with pytest.raises(ConfigError, match="has 2 towers, and 'auto' finds one split"):
        set_up(shallow="auto", deep="auto")
    with pytest.raises(CapabilityError, match="a pair of towers, are not kept.*cache_features=0"):
        set_up(method="linear", cache_features=1)


# --- padding, precision, fading


@BOTH
@pytest.mark.parametrize("text", ["hf-minilm", "oc-text"])
def test_the_content_of_padding_has_no_influence_on_either_path(task, text):
    one, other = (set_up(task, "hf-vit", text) for _ in range(2))
    for seed in range(2):
        batch = small_zoo.batch_of(one[0].adapter, seed=seed)
        padding = batch["inputs"]["attention_mask"] == 0
        ids = torch.randint(200, 900, padding.shape, generator=torch.Generator().manual_seed(9))
        changed = {**batch["inputs"], "input_ids": torch.where(padding, ids, batch["inputs"]["input_ids"])}
        assert not torch.equal(changed["input_ids"], batch["inputs"]["input_ids"])
        logs = one[0].train_step(batch, one[1]), other[0].train_step({**batch, "inputs": changed}, other[1])
        assert not [k for k in logs[0] if not torch.equal(logs[0][k], logs[1][k])]
    assert not small_zoo.changed(small_zoo.snapshot(one[0]), other[0])
    found, its = one[0](batch["inputs"]), other[0](changed)
    assert found.keys() == {"backbone", "side"} and all(torch.equal(found[path], its[path]) for path in found)


def test_both_inputs_reach_the_side_networks_answer():
    distiller, _ = set_up()
    inputs = small_zoo.inputs_of(distiller.adapter)
    plain = distiller(inputs)["side"]
    for name in ("image", "input_ids"):
        assert not torch.equal(distiller({**inputs, name: inputs[name].roll(1, 0)})["side"], plain)


def test_half_precision_forwards_train_both_tasks():
    for task in towers.TASKS:
        distiller, optim = set_up(task, amp=torch.bfloat16)
        logs = steps(distiller, optim)
        assert all(torch.isfinite(torch.tensor(v)) for v in logs[-1].values())
        assert {p.dtype for p in distiller.parameters()} == {torch.float32}


@BOTH
def test_a_faded_pair_is_exported_with_the_trained_paths_outputs(task, tmp_path):
    distiller, optim = set_up(task)
    steps(distiller, optim)
    adapter = distiller.adapter
    inputs = small_zoo.inputs_of(adapter)
    path = distiller(inputs)["backbone"]
    model, report = fade(distiller, inputs, repeats=1)
    assert model is adapter.model and report.outputs_equal and report.keys_equal
    again = adapter.around(adapter.load_exported(adapter.export(tmp_path / "export")))
    with torch.no_grad():
        assert torch.equal(again.forward(inputs), path)


def test_ladders_are_as_wide_as_their_towers_and_the_head_reads_their_mean_tokens():
    adapter = towers.small_pair("oc-image", "hf-minilm")
    distiller = Distiller(adapter, towers.ANSWERS, Settings.from_dict({"reduction": 4}), max_steps=4)
    assert [ladder.width for ladder in distiller.side.ladders] == [16, 8]
    assert [len(ladder.blocks) for ladder in distiller.side.ladders] == [3, 3]
    head = PooledHead(lambda one, other: (one, other))
    tokens = [torch.arange(12.0).view(1, 3, 4), torch.ones(1, 2, 4)]
    one, other = head(tokens, [torch.tensor([[False, True, True]]), torch.tensor([[True, False]])])
    assert one.tolist() == [[6.0, 7.0, 8.0, 9.0]] and other.tolist() == [[1.0] * 4]
