"""Two computations at once, on the threads of one process."""

import ctypes
import functools
import os
import sys
from concurrent.futures import ThreadPoolExecutor, wait

import torch

OMP_PAUSE_SOFT = 1
"""Threads end, their settings stay."""

_idle: list[ThreadPoolExecutor] = []
# A forked process has the list, but not the threads.
os.register_at_fork(after_in_child=_idle.clear)


def at_once(first, second):
    """Call two functions, each with half of PyTorch's threads.

    For sequences of operations that are too small for all the threads: PyTorch lets
    other Python threads run while it computes. They are called one after the other with
    a single thread, in a thread that is bound to one core, and where the OpenMP of
    PyTorch cannot end its threads (see :func:`end_waiting_threads`).

    Arguments
    ---------
    first, second : callable
        Without arguments. The second runs in a thread of its own; gradients, inference
        mode, autocast on a CPU and denormal numbers are there as with the caller.

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
    if threads < 2 or _cores() < 2 or not end_waiting_threads():
        return first(), second()
    try:
        worker = _idle.pop()
    except IndexError:
        worker = ThreadPoolExecutor(1, "at_once")
    half = threads // 2
    torch.set_num_threads(half)
    other = worker.submit(_run, second, half, denormals_are_zeros(), _modes())
    try:
        return first(), other.result()
    finally:
        wait([other])
        _idle.append(worker)
        # That of the worker has become the default of threads to come.
        torch.set_num_threads(threads)


def _run(function, threads, flush, modes):
    torch.set_num_threads(threads)
    torch.set_flush_denormal(flush)
    inference, grad, *autocast = modes
    try:
        with (
            torch.inference_mode(inference),
            torch.set_grad_enabled(grad),
            torch.autocast("cpu", *autocast),
        ):
            return function()
    finally:
        end_waiting_threads()


def _modes():
    """What holds in this thread: inference mode, gradients, autocast's two options."""
    return (
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_enabled("cpu"),
    )


def _cores():
    """Cores that this thread may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end_waiting_threads():
    """End the threads that PyTorch computes with for the calling one.

    After an operation they wait busily for the next, for milliseconds, on cores that
    other threads may need. The next operation that wants them takes a tenth of a
    millisecond to start them again. By ``omp_pause_resource_all`` (OpenMP 5.0).

    Returns
    -------
    bool
        Whether they ended; there are OpenMP libraries that cannot.

    Example
    -------
    >>> end_waiting_threads() in (True, False)
    True
    """
    pause = _openmp_pause()
    return pause is not None and pause(OMP_PAUSE_SOFT) == 0


@functools.cache
def _openmp_pause():
    # Of the libraries that PyTorch needs, wherever it has them from.
    library = ctypes.CDLL(torch._C.__file__)
    return getattr(library, "omp_pause_resource_all", None)


def denormals_are_zeros():
    """Whether this thread computes zeros for numbers too small to be normal.

    Example
    -------
    >>> denormals_are_zeros()
    False
    """
    tiny = torch.full((1,), 1e-40)
    return (tiny + tiny).item() == 0
