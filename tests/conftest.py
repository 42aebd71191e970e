"""One thread a process: results that are compared bit for bit, and workers that do not fight over the cores."""

import os

import pytest

# Read when PyTorch is first imported, here and in every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config):
    """On a new machine, yapf (mmengine's) writes its grammar into the user's cache at its first import.

    It reads half of it where two processes are the first, so the one that starts those of -n is.
    """
    if not hasattr(config, "workerinput"):
        import yapf  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def own_options():
    """Options in the environment are for these tests, and not for a pytest that one of them starts."""
    # A fixture, because it runs in the processes of -n alone, which have read the variable by then.
    os.environ.pop("PYTEST_ADDOPTS", None)
