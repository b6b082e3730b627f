"""Threads that share work out, each with libraries that use one thread."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

__all__ = ["libraries", "pool", "share_out"]


def share_out(work, jobs):
    """Results of the jobs, in order, done on as many threads as torch would use.

    Each job computes alone, so that a result does not depend on the number of threads. Work
    should leave Python's lock most of the time.
    """
    jobs = list(jobs)
    threads = pool() if len(jobs) > 1 else None
    with libraries().limit(limits=1, user_api="blas"):
        return list((map if threads is None else threads.map)(work, jobs))


@cache
def libraries():
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
