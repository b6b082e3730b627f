"""Threads that share work out, each with libraries that use one thread."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

__all__ = ["one_blas_thread", "pool", "share_out"]


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


@cache
def _libraries():
    """Those whose threads can be limited."""
    return ThreadpoolController()


def pool():
    """As many threads as torch would use for one product; None if that is one."""
    n_threads = torch.get_num_threads()
    return _pool(os.getpid(), n_threads) if n_threads > 1 else None


@cache
def _pool(process, n_threads):
    """Threads, of this process because they do not survive a fork."""
    return ThreadPoolExecutor(n_threads, "ssn", initializer=_one_thread)


def _one_thread():
    torch.get_num_threads()  # torch sets a new thread's number when first asked, not later
    threadpool_limits(1, user_api="openmp")  # of this thread: OpenMP has one for each
