"""The run records and their lease: one contract for DynamoDB and the twin."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import infra
from chalicelib.adapters.records import KEPT_FOR, RunTable, packed
from chalicelib.core.model.flow_run import FailedStart, Interruption, Moved, RunRecord
from chalicelib.core.model.not_now import NotNow
from chalicelib.core.model.policy import Pause
from chalicelib.core.model.sweeping import Place, SweepNotes, Unjudged
from chalicelib.core.model.text import TEXT_LENGTH
from chalicelib.core.ports import Records
from chalicelib.errors import LeaseHeldError, LeaseLostError, ThrottledError
from chalicelib.functions.repairs import MOST_ANSWERED
from chalicelib.functions.sweep_report import MOST_UNJUDGED
from tests.make import NOW, RUN_ID, TASK_ARN, longest_record, make_table, seconds
from tests.twin.tables import InMemoryRecords, StoredRecords

LEASE = timedelta(seconds=35)
INTERRUPTION = Interruption(TASK_ARN, 1, "Spot interruption", "FARGATE_SPOT", lost_start=1)
RECORD = RunRecord(
    RUN_ID, {TASK_ARN: INTERRUPTION}, 2, "FARGATE_SPOT", moved=Moved("deadline", "late")
)

Open = Callable[[str], Records]
"""Opens the run records for one owner of leases."""


@pytest.fixture
def dynamodb(moto_dynamodb: Any) -> Any:
    make_table(moto_dynamodb, "runs")
    return moto_dynamodb


@pytest.fixture(params=["DynamoDB", "in memory"])
def records(request: pytest.FixtureRequest) -> Iterator[Open]:
    if request.param == "in memory":
        yield partial(InMemoryRecords, StoredRecords())
    else:
        yield partial(RunTable, request.getfixturevalue("dynamodb"), "runs")


def test_an_unknown_run_has_an_empty_record(records: Open) -> None:
    assert records("me").read(RUN_ID) == RunRecord(RUN_ID)
    assert records("me").read_many([RUN_ID]) == {}
    assert records("me").acquire(RUN_ID, NOW, LEASE) == RunRecord(RUN_ID)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
TIMES = st.datetimes(min_value=datetime(2020, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # zoned below
ANY: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(0, 99),
    bool: st.booleans(),
    datetime | None: st.none() | TIMES,
    tuple[str, ...]: st.lists(TEXTS, max_size=3).map(tuple),
}


def any_of(kind: type[Any], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of a dataclass, every field filled by its type."""
    by_type = {f.name: ANY[f.type] for f in fields(kind) if f.name not in given}
    return st.builds(kind, **by_type, **given)


