"""The first part of the benchmark in short: both sides run, each does what is said of it."""

import pytest

from bench import observer
from bench.comparison import OURS, THEIRS
from bench.correctness import CASES

pytestmark = pytest.mark.timeout(600)


def test_a_few_interruptions_are_measured_on_both_sides_and_the_awkward_cases_judged() -> None:
    figures = observer.measure(print, short=True)

    [sides] = figures[observer.STANDIN].values()
    assert {side: len(samples) for side, samples in sides.items()} == {OURS: 1, THEIRS: 1}
    assert observer.targets(figures)["observer"].keys() == {"standin_1000", "cpu_per_event"}
    judged = figures[observer.CORRECTNESS]
    assert all(judged[OURS][case.name]["right"] for case in CASES), judged[OURS]
    wrong = [case.name for case in CASES if not judged[THEIRS][case.name]["right"]]
    assert wrong == [
        "exit code 0",
        "late news of an older task",
        "waiting for a retry in the process that is gone",
    ]
    assert all(seconds > 0 for seconds in figures[observer.COSTS].values())
    assert len(observer.tables(figures)) == 3
