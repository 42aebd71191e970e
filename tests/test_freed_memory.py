"""Memory that was freed goes back to the system when it is asked to."""

import platform
from pathlib import Path

import pytest
import torch

from mdpd_plugins.freed_memory import give_back


def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing, or cannot be asked")
def test_what_a_phase_freed_goes_back_although_something_after_it_stays():
    blocks = [torch.zeros(16_000) for _ in range(2_000)]  # of 64 KB, which come from the heap: 122 MiB
    last = torch.zeros(16_000)
    full = held()
    blocks.clear()
    kept = held()
    give_back()
    assert held() < full - 100 and last.sum() == 0
    assert kept > full - 20  # or there was nothing to give back


def test_nothing_happens_where_the_library_cannot_be_asked(monkeypatch):
    from mdpd_plugins import freed_memory

    def missing(name):
        raise OSError(name)

    freed_memory._trim.cache_clear()
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", missing)
    give_back()
    freed_memory._trim.cache_clear()
