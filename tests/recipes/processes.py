"""Runs a recipe in two processes of distributed data parallel (DDP)."""

import os
import subprocess
import sys

from benchmarks.loading import RECIPES


def in_two_processes(recipe, arguments):
    """Run ``recipes/<recipe>/train.py`` under torchrun, on CPUs."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = RECIPES / recipe / "train.py"
    done = subprocess.run(
        [sys.executable, *launcher, str(script), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
