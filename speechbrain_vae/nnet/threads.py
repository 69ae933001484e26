"""Two computations at once, on the threads of one process."""

import os
from concurrent.futures import ThreadPoolExecutor, wait

import torch

_workers: list[ThreadPoolExecutor] = []
# A forked process has the list, but not the thread.
os.register_at_fork(after_in_child=_workers.clear)


def at_once(first, second):
    """Call two functions, each with half of PyTorch's threads.

    For sequences of operations that are too small for all the threads: PyTorch lets
    other Python threads run while it computes. With a single thread they are called one
    after the other.

    Arguments
    ---------
    first, second : callable
        Without arguments. The second runs in a thread of its own, which records
        gradients and takes denormal numbers for zeros where the caller does.

    Returns
    -------
    tuple
        What they return. An exception of either is raised, when both have ended.

    Example
    -------
    >>> at_once(lambda: 1, lambda: 2)
    (1, 2)
    """
    threads = torch.get_num_threads()
    if threads < 2:
        return first(), second()
    if not _workers:
        _workers.append(ThreadPoolExecutor(1, "at_once"))
    half = threads // 2
    torch.set_num_threads(half)
    as_here = half, torch.is_grad_enabled(), denormals_are_zeros()
    other = _workers[0].submit(_run, second, *as_here)
    try:
        return first(), other.result()
    finally:
        wait([other])
        # That of the worker has become the default of threads to come.
        torch.set_num_threads(threads)


def _run(function, threads, grad, flush):
    torch.set_num_threads(threads)
    torch.set_flush_denormal(flush)
    with torch.set_grad_enabled(grad):
        return function()


def denormals_are_zeros():
    """Whether this thread computes zeros for numbers too small to be normal.

    Example
    -------
    >>> denormals_are_zeros()
    False
    """
    tiny = torch.full((1,), 1e-40)
    return (tiny + tiny).item() == 0
