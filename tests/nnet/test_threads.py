"""Two computations at once: what they return, what they raise, what they leave."""

import multiprocessing
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from speechbrain_vae.nnet import threads
from speechbrain_vae.nnet.threads import (
    at_once,
    denormals_are_zeros,
    end_waiting_threads,
)

pytestmark = pytest.mark.usefixtures("two_threads")
needs_pause = pytest.mark.skipif(
    not end_waiting_threads(), reason="this OpenMP cannot end its threads"
)


def where():
    """The thread and what holds in it."""
    return (
        threading.get_ident(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        denormals_are_zeros(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


@needs_pause
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("flush", [True, False])
def test_each_has_half_of_the_threads_and_the_settings_of_the_caller(grad, flush):
    torch.set_flush_denormal(flush)
    try:
        with torch.set_grad_enabled(grad):
            (own, *here), (other, *there) = at_once(where, where)
    finally:
        torch.set_flush_denormal(False)
    assert own == threading.get_ident() != other
    assert here == there == [1, grad, flush, False, False]
    assert torch.get_num_threads() == 2


@needs_pause
def test_inference_mode_and_autocast_of_the_caller_hold_in_both():
    x = torch.ones(3, 3)
    with torch.inference_mode(), torch.autocast("cpu", torch.float16):
        (_, *here), (_, *there) = at_once(where, where)
        assert here == there == [1, False, False, True, True]
        product, other = at_once(lambda: x @ x, lambda: x @ x)
    assert product.dtype == other.dtype == torch.float16
    assert at_once(lambda: 1, where)[1][1:] == (1, True, False, False, False)


def test_a_single_thread_calls_them_in_turn():
    torch.set_num_threads(1)
    one, other = at_once(where, where)
    assert one == other == where()


@pytest.fixture(params=["bound to a core", "cannot pause"])
def in_turn(request, monkeypatch):
    """Where two at once would be slower, and where they cannot be."""
    if request.param == "cannot pause":
        monkeypatch.setattr(threads, "_openmp_pause", lambda: None)
        yield
    elif sys.platform != "linux":
        pytest.skip("threads are bound on Linux")
    else:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        yield
        os.sched_setaffinity(0, cores)


def test_where_they_would_wait_for_each_other_they_are_called_in_turn(in_turn):
    one, other = at_once(where, where)
    assert one == other == where() and torch.get_num_threads() == 2


@needs_pause
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads by /proc")
def test_threads_that_wait_end_and_start_again():
    def number():
        return len(os.listdir("/proc/self/task"))

    x = torch.randn(512, 512)
    expected, before = x @ x, number()
    assert end_waiting_threads() and number() == before - 1
    torch.testing.assert_close(x @ x, expected)
    assert number() == before and torch.get_num_threads() == 2


@needs_pause
@pytest.mark.parametrize("at_fault", ["first", "second"])
def test_an_exception_is_raised_when_both_have_ended(at_fault):
    ended, started = threading.Event(), threading.Event()

    def fails():
        assert started.wait(60)
        raise ArithmeticError("it")

    def ends():
        started.set()
        ended.set()

    calls = (fails, ends) if at_fault == "first" else (ends, fails)
    with pytest.raises(ArithmeticError, match="it"):
        at_once(*calls)
    assert ended.is_set() and torch.get_num_threads() == 2
    assert at_once(lambda: 1, lambda: 2) == (1, 2)


@needs_pause
def test_threads_of_the_caller_do_not_wait_for_each_other():
    together = threading.Barrier(4)

    def both(_):
        torch.set_num_threads(2)
        return at_once(lambda: together.wait(60), lambda: together.wait(60))

    with ThreadPoolExecutor(2) as pool:
        places = [place for two in pool.map(both, range(2)) for place in two]
    assert sorted(places) == [0, 1, 2, 3]


@needs_pause
def test_one_of_two_can_be_two():
    def two():
        torch.set_num_threads(2)
        return at_once(where, where)

    (first, *_), pair = at_once(where, two)
    assert len({first, *(each[0] for each in pair)}) == 3
    assert torch.get_num_threads() == 2


def _in_a_child(queue):
    torch.set_num_threads(2)
    queue.put(at_once(lambda: 1, lambda: 2))


def test_a_forked_process_has_a_worker_of_its_own():
    at_once(where, where)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_a_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == (1, 2)
    child.join()
