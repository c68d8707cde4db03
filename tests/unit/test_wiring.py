"""What an invocation is given: calls that are made at the same time."""

import threading

import pytest

from chalicelib import wiring
from chalicelib.errors import PrefectUnavailableError


def test_calls_are_made_at_the_same_time_and_answered_in_order() -> None:
    all_there = threading.Barrier(3, timeout=10)
    calls = [lambda: (all_there.wait(), "a")[1], lambda: (all_there.wait(), "b")[1]]
    assert wiring._together([*calls, lambda: (all_there.wait(), "c")[1]]) == ["a", "b", "c"]


def test_all_are_made_before_the_first_failure_is_told() -> None:
    made: list[int] = []
    slow = threading.Event()

    def fails() -> None:
        slow.set()
        raise PrefectUnavailableError("503")

    def comes_late() -> None:
        slow.wait(10)
        made.append(1)

    with pytest.raises(PrefectUnavailableError):
        wiring._together([fails, comes_late, comes_late])
    assert made == [1, 1]
