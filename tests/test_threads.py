import threading
import time

import pytest

from phenopipe.threads import ahead, n_threads, side_by_side


def test_results_come_in_the_order_of_the_work():
    def slow_first(number):
        time.sleep(0.02 * (number % 3 == 0))
        return number

    assert list(ahead(slow_first, range(20), 4)) == list(range(20))


@pytest.mark.parametrize(("threads", "each"), [(1, 1), (2, 1), (2, 3)])
def test_no_more_is_done_than_was_said(threads, each):
    begun = []
    results = ahead(begun.append, iter(range(100)), threads, each)
    for taken in range(1, 5):
        next(results)
        time.sleep(0.02)
        assert len(begun) <= taken + each * threads
    results.close()
    n_begun = len(begun)
    time.sleep(0.02)
    assert len(begun) == n_begun < 100


def test_an_error_of_the_work_reaches_who_takes_it():
    with pytest.raises(ZeroDivisionError):
        list(ahead((1).__truediv__, [1, 0, 1], 2))


def test_a_job_uses_the_threads_that_it_was_given(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    everyone = threading.Barrier(3, timeout=10)
    assert n_threads() == 3
    assert len(list(side_by_side(lambda _: everyone.wait(), range(3)))) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert n_threads() >= 1
