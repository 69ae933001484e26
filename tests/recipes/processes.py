"""Runs a recipe in two processes of distributed data parallel (DDP)."""

from benchmarks.loading import RECIPES
from tests.processes import under_torchrun


def in_two_processes(recipe, arguments):
    """Run ``recipes/<recipe>/train.py`` under torchrun, on CPUs."""
    done = under_torchrun(RECIPES / recipe / "train.py", arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
