"""The end of a run of several processes."""

import subprocess
import sys
from pathlib import Path

import pytest

ONE_OF_ONE = """
import sys
from pathlib import Path
import torch
from speechbrain_vae.nnet.distributed import add_across, leave_processes

def threads():
    return len(list(Path("/proc/self/task").iterdir()))

def train():
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 3))
    model.itself = [model]
    add_across(model(torch.zeros(1, 3)).sum()).backward()

before = threads()
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1
)
train()
during = threads()
leave_processes()
print("threads", during > before, threads() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc here")
def test_no_thread_of_the_group_is_left_to_abort_the_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ONE_OF_ONE, str(tmp_path / "group")],
        capture_output=True,
        text=True,
    )
    # Some versions of gloo print to the same stream.
    assert "threads True 0" in done.stdout.splitlines(), done.stderr
