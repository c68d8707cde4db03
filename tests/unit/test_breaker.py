"""The breaker's states: when it opens, who is let through, and what its probe decides."""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid5

import pytest

from chalicelib.core.guards.breaker import (
    Breaker,
    BreakerPolicy,
    BreakerState,
    Permit,
    Probe,
    ProbeSeen,
    asked,
    count,
    in_words,
    judged,
    signalled,
    stale,
)
from tests.make import NOW, RUN_ID, seconds

POLICY = BreakerPolicy(2, timedelta(minutes=30), timedelta(minutes=60))
OTHER_RUN = uuid5(RUN_ID, "another")
MOMENT = timedelta(milliseconds=1)
SHORT = timedelta(seconds=1)
LATER = NOW + seconds(600)


def closed(*ages: timedelta, **changes: object) -> Breaker:
    """A closed breaker with signals of these ages."""
    signals = {f"task-{n}": NOW - age for n, age in enumerate(ages)}
    return replace(Breaker(signals=signals), **changes)  # type: ignore[arg-type]  # a test's own


def opened(until: datetime = LATER) -> Breaker:
    return Breaker(BreakerState.OPEN, version=3, open_until=until)


def half_open(since: datetime = NOW) -> Breaker:
    return Breaker(BreakerState.HALF_OPEN, version=4, probe=Probe(RUN_ID, "task", since))


def ask(
    breaker: Breaker,
    run: UUID = RUN_ID,
    task: str = "task",
    at: datetime = NOW,
    *,
    may_probe: bool = True,
) -> tuple[Breaker, Permit]:
    return asked(breaker, POLICY, Probe(run, task, at), may_probe=may_probe)


@pytest.mark.parametrize(
    ("ages", "state"),
    [
        ((SHORT,), BreakerState.CLOSED),
        ((SHORT, SHORT), BreakerState.OPEN),
        ((SHORT, SHORT, SHORT), BreakerState.OPEN),
        ((SHORT, POLICY.window), BreakerState.OPEN),
        ((SHORT, POLICY.window + MOMENT), BreakerState.CLOSED),
    ],
    ids=["one", "the second", "more", "at the window's end", "just out of it"],
)
def test_so_many_signals_within_the_window_open_it(
    ages: tuple[timedelta, ...], state: BreakerState
) -> None:
    after = signalled(closed(*ages), POLICY, RUN_ID, "task-0", NOW)
    assert after.state is state
    assert ask(closed(*ages))[0].state is state, "who asks finds it open, whoever failed to open it"
    if state is BreakerState.OPEN:
        assert after.open_until == NOW + POLICY.cool_down
        assert ask(after)[1] is Permit.REFUSED


def test_what_has_left_the_window_is_stale() -> None:
    breaker = closed(SHORT, POLICY.window, POLICY.window + MOMENT)
    assert stale(breaker, POLICY, NOW) == ["task-2"]


def test_what_came_before_it_was_closed_again_counts_no_more() -> None:
    assert count(closed(SHORT, closed_at=NOW - SHORT), POLICY, NOW) == 0
    assert count(closed(SHORT, closed_at=NOW - SHORT - MOMENT), POLICY, NOW) == 1


@pytest.mark.parametrize(
    ("at", "permit"),
    [(NOW - MOMENT, Permit.REFUSED), (NOW, Permit.PROBE), (NOW + MOMENT, Permit.PROBE)],
    ids=["a moment before", "at the very moment", "a moment after"],
)
def test_the_first_to_ask_after_the_cool_down_is_the_probe(at: datetime, permit: Permit) -> None:
    after, given = ask(opened(until=NOW), at=at)
    assert given is permit
    assert (after.probe == Probe(RUN_ID, "task", at)) is (permit is Permit.PROBE)


def test_while_the_probe_is_out_all_others_are_refused_and_it_may_ask_again() -> None:
    assert ask(half_open(), OTHER_RUN) == (half_open(), Permit.REFUSED)
    assert ask(half_open(), at=NOW + SHORT) == (half_open(), Permit.PROBE)


