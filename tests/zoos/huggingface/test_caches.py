"""Caches of keys and values: nothing is kept, whether a model makes one unasked or on request."""

import pytest
import torch

from mdpd_plugins.adapters import build_backbone
from mdpd_plugins.registry import load_catalogue


@pytest.mark.parametrize("kind", ["gemma3", "qwen3_5", "xlm"])
def test_a_block_that_runs_a_second_time_sees_no_keys_of_the_first(kind):
    small = next(iter(load_catalogue().get(f"huggingface/{kind}").small_options().values()))
    adapter = build_backbone(f"huggingface/{kind}", pretrained=None, num_classes=5, **small)
    inputs = adapter.example_inputs()
    with torch.no_grad(), adapter.capture(keep_calls=True) as seen:
        logits = adapter.forward(inputs)
        args, kwargs, output = seen.calls[1]
        again = adapter.blocks()[1](*args, **kwargs)
    first, second = (out if isinstance(out, torch.Tensor) else out[0] for out in (output, again))
    assert torch.equal(first, second)
    assert torch.equal(adapter.forward(inputs), logits)
