"""What a file must be before a training may see it; runs in worker processes."""

import contextlib
import os
import sys
import threading
import types
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process

import numpy as np

from .audio import AudioError, blocks, convert, needs_conversion, open_audio

SILENCE_PEAK = 1e-4
"""Audio whose swing (half of highest minus lowest) stays below this, -80 dB of full
scale or three steps of 16 bits, is silent; a constant offset is no sound."""

_GRID_SECONDS = 0.05
_FILES_PER_TASK = 16


@dataclass(frozen=True)
class Job:
    """One file to check.

    Arguments
    ---------
    wav : str
        Absolute path.
    stem : str
        Where a conversion of it goes, without extension.
    sample_rate : int
        Rate of the model in Hz.
    min_seconds : float
        Shorter audio is refused.
    max_seconds : float or None
        Longer files are cut; ``None`` for a file that must stay whole.

    Example
    -------
    >>> Job("/data/a.wav", "/save/converted/a", 16000, 0.1, 30.0).max_seconds
    30.0
    """

    wav: str
    stem: str
    sample_rate: int
    min_seconds: float
    max_seconds: float | None


@dataclass(frozen=True)
class Checked:
    """What was found in a file.

    Arguments
    ---------
    wav : str
        Path of the file that training reads: the source, or its conversion.
    parts : tuple of (int, int)
        First sample and the one after the last of each usable part.
    reason : str or None
        Why the file is skipped, or ``None``.
    silent_parts : int
        Parts left out of a long file because they are silent.

    Example
    -------
    >>> Checked("/data/a.wav", ((0, 16000),)).reason is None
    True
    """

    wav: str
    parts: tuple = ()
    reason: str | None = None
    silent_parts: int = 0


def check_file(job: Job) -> Checked:
    """Decode a file from beginning to end and convert it where needed.

    Arguments
    ---------
    job : Job
        The file and what is asked of it.

    Returns
    -------
    Checked
        Its usable parts, or why there are none.

    Example
    -------
    >>> check_file(Job("/none.wav", "/tmp/x", 16000, 0.1, 30.0)).reason
    'missing file'
    """
    try:
        with open_audio(job.wav) as file:
            seconds = file.frames / file.samplerate
            whole = job.max_seconds is None or seconds <= job.max_seconds
            conversion = needs_conversion(file, job.sample_rate, whole)
        wav = job.wav
        if conversion:
            wav = convert(job.wav, job.stem, job.sample_rate)
        return _examine(job, wav)
    except AudioError as error:
        return Checked(job.wav, reason=error.reason)


def part_bounds(frames: int, longest: int):
    """Cut a number of samples into the fewest equal parts not above a length.

    Arguments
    ---------
    frames : int
        Samples to cut.
    longest : int
        Samples of the longest part allowed.

    Returns
    -------
    list of (int, int)
        First sample and the one after the last of each part.

    Example
    -------
    >>> part_bounds(10, 4)
    [(0, 3), (3, 6), (6, 10)]
    """
    count = max(1, -(-frames // longest))
    edges = [index * frames // count for index in range(count + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _examine(job, wav):
    grid = max(1, round(_GRID_SECONDS * job.sample_rate))
    highest, lowest, frames = [], [], 0
    with open_audio(wav) as file:
        for block in blocks(file, 600 * grid):
            starts = np.arange(0, len(block), grid)
            highest.append(np.maximum.reduceat(block[:, 0], starts))
            lowest.append(np.minimum.reduceat(block[:, 0], starts))
            frames += len(block)
    if not frames:
        return Checked(job.wav, reason="no samples")
    if frames < job.min_seconds * job.sample_rate:
        reason = f"too short: {frames / job.sample_rate:.3f} s"
        return Checked(job.wav, reason=reason)
    highest, lowest = np.concatenate(highest), np.concatenate(lowest)

    def audible(start, stop):
        cells = slice(start // grid, max(start // grid + 1, stop // grid))
        return highest[cells].max() - lowest[cells].min() >= 2 * SILENCE_PEAK

    bounds = [(0, frames)]
    if job.max_seconds is not None:
        bounds = part_bounds(frames, max(1, int(job.max_seconds * job.sample_rate)))
    parts = tuple(bound for bound in bounds if audible(*bound))
    if not parts:
        return Checked(job.wav, reason="silent")
    return Checked(wav, parts, silent_parts=len(bounds) - len(parts))


def check_files(
    jobs: list[Job], workers: int = 2, progress=iter, check=check_file
) -> list[Checked]:
    """Check many files, in processes of their own.

    A decoder that crashes takes one file with it, not the preparation: what was under
    way is done again, each file in a process of its own.

    Arguments
    ---------
    jobs : list of Job
        The files.
    workers : int
        Processes; with 1 or fewer, or a handful of files, everything runs here.
    progress : callable
        Wraps the iterator of results, e.g. a progress bar.
    check : callable
        What to do with each job; a function of a module.

    Returns
    -------
    list of Checked
        In the order of the jobs.

    Example
    -------
    >>> check_files([])
    []
    """
    results = {}
    for index, result in progress(_results(jobs, workers, check)):
        results[index] = result
    return [results[index] for index in range(len(jobs))]


def _results(jobs, workers, check):
    workers = min(workers, -(-len(jobs) // _FILES_PER_TASK))
    if workers <= 1:
        yield from ((index, check(job)) for index, job in enumerate(jobs))
        return
    tasks = [
        list(range(first, min(first + _FILES_PER_TASK, len(jobs))))
        for first in range(0, len(jobs), _FILES_PER_TASK)
    ]
    crashed = []
    with _pool(workers) as pool:
        with _unnamed_main():
            futures = {
                pool.submit(_check_many, check, [jobs[index] for index in task]): task
                for task in tasks
            }
        try:
            for future in as_completed(futures):
                try:
                    yield from zip(futures[future], future.result(), strict=True)
                except BrokenProcessPool:
                    crashed.extend(futures[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    yield from _one_by_one(jobs, sorted(crashed), check)


def _one_by_one(jobs, indices, check):
    indices = iter(indices)
    index = next(indices, None)
    while index is not None:
        with _pool(1) as pool:
            try:
                while index is not None:
                    with _unnamed_main():
                        future = pool.submit(check, jobs[index])
                    yield index, future.result()
                    index = next(indices, None)
            except BrokenProcessPool:
                yield index, Checked(jobs[index].wav, reason="the decoder crashed")
                index = next(indices, None)


def _pool(workers):
    # A fork of a process with threads (torch has some) can hang; a spawned one cannot.
    return ProcessPoolExecutor(workers, get_context("spawn"), _start)


@contextlib.contextmanager
def _unnamed_main():
    # A spawned process would import the main script, and all that it imports, anew:
    # seconds for a training script, and no worker at all where that fails.
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start():
    # Workers of a killed program would wait for work for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _end_with_parent():
    parent_process().join()
    os._exit(1)


def _check_many(check, jobs):
    return [check(job) for job in jobs]
