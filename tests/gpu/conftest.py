"""The device that these tests run on."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device():
    """A GPU. `MDPD_TEST_DEVICE=cpu` says that the tests themselves run; they then compare a CPU with itself."""
    name = os.environ.get("MDPD_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU: MDPD_TEST_DEVICE=cpu runs these tests without")
    torch.backends.cudnn.allow_tf32 = False  # convolutions would round to 10 bits
    return torch.device(name)
