"""Two processes that talk to each other by gloo."""

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
