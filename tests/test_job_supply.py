"""Jobs that come late do not hold up who has others; errors and the end are told once they are reached."""

from __future__ import annotations

import os
import select
import threading

import pytest

from featx.job_supply import JobSupply


def taken(supply):
    """The next job, however late."""
    while (job := supply.take()) is None and not supply.is_over:
        select.select([supply.wake], [], [], 60)
    return job


def test_a_job_that_is_waited_for_does_not_hold_up_who_asks():
    release, made = threading.Event(), []

    def jobs():
        for number in range(3):
            made.append(number)
            if number == 1:
                release.wait(60)
            yield number

    with JobSupply(jobs()) as supply:
        assert taken(supply) == 0 and made == [0]  # none is made before it is asked for
        assert supply.take() is None and supply.take() is None and not supply.is_over
        release.set()
        assert [taken(supply) for _ in range(3)] == [1, 2, None] and supply.is_over
        assert supply.take() is None


def test_an_error_is_raised_where_the_job_is_taken():
    def jobs():
        yield "first"
        raise ValueError("no more")

    with JobSupply(jobs()) as supply:
        assert taken(supply) == "first"
        with pytest.raises(ValueError, match="no more"):
            taken(supply)


def test_a_supply_that_is_left_ends_its_thread_and_closes_what_it_opened():
    before, release = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None, threading.Event()

    def jobs():
        release.wait(60)
        yield 1

    with JobSupply(jobs()) as supply:
        assert supply.take() is None
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "featx-jobs"]
    release.set()
    thread.join(60)
    assert thread.daemon and not thread.is_alive()
    assert before is None or set(os.listdir("/proc/self/fd")) <= before