def test_a_probe_that_is_taken_opens_it_for_another_cool_down() -> None:
    after = signalled(half_open(), POLICY, RUN_ID, "its next task", NOW)
    assert (after.state, after.open_until) == (BreakerState.OPEN, NOW + POLICY.cool_down)
    assert ask(after, task="its next task")[1] is Permit.REFUSED


@pytest.mark.parametrize(
    ("run", "task"), [(RUN_ID, "task"), (OTHER_RUN, "its next task")], ids=["told again", "another"]
)
def test_other_news_while_the_probe_is_out_changes_nothing(run: UUID, task: str) -> None:
    assert signalled(half_open(), POLICY, run, task, NOW) == half_open()
    assert signalled(opened(), POLICY, run, task, NOW) == opened()


def test_a_probe_that_a_drill_has_ended_is_the_probe_once_more() -> None:
    after, permit = ask(half_open(), task="its next task", at=NOW + SHORT)
    assert permit is Permit.PROBE
    assert after.probe == Probe(RUN_ID, "its next task", NOW + SHORT)


@pytest.mark.parametrize(
    ("seen", "lived", "state"),
    [
        (ProbeSeen.ENDED, timedelta(), BreakerState.CLOSED),
        (ProbeSeen.LIVES, POLICY.window, BreakerState.HALF_OPEN),
        (ProbeSeen.LIVES, POLICY.window + MOMENT, BreakerState.CLOSED),
        (ProbeSeen.NOT_YET, timedelta(), BreakerState.HALF_OPEN),
        (ProbeSeen.TELLS_NOTHING, timedelta(), BreakerState.OPEN),
    ],
    ids=["it ended", "it lives", "it lives for longer than the window", "not yet", "of no use"],
)
def test_what_becomes_of_the_probe_decides(
    seen: ProbeSeen, lived: timedelta, state: BreakerState
) -> None:
    after = judged(half_open(), POLICY, seen, lived, NOW)
    assert after.state is state
    if state is BreakerState.CLOSED:
        assert (after.closed_at, after.probe) == (NOW, None)
    if state is BreakerState.OPEN:
        assert ask(after, OTHER_RUN)[1] is Permit.PROBE, "the next rerun is the probe, at once"


OVERDUE = POLICY.window + POLICY.cool_down


@pytest.mark.parametrize("seen", [ProbeSeen.NOT_YET, ProbeSeen.LIVES])
def test_it_is_never_half_open_for_ever(seen: ProbeSeen) -> None:
    awaited, overdue = half_open(NOW - OVERDUE), half_open(NOW - OVERDUE - MOMENT)
    assert judged(awaited, POLICY, seen, timedelta(), NOW) == awaited
    assert judged(overdue, POLICY, seen, timedelta(), NOW).state is BreakerState.OPEN
    assert ask(awaited, OTHER_RUN)[1] is Permit.REFUSED
    after, permit = ask(overdue, OTHER_RUN)
    assert permit is Permit.PROBE, "and without a sweep, the next one to ask"
    assert after.probe == Probe(OTHER_RUN, "task", NOW)


def test_a_look_changes_nothing_unless_it_is_half_open() -> None:
    for breaker in (closed(SHORT), opened()):
        assert judged(breaker, POLICY, ProbeSeen.ENDED, timedelta(), NOW) == breaker


def test_where_nothing_is_really_rerun_there_is_no_probe_and_the_cool_down_closes_it() -> None:
    for breaker in (opened(until=NOW), half_open()):
        after, permit = ask(breaker, OTHER_RUN, may_probe=False)
        assert (after.state, permit) == (BreakerState.CLOSED, Permit.GRANTED)
    assert ask(opened(), may_probe=False)[1] is Permit.REFUSED


@pytest.mark.parametrize(
    ("time", "words"),
    [(45, "45s"), (60, "1m"), (90, "90s"), (1800, "30m"), (3600, "1h"), (5400, "90m"), (0, "0s")],
)
def test_times_are_written_as_the_setting_has_them(time: int, words: str) -> None:
    assert in_words(timedelta(seconds=time)) == words
    assert str(POLICY) == "2/30m/1h"
