"""Hidden states of a frozen backbone, kept by sample: nothing changes but how often the backbone runs."""

import resource

import pytest
import small_zoo
import torch

from mdpd_plugins.registry import CapabilityError, ConfigError

ORDERS = ([0, 1, 2], [3, 4, 5], [5, 0, 3], [2, 4, 1])  # two epochs, shuffled anew


def samples(adapter):
    return small_zoo.batch_of(adapter, batch=6)


def trained(key, cache_features, method="mdpd_head", **settings):
    """(distiller after two epochs, backbone forwards that ran blocks, losses)."""
    distiller, optim = small_zoo.small_distiller(key, method=method, cache_features=cache_features, **settings)
    data = samples(distiller.adapter)
    ran, losses = [], []
    inside = next(m for m in distiller.adapter.blocks()[-1].modules() if not list(m.children()))
    handle = inside.register_forward_hook(lambda *_: ran.append(1))
    for order in ORDERS:
        rows = torch.tensor(order)
        batch = {"inputs": {k: v[rows] for k, v in data["inputs"].items()}, "labels": data["labels"][rows]}
        mask = batch["inputs"].get("attention_mask")
        if mask is not None and key.startswith("hf"):  # padded to the longest of its own batch, as batches are
            longest = int(mask.sum(1).max())
            batch["inputs"] = {k: v[:, :longest] for k, v in batch["inputs"].items()}
        losses.append(float(distiller.train_step({**batch, "samples": rows}, optim)["loss"]))
    handle.remove()
    return distiller, len(ran), losses


@pytest.mark.parametrize("method", ["mdpd_head", "linear", "ladder"])
@pytest.mark.parametrize("key", small_zoo.ALL)
def test_training_on_kept_features_is_training(key, method):
    plain, often, expected = trained(key, 0, method)
    cached, seldom, losses = trained(key, 64, method)
    assert often > seldom > 0
    assert cached.cache.computed == 6, "each sample once"
    assert losses == pytest.approx(expected, rel=1e-4)
    before, after = plain.backbone.state_dict(), cached.backbone.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items() if k not in plain.trainable)


def test_kept_images_give_the_same_weights_bit_for_bit():
    plain, cached = trained("hf-vit", 0)[0], trained("hf-vit", 64)[0]
    assert not small_zoo.changed(small_zoo.snapshot(plain), cached)


def test_the_budget_holds_and_what_it_does_not_hold_is_worked_out_again():
    distiller, optim = small_zoo.small_distiller("hf-vit", method="mdpd_head", cache_features=1)
    expected = trained("hf-vit", 0)[2]
    cache = distiller.cache
    cache.rows.budget = 4 * 17 * 32 * 4 * 4  # of four samples: stem and three blocks of 17 tokens of 32 floats
    data = samples(distiller.adapter)
    losses = []
    for order in ORDERS:
        rows = torch.tensor(order)
        batch = {"inputs": {"image": data["inputs"]["image"][rows]}, "labels": data["labels"][rows], "samples": rows}
        losses.append(float(distiller.train_step(batch, optim)["loss"]))
    assert cache.rows.held == cache.rows.budget
    assert cache.computed == 6 + 2
    assert losses == expected


