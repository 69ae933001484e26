"""What a user reads when something is in the way, and the memory that steps use."""

import errno
import os
import platform
import subprocess
import sys

import pytest

from speechbrain_vae.pretraining import one_line_errors


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room, and give the same command again"),
        (errno.EROFS, "another folder, one that can be written"),
        (errno.EACCES, "change its permissions"),
    ],
)
def test_errors_of_the_disk_say_what_to_do(number, advice):
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise OSError(number, os.strerror(number), "/somewhere/save")
    line = str(end.value)
    assert line.startswith(f"error: {os.strerror(number)}: /somewhere/save; ")
    assert advice in line and "\n" not in line


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
