"""The memory that training steps use."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from speechbrain_vae.pretraining import fast_cpu_steps

def faults_of_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.zeros(100_000) for _ in range(100)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with fast_cpu_steps():
    print([faults_of_step() for _ in range(3)][-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_step_uses_the_memory_of_the_one_before():
    command = [sys.executable, "-c", STEPS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # A step is 40 MB: nearly 10,000 pages of 4 KiB, mostly, without the context.
    assert int(done.stdout) < 100
