"""Freed memory is kept: the same batch again costs few page faults."""

import subprocess
import sys

import pytest

PROBE = """
import resource, sys, torch
from freestyle.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else True
torch.set_num_threads(1)
for _ in range(8):  # until the heap has grown to what the batches need
    torch.ones(16_000_000).mul(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16_000_000).mul(2)  # 64 MB: above the size that glibc ever keeps by itself
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    found = subprocess.run(
        [sys.executable, "-c", PROBE, how], capture_output=True, text=True, check=True
    )
    kept, count = map(int, found.stdout.split())
    return bool(kept), count


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone is told")
def test_batches_of_one_size_reuse_their_memory():
    kept, count = faults("kept")
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert count * 3 < faults("plain")[1]
