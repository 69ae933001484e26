"""Memory that is freed serves the next step."""

import subprocess
import sys

import pytest

from speechbrain_vae.allocator import keep_freed_memory

STEPS = """
import resource, sys, torch
from speechbrain_vae.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def step():
    torch.zeros(100 * 2**18).add_(1)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_pages_are_asked_for_once():
    faults = {}
    for how in ("kept", "given back"):
        command = [sys.executable, "-c", STEPS, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    # 100 MiB are 25,600 pages of 4 KiB, or 50 of 2 MiB.
    assert faults["given back"] > 10 * faults["kept"] + 5