@pytest.mark.parametrize("key", ["hf-vit", "hf-minilm", "mm-resnet", "oc-text"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_file_of_features_is_read_by_the_next_run(key, dtype, tmp_path):
    expected = trained(key, 0, "ladder")[2]
    for run in range(2):
        distiller, _, losses = trained(key, 0, "ladder", cache_folder=str(tmp_path), cache_dtype=dtype)
        # A second run works out its first batch alone: it shows how the blocks' outputs look.
        assert distiller.cache.computed == (3 if run else 6)
        distiller.drop_side()
        assert losses == pytest.approx(expected, rel=1e-4 if dtype == "float32" else 0.05)
    assert len(list(tmp_path.glob("*.bin"))) == 1


def test_other_weights_have_a_file_of_their_own(tmp_path):
    trained("hf-vit", 0, "ladder", cache_folder=str(tmp_path))[0].drop_side()
    adapter = small_zoo.small("hf-vit", seed=1)
    distiller, optim = small_zoo.small_distiller(adapter, method="ladder", cache_folder=str(tmp_path))
    data = samples(adapter)
    distiller.train_step({**data, "samples": torch.arange(6)}, optim)
    assert len(list(tmp_path.glob("*.bin"))) == 2 and distiller.cache.computed == 6


@pytest.mark.parametrize("cut", ["index", "data", "rubbish"])
def test_what_a_kill_left_half_written_is_worked_out_again(cut, tmp_path):
    distiller, _, first = trained("hf-vit", 0, "ladder", cache_folder=str(tmp_path))
    distiller.drop_side()
    index, data = next(tmp_path.glob("*.jsonl")), next(tmp_path.glob("*.bin"))
    if cut == "index":
        index.write_text(index.read_text()[:-20])
    elif cut == "data":
        data.write_bytes(data.read_bytes()[:-7])
    else:
        index.write_text(index.read_text() + "rubbish")
        data.write_bytes(data.read_bytes() + b"rubbish")
    distiller, _, losses = trained("hf-vit", 0, "ladder", cache_folder=str(tmp_path))
    assert losses == first
    distiller.drop_side()
    assert trained("hf-vit", 0, "ladder", cache_folder=str(tmp_path))[2] == first


@pytest.mark.parametrize("damaged", ["data", "index"])
def test_a_damaged_row_is_worked_out_again(damaged, tmp_path):
    distiller, _, first = trained("hf-vit", 0, "ladder", cache_folder=str(tmp_path))
    distiller.drop_side()
    index, data = next(tmp_path.glob("*.jsonl")), next(tmp_path.glob("*.bin"))
    if damaged == "data":
        content = bytearray(data.read_bytes())
        content[3] ^= 64  # the exponent of a number of the first row
        data.write_bytes(content)
    else:  # another layer's name
        assert "[1, " in index.read_text()
        index.write_text(index.read_text().replace("[1, ", "[7, ", 1))
    for computed in (4, 3):  # its first batch, and the damaged row if that is not in it; then whole again
        distiller, _, losses = trained("hf-vit", 0, "ladder", cache_folder=str(tmp_path))
        assert losses == first and distiller.cache.computed <= computed
        distiller.drop_side()


def test_a_disk_that_fills_says_what_to_do_and_keeps_what_was_whole(tmp_path):
    distiller, _, first = trained("hf-vit", 0, "ladder", cache_folder=str(tmp_path))
    whole = distiller.cache.rows.held
    distiller.drop_side()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    adapter = small_zoo.small("hf-vit")
    distiller, optim = small_zoo.small_distiller(adapter, method="ladder", cache_folder=str(tmp_path))
    batch = {**small_zoo.batch_of(adapter, batch=6, seed=2), "samples": torch.arange(6)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 100, before[1]))  # as a full disk
    try:
        with pytest.raises(ConfigError, match="features cannot be kept in .*make room, give another folder"):
            distiller.train_step(batch, optim)
        distiller.drop_side()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    distiller, _, losses = trained("hf-vit", 0, "ladder", cache_folder=str(tmp_path))
    assert losses == first and distiller.cache.computed == 3 and distiller.cache.rows.held == whole


def test_two_runs_do_not_write_one_file_and_a_folder_must_be_writable(tmp_path):
    one, _, _ = trained("hf-vit", 0, "ladder", cache_folder=str(tmp_path))
    with pytest.raises(ConfigError, match="another run keeps features in .*give another folder"):
        small_zoo.small_distiller("hf-vit", method="ladder", cache_folder=str(tmp_path))
    one.drop_side()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="features cannot be kept in .*give another folder"):
        small_zoo.small_distiller("hf-vit", method="ladder", cache_folder=str(tmp_path / "file"))


def test_evaluation_keeps_features_of_its_own_samples():
    distiller, _ = small_zoo.small_distiller("hf-minilm", method="mdpd_head", cache_features=64)
    data = samples(distiller.adapter)
    numbers = torch.arange(6)
    plain = distiller.val_step(data)
    for _ in range(2):
        rows = distiller.val_step({**data, "samples": numbers})
        for path in ("backbone", "side"):
            torch.testing.assert_close(
                torch.stack([r[path] for r in rows]), torch.stack([r[path] for r in plain]), rtol=1e-5, atol=1e-6
            )
    assert distiller.cache.computed == 6


@pytest.mark.parametrize("method", ["mdpd", "full", "norm", "lora"])
def test_a_backbone_that_changes_keeps_nothing(method):
    with pytest.raises(ConfigError, match=r"cache_features=64 .* use norm_gradient='head', or cache_features=0"):
        small_zoo.small_distiller("hf-vit", method=method, cache_features=64)


@pytest.mark.parametrize("value", [-1, 0.5, True])
def test_a_budget_is_a_whole_number(value):
    with pytest.raises(ConfigError, match=r"distill\.cache_features="):
        small_zoo.small_distiller("hf-vit", method="mdpd_head", cache_features=value)


def test_logits_that_need_more_than_the_last_block_are_refused():
    adapter = small_zoo.small("hf-vit")
    first, calls = adapter.blocks()[0], []
    first.register_forward_hook(lambda m, a, output: calls.append(output))
    adapter.model.classifier.register_forward_hook(lambda m, a, out: out + calls[-1][:, 0, :5])
    distiller, optim = small_zoo.small_distiller(adapter, method="linear", cache_features=64)
    batch = samples(adapter)
    with pytest.raises(CapabilityError, match="depend on more than its blocks' kept outputs"):
        distiller.train_step({**batch, "samples": torch.arange(6)}, optim)
