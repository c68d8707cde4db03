"""The breaker in DynamoDB: signals are never lost, all else is written once; moto and its twin."""

from dataclasses import replace

import pytest
from botocore.exceptions import ClientError

from chalicelib.adapters.breaker import MOST_SIGNALS, BreakerTable, signal_key
from chalicelib.core.guards.breaker import Breaker, BreakerState, Probe
from tests.make import NEWER_TASK_ARN, NOW, RUN_ID, TASK_ARN, make_table, seconds
from tests.twin.dynamodb import InMemoryDynamoDB


@pytest.fixture(params=["moto", "in memory"])
def breakers(request: pytest.FixtureRequest) -> BreakerTable:
    if request.param == "in memory":
        return BreakerTable(InMemoryDynamoDB(), "runs", "etl")  # type: ignore[arg-type]
    moto = request.getfixturevalue("moto_dynamodb")
    make_table(moto, "runs")
    return BreakerTable(moto, "runs", "etl")


def test_a_breaker_that_nobody_has_written_is_closed(breakers: BreakerTable) -> None:
    assert breakers.read() == Breaker()


def test_each_task_signals_once_however_often_it_is_told(breakers: BreakerTable) -> None:
    for _ in range(2):
        breakers.signal(TASK_ARN, NOW)
    seen = breakers.signal(NEWER_TASK_ARN, NOW + seconds(1))
    assert seen.signals == {
        signal_key(TASK_ARN): NOW,
        signal_key(NEWER_TASK_ARN): NOW + seconds(1),
    }
    assert seen == breakers.read()


@pytest.mark.parametrize(
    "after",
    [
        Breaker(BreakerState.OPEN, open_until=NOW),
        Breaker(BreakerState.HALF_OPEN, probe=Probe(RUN_ID, TASK_ARN, NOW)),
        Breaker(BreakerState.CLOSED, closed_at=NOW),
    ],
    ids=["open", "half-open", "closed"],
)
def test_it_comes_back_as_it_was_written_without_the_signals_seen(
    breakers: BreakerTable, after: Breaker
) -> None:
    before = breakers.signal(TASK_ARN, NOW)
    breakers.signal(NEWER_TASK_ARN, NOW)
    assert breakers.change(before, after)
    left = {signal_key(NEWER_TASK_ARN): NOW}
    assert breakers.read() == replace(after, version=1, signals=left)
    assert breakers.change(breakers.read(), Breaker())
    assert breakers.read() == Breaker(version=2)


def test_of_two_who_have_read_the_same_one_has_to_look_again(breakers: BreakerTable) -> None:
    for version in (0, 1):
        before = breakers.read()
        assert before.version == version
        assert breakers.change(before, Breaker(BreakerState.OPEN, open_until=NOW))
        assert not breakers.change(before, Breaker(BreakerState.CLOSED))
        assert breakers.read().state is BreakerState.OPEN


def test_a_signal_is_no_change_that_another_would_have_to_look_at_again(
    breakers: BreakerTable,
) -> None:
    before = breakers.read()
    breakers.signal(TASK_ARN, NOW)
    assert breakers.change(before, Breaker(BreakerState.OPEN, open_until=NOW))
    breakers.signal(NEWER_TASK_ARN, NOW)
    assert breakers.read().version == 1


def test_signals_are_forgotten_however_many(breakers: BreakerTable) -> None:
    for number in range(MOST_SIGNALS + 1):
        breakers.signal(f"task {number}", NOW)
    seen = breakers.signal(TASK_ARN, NOW)
    breakers.forget([key for key in seen.signals if key != signal_key(TASK_ARN)])
    assert list(breakers.read().signals) == [signal_key(TASK_ARN)]
    breakers.forget([])


def test_a_storm_of_signals_does_not_keep_it_from_being_changed(breakers: BreakerTable) -> None:
    for number in range(MOST_SIGNALS + 1):
        before = breakers.signal(f"task {number}", NOW)
    assert breakers.change(before, Breaker(BreakerState.OPEN, open_until=NOW))
    assert len(breakers.read().signals) == 1


def test_what_dynamodb_refuses_otherwise_is_raised() -> None:
    class Refuses:
        def update_item(self, **_: object) -> None:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "UpdateItem")

    with pytest.raises(ClientError, match="AccessDenied"):
        BreakerTable(Refuses(), "runs", "etl").change(Breaker(), Breaker())  # type: ignore[arg-type]