any_record = any_of(
    RunRecord,
    flow_run_id=st.just(RUN_ID),
    interruptions=st.lists(any_of(Interruption), max_size=3).map(
        lambda found: {interruption.task_arn: interruption for interruption in found}
    ),
    failed_starts=st.lists(any_of(FailedStart), max_size=3).map(
        lambda found: {failed.key: failed for failed in found}
    ),
    subflows=st.dictionaries(TEXTS, st.lists(st.integers(0, 99)).map(tuple), max_size=2),
    own_retries=st.none() | st.integers(0, 99),
    lost_before=st.integers(0, 99),
    moved=st.none() | any_of(Moved),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(record=any_record)
def test_a_record_is_read_as_it_was_saved(records: Open, record: RunRecord) -> None:
    records("me").acquire(RUN_ID, NOW, LEASE)
    records("me").save(record)
    assert records("another").read(RUN_ID) == record
    assert records("another").read_many([UUID(int=7), RUN_ID]) == {RUN_ID: record}


def test_what_a_sweep_left_is_kept(records: Open) -> None:
    assert records("me").read_sweep() == SweepNotes()
    unjudged, answered = {RUN_ID: Unjudged("no ARN", NOW)}, frozenset({RUN_ID, UUID(int=7)})
    bookmark = Place(1, NOW, moment=True, offset=99, below=RUN_ID)
    unbilled = {TASK_ARN: Unjudged("its name", NOW)}
    notes = SweepNotes(bookmark, NOW, unjudged, answered, NOW, unbilled)
    records("me").save_sweep(notes)
    assert records("another").read_sweep() == notes
    records("me").save_sweep(replace(notes, pause=Pause(NOW, "arn:aws:iam::1:user/ops")))
    assert (records("me").read_sweep(), records("me").read_pause()) == (notes, None)


def test_the_pause_that_holds_is_the_first_and_a_sweep_reads_it_and_leaves_it(
    dynamodb: Any,
) -> None:
    table = RunTable(dynamodb, "runs", "me")
    first, second = Pause(NOW, "arn:aws:iam::1:user/a"), Pause(NOW + LEASE, "b", "a storm")
    assert table.resume() is None
    assert [table.pause(first), table.pause(second), table.read_pause()] == [first] * 3
    table.save_sweep(table.read_sweep())
    assert table.read_sweep() == SweepNotes(pause=first)
    assert (table.resume(), table.read_pause(), table.read_sweep()) == (first, None, SweepNotes())
    assert table.pause(second) == second


def test_until_when_prefect_is_not_asked_is_kept_for_every_function(dynamodb: Any) -> None:
    assert RunTable(dynamodb, "runs", "").read_not_now() is None
    for minutes in (1, 2):
        kept = NotNow(NOW, NOW + timedelta(minutes=minutes), NOW)
        RunTable(dynamodb, "runs", "react").save_not_now(kept)
        assert RunTable(dynamodb, "runs", "sweep").read_not_now() == kept


def test_the_longest_record_and_notes_fit_the_table_and_longer_ones_are_refused(
    records: Open,
) -> None:
    longest = longest_record()
    records("me").acquire(RUN_ID, NOW, LEASE)
    records("me").save(longest)
    assert records("another").read(RUN_ID) == longest
    reason = Unjudged(
        "x" * TEXT_LENGTH + "; it stands between the flow runs " + 2 * str(RUN_ID), NOW
    )
    unjudged = {UUID(int=n): reason for n in range(MOST_UNJUDGED)}
    answered = frozenset(UUID(int=n) for n in range(MOST_ANSWERED))
    records("me").save_sweep(SweepNotes(None, NOW, unjudged, answered, NOW))
    with pytest.raises(ClientError, match=r"size"):
        records("me").save(replace(longest, next_capacity="x" * 400_000))
    with pytest.raises(ClientError, match=r"size"):
        records("me").save_sweep(SweepNotes(unjudged={RUN_ID: Unjudged("x" * 410_000, NOW)}))


def test_a_lease_that_is_held_is_not_given_twice(records: Open) -> None:
    records("me").acquire(RUN_ID, NOW, LEASE)
    with pytest.raises(LeaseHeldError, match=str(RUN_ID)):
        records("another").acquire(RUN_ID, NOW + LEASE, LEASE)


def test_an_answer_that_was_lost_does_not_lock_its_own_handler_out(records: Open) -> None:
    records("me").acquire(RUN_ID, NOW, LEASE)
    assert records("me").acquire(RUN_ID, NOW, LEASE) == RunRecord(RUN_ID)  # botocore's own retry
    with pytest.raises(LeaseHeldError):
        records("another").acquire(RUN_ID, NOW, LEASE)


def test_a_lease_that_expired_goes_to_the_next(records: Open) -> None:
    records("me").acquire(RUN_ID, NOW, LEASE)
    records("me").save(RECORD)
    assert records("another").acquire(RUN_ID, NOW + LEASE + seconds(1), LEASE) == RECORD


def test_a_lease_that_was_released_is_free_at_once(records: Open) -> None:
    records("me").acquire(RUN_ID, NOW, LEASE)
    records("me").release(RECORD)
    assert records("another").acquire(RUN_ID, NOW, LEASE) == RECORD


def test_a_handler_that_lost_its_lease_writes_nothing(records: Open) -> None:
    records("late").acquire(RUN_ID, NOW, LEASE)
    records("another").acquire(RUN_ID, NOW + LEASE + seconds(1), LEASE)
    records("another").save(RECORD)
    changed = replace(RECORD, next_capacity="FARGATE")
    with pytest.raises(LeaseLostError):
        records("late").save(changed)
    with pytest.raises(LeaseLostError):
        records("late").release(changed)
    assert records("another").read(RUN_ID) == RECORD
    records("another").release(RECORD)
    with pytest.raises(LeaseLostError):
        records("another").save(changed)


# What only DynamoDB has.


def test_a_record_of_an_older_release_or_a_newer_one_is_read(dynamodb: Any) -> None:
    mine = RunTable(dynamodb, "runs", "me")
    mine.acquire(RUN_ID, NOW, LEASE)
    mine.save(RECORD)
    item = dynamodb.get_item(TableName="runs", Key={"pk": {"S": f"run#{RUN_ID}"}})["Item"]
    del item["moved_annotated"]
    item["moved"]["M"]["told"] = {"BOOL": True}
    interruption = item["interruptions"]["M"][TASK_ARN]["M"]
    del interruption["guard"], interruption["guard_reason"], interruption["why"]
    interruption["invented"] = {"S": "later"}
    dynamodb.put_item(TableName="runs", Item=item)
    assert mine.read(RUN_ID) == RECORD


def test_a_bookmark_of_the_first_release_is_ignored(dynamodb: Any) -> None:
    item = {"pk": "sweep", "place": "1 1 100 -", "swept_at": NOW.isoformat()}
    dynamodb.put_item(TableName="runs", Item=packed(item))
    assert RunTable(dynamodb, "runs", "me").read_sweep() == SweepNotes(swept_at=NOW)


def test_a_record_is_kept_for_a_while_and_then_expires(dynamodb: Any) -> None:
    RunTable(dynamodb, "runs", "me").acquire(RUN_ID, NOW, LEASE)
    item = dynamodb.get_item(TableName="runs", Key={"pk": {"S": f"run#{RUN_ID}"}})["Item"]
    assert int(item["expires_at"]["N"]) == int((NOW + KEPT_FOR).timestamp())
    table_of_stack = infra.load("stack.json")["Resources"]["Table"]["Properties"]
    assert table_of_stack["TimeToLiveSpecification"]["AttributeName"] in item


def test_records_that_dynamodb_left_out_are_not_taken_for_none() -> None:
    class Busy:
        def batch_get_item(self, **asked: Any) -> dict[str, Any]:
            return {"Responses": {}, "UnprocessedKeys": asked["RequestItems"]}

    busy: Any = Busy()
    with pytest.raises(ThrottledError):
        RunTable(busy, "runs", "me", sleep=lambda _: None).read_many([RUN_ID])
