"""Work that the threads of a job do ahead of who takes its results."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

A = TypeVar("A")
B = TypeVar("B")


def n_threads() -> int:
    """Threads that this job may use: as Snakemake says, else every core that it may run on."""
    return int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0))))


def ahead(
    work: Callable[[A], B], todo: Iterable[A], threads: int, each: int = 1
) -> Iterator[B]:
    """Results in the order of the work, ``each`` of them a thread ahead of who takes them.

    Notes
    -----
    The work should release the interpreter, as numpy, polars and pyarrow do. What has not
    begun is dropped when results are no longer wanted.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[B]] = deque()
        try:
            for one in todo:
                waiting.append(pool.submit(work, one))
                if len(waiting) > each * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def side_by_side(work: Callable[[A], B], todo: Iterable[A]) -> Iterator[B]:
    """Results in the order of the work, which all threads of the job do.

    Notes
    -----
    BLAS keeps to one thread meanwhile, so that results do not depend on their number.
    """
    with threadpool_limits(limits=1):
        yield from ahead(work, todo, n_threads(), each=4)
