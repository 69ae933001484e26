"""Two processes that talk to each other by gloo."""

import os
import subprocess
import sys

import torch

from speechbrain_vae.nnet.distributed import leave_processes


def run_two(function, folder, *arguments):
    """Call ``function(rank, folder, *arguments)`` in each of two processes."""
    torch.multiprocessing.spawn(_run, (function, str(folder), *arguments), nprocs=2)


def _run(rank, function, folder, *arguments):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    function(rank, folder, *arguments)
    leave_processes()


def under_torchrun(script, arguments, folder=None):
    """Run a script in two processes of distributed data parallel (DDP), on CPUs."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run(
        [sys.executable, *launcher, str(script), *arguments],
        cwd=folder,
        # One thread each: threads of processes that wait for each other are slow.
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=1800,
    )
