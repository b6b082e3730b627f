"""Threads that share work out, each with libraries that use one thread."""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock, local

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

__all__ = ["alone", "is_alone", "n_threads", "one_blas_thread", "pool", "share_out", "together"]

SMALL_PRODUCT = 5 * 10**7  # multiplications, some .5 ms of one core


def share_out(work, jobs):
    """Results of the jobs, in order, done on as many threads as torch would use.

    Each job computes alone, so that a result does not depend on the number of threads. Work
    should leave Python's lock most of the time.
    """
    jobs = list(jobs)
    threads = pool() if len(jobs) > 1 else None
    with one_blas_thread:
        return list((map if threads is None else threads.map)(work, jobs))


class _OneThread:
    """BLAS libraries of the process on one thread, for as long as somebody is inside.

    The limit is the process's. Were each user to note the number of before and restore it, one
    that came while another was inside would note, and leave, the limit itself.
    """

    def __init__(self):
        self.lock, self.n_users, self.limit = Lock(), 0, None

    def __enter__(self):
        with self.lock:
            if not self.n_users:
                self.limit = _libraries().limit(limits=1, user_api="blas")
            self.n_users += 1

    def __exit__(self, *exception):
        with self.lock:
            self.n_users -= 1
            if not self.n_users:
                self.limit.restore_original_limits()


one_blas_thread = _OneThread()


if hasattr(os, "register_at_fork"):  # who was inside is not in the child
    os.register_at_fork(after_in_child=one_blas_thread.__init__)  # type: ignore[misc]


_of_thread = local()  # `number`: of threads that torch used before this one was alone


@contextmanager
def alone(largest_product=0):
    """For loops of small operations: the libraries of this thread do without others.

    Threads that wait for each other at the end of every small operation wait for long where other
    processes have the cores: such loops took three to five times as long. What is shared out
    explicitly, see :func:`pool`, still is.

    Parameters
    ----------
    largest_product : int, default=0
        Multiplications in the largest operation; beyond 50 million nothing changes.
    """
    if is_alone() or largest_product > SMALL_PRODUCT:
        yield
        return
    before, _of_thread.number = getattr(_of_thread, "number", None), torch.get_num_threads()
    try:
        with one_blas_thread, _limited(1):
            yield
    finally:
        _of_thread.number = before


@contextmanager
def together():
    """For large operations inside of :func:`alone`: with all threads again."""
    if n_threads() == torch.get_num_threads():
        yield
        return
    with _limited(n_threads()):
        yield


@contextmanager
def _limited(number):
    """With so many threads of OpenMP, and of MKL, for this thread only."""
    with _libraries().limit(limits=number, user_api="openmp"):
        before = _limit_of_mkl()(number)
        try:
            yield
        finally:
            _limit_of_mkl()(before)


@cache
def _limit_of_mkl():
    """MKL's function for that: `torch.set_num_threads` gives it a number of its own for all.

    It is part of torch's library, where torch has MKL.
    """
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return library.MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):
        return lambda number: 0


def is_alone():
    """Whether this thread is, see :func:`alone`, or has never been with others."""
    return torch.get_num_threads() == 1


def n_threads():
    """Threads among which work is shared out."""
    return getattr(_of_thread, "number", None) or torch.get_num_threads()


@cache
def _libraries():
    """Those whose threads can be limited."""
    return ThreadpoolController()


def pool():
    """As many threads as torch would use for one large product; None if that is one."""
    number = n_threads()
    return _pool(os.getpid(), number) if number > 1 else None


@cache
def _pool(process, number):
    """Threads, of this process because they do not survive a fork."""
    return ThreadPoolExecutor(number, "ssn", initializer=_one_thread)


def _one_thread():
    torch.get_num_threads()  # torch sets a new thread's number when first asked, not later
    threadpool_limits(1, user_api="openmp")  # of this thread: OpenMP has one for each
    _limit_of_mkl()(1)
