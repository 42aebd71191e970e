"""Capture: right states, and no trace of having been there."""

import gc

import pytest
import small_zoo
import torch
from adapting import trace_of

from mdpd_plugins.adapters import Capture
from mdpd_plugins.registry import ConfigError


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_last_hidden_state_through_the_zoos_own_tail_gives_the_models_output(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    last = len(adapter.blocks()) - 1
    with torch.no_grad():
        plain = adapter.forward(inputs)
        with adapter.capture(keep_calls=True) as seen:
            adapter.forward(inputs)
        assert torch.equal(adapter.forward_head(inputs, seen, seen.hidden[last]), plain)
        # The tail really reads what it is given.
        assert not torch.equal(adapter.forward_head(inputs, seen, seen.hidden[last].roll(1, 0)), plain)
        assert torch.equal(adapter.forward(inputs), plain)


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_hidden_states_are_what_the_blocks_return(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad(), adapter.capture() as seen:
        adapter.forward(inputs)
    assert sorted(seen.hidden) == list(range(len(adapter.blocks())))
    assert [seen.stems[0].shape[-1]] == adapter.stem_dims
    for i, hidden in seen.hidden.items():
        layout = seen.layouts[i]
        tokens = layout.prefix + (layout.grid[0] * layout.grid[1] if layout.grid else hidden.shape[1])
        assert hidden.shape == (4, tokens, adapter.dims[i])
    with torch.no_grad():
        assert torch.equal(adapter.forward_features(inputs), seen.hidden[len(seen.hidden) - 1])


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("key", small_zoo.GLOBAL_ATTENTION)
def test_capture_leaves_no_trace(key, attention):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad():
        plain = adapter.forward(inputs)
    before = trace_of(adapter.model)
    with torch.no_grad(), adapter.capture(attention=attention, keep_calls=True):
        adapter.forward(inputs)
    assert trace_of(adapter.model) == before
    with torch.no_grad():
        assert torch.equal(adapter.forward(inputs), plain)


class Interruption(Exception):
    pass


@pytest.mark.parametrize("key", small_zoo.GLOBAL_ATTENTION)
def test_capture_leaves_no_trace_when_the_body_raises(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad():
        plain = adapter.forward(inputs)
    before = trace_of(adapter.model)
    with pytest.raises(Interruption), torch.no_grad(), adapter.capture(attention=True, keep_calls=True):
        adapter.forward(inputs)
        raise Interruption
    assert trace_of(adapter.model) == before
    with torch.no_grad():
        assert torch.equal(adapter.forward(inputs), plain)


@pytest.mark.parametrize("key", small_zoo.ONE_OF_EACH)
def test_capture_and_recomputation_leave_no_trace_when_a_block_raises_halfway(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad():
        plain = adapter.forward(inputs)

    def interrupt(*_):
        raise Interruption

    handle = adapter.blocks()[1].register_forward_hook(interrupt)
    before = trace_of(adapter.model)
    with pytest.raises(Interruption), adapter.recompute(), adapter.capture(attention=True):
        adapter.forward(inputs)
    assert trace_of(adapter.model) == before
    handle.remove()
    with torch.no_grad():
        assert torch.equal(adapter.forward(inputs), plain)


@pytest.mark.parametrize("key", small_zoo.ONE_OF_EACH)
def test_a_forward_after_one_that_failed_is_captured_whole(key):
    adapter = small_zoo.small(key)
    inputs = small_zoo.inputs_of(adapter)
    failing = [True]

    def interrupt(*_):
        if failing[0]:
            raise Interruption

    handle = adapter.blocks()[1].register_forward_hook(interrupt)
    with torch.no_grad(), adapter.capture(attention=True) as seen:
        with pytest.raises(Interruption):
            adapter.forward(inputs)
        failing[0] = False
        adapter.forward(inputs)
    handle.remove()
    with torch.no_grad(), adapter.capture(attention=True) as fresh:
        adapter.forward(inputs)
    assert seen.attention.keys() == fresh.attention.keys()
    assert all(torch.equal(seen.attention[i], fresh.attention[i]) for i in fresh.attention)
    assert all(torch.equal(seen.hidden[i], fresh.hidden[i]) for i in fresh.hidden)


@pytest.mark.parametrize("key", small_zoo.ONE_OF_EACH)
def test_only_the_layers_asked_for_are_kept(key):
    adapter = small_zoo.small(key)
    with torch.no_grad(), adapter.capture([0, -1], attention=True) as seen:
        adapter.forward(small_zoo.inputs_of(adapter))
    assert set(seen.hidden) == set(seen.attention) == {0, 2}


@pytest.mark.parametrize("layer", [3, -4])
@pytest.mark.parametrize("key", small_zoo.ONE_OF_EACH)
def test_a_layer_out_of_range_names_those_that_exist(key, layer):
    adapter = small_zoo.small(key)
    with pytest.raises(ConfigError, match=rf"layer {layer} was asked for, but the backbone has 3 blocks: use 0 to 2"):
        with adapter.capture([0, layer]):
            pass


def test_replay_without_kept_calls_says_what_is_missing():
    adapter = small_zoo.small("hf-vit")
    inputs = small_zoo.inputs_of(adapter)
    with torch.no_grad(), adapter.capture() as seen:
        adapter.forward(inputs)
    with pytest.raises(ConfigError, match="keep_calls=True"):
        adapter.forward_head(inputs, seen, seen.hidden[2])


@pytest.mark.parametrize("key", small_zoo.ALL)
def test_an_adapter_adds_nothing_to_the_model(key):
    adapter = small_zoo.small(key)
    keys, modules = list(adapter.model.state_dict()), [id(m) for m in adapter.model.modules()]
    adapter.describe()
    assert list(adapter.model.state_dict()) == keys
    assert [id(m) for m in adapter.model.modules()] == modules
    assert not any(m.training for m in adapter.model.modules())


def test_what_an_adapter_knows_of_its_blocks_keeps_no_captured_tensors_alive():
    adapter = small_zoo.small("hf-vit")
    assert len(adapter.dims) == 3 and adapter.head_parameters() and adapter.grid(0) == (4, 4)
    gc.collect()
    held = [o for o in gc.get_objects() if isinstance(o, Capture)]
    assert held == []
