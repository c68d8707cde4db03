"""The run records and their lease: in moto's DynamoDB, in the storm's own, in the benchmark's."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest

import infra
from chalicelib.adapters.records import KEPT_FOR, RunTable
from chalicelib.core.model.run_record import Interruption, Moved, RunRecord
from chalicelib.errors import LeaseHeldError, LeaseLostError, ThrottledError
from lab.bench.aws_standin import AwsStandIn
from lab.bench.http_server import ServerThread, Service
from tests.make import NOW, RUN_ID, TASK_ARN, make_table, seconds
from tests.twin.dynamodb import InMemoryDynamoDB

LEASE = timedelta(seconds=35)

INTERRUPTION = Interruption(
    task_arn=TASK_ARN,
    number=1,
    cause="Spot interruption",
    capacity="FARGATE_SPOT",
    stop_code="SpotInterruption",
    reason="Your Spot Task was interrupted.",
    availability_zone="us-east-1b",
    recorded_at=NOW,
    billed_from=NOW - seconds(100),
    exited_at=NOW - seconds(1),
    lost_start=1,
    rerun_on="FARGATE_SPOT",
    run_state="RUNNING",
    tags=("spot-retries:2", "spot:rerun"),
    warning_annotated=True,
)
RECORD = RunRecord(RUN_ID, {TASK_ARN: INTERRUPTION}, own_retries=2, next_capacity="FARGATE_SPOT")


@pytest.fixture(params=["moto", "in memory", "over HTTP"])
def dynamodb(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if request.param == "in memory":
        yield InMemoryDynamoDB()
    elif request.param == "over HTTP":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        with ServerThread(Service(AwsStandIn().handle)) as server:
            yield boto3.client("dynamodb", region_name="us-east-1", endpoint_url=server.url)
    else:
        moto = request.getfixturevalue("moto_dynamodb")
        make_table(moto, "runs")
        yield moto


def table(dynamodb: Any, owner: str = "me") -> RunTable:
    return RunTable(dynamodb, "runs", owner)


def test_an_unknown_run_has_an_empty_record(dynamodb: Any) -> None:
    assert table(dynamodb).read(RUN_ID) == RunRecord(RUN_ID)
    assert table(dynamodb).acquire(RUN_ID, NOW, LEASE) == RunRecord(RUN_ID)


def saved(dynamodb: Any, record: RunRecord) -> RunTable:
    """The table, in which the record is."""
    mine = table(dynamodb)
    mine.acquire(RUN_ID, NOW, LEASE)
    mine.save(record)
    return mine


GUARDED = replace(INTERRUPTION, guard="economics", guard_reason="it costs more")
BARE = Interruption(task_arn=TASK_ARN, number=1, cause="drill", capacity="FARGATE")


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(RECORD, id="of an interruption"),
        pytest.param(
            RunRecord(RUN_ID, {TASK_ARN: GUARDED}, moved=Moved("deadline", "late", annotated=True)),
            id="of what a guard decided",
        ),
        pytest.param(RunRecord(RUN_ID, {TASK_ARN: BARE}), id="of little"),
    ],
)
def test_a_record_comes_back_as_it_was_saved(dynamodb: Any, record: RunRecord) -> None:
    assert saved(dynamodb, record).read(RUN_ID) == record


def test_a_record_of_an_older_release_or_a_newer_one_is_read(dynamodb: Any) -> None:
    mine = saved(dynamodb, RECORD)
    item = dynamodb.get_item(TableName="runs", Key={"pk": {"S": f"run#{RUN_ID}"}})["Item"]
    del item["moved"]
    interruption = item["interruptions"]["M"][TASK_ARN]["M"]
    del interruption["guard"], interruption["guard_reason"]
    interruption["invented"] = {"S": "later"}
    dynamodb.put_item(TableName="runs", Item=item)
    assert mine.read(RUN_ID) == RECORD


def test_a_lease_that_is_held_is_not_given_twice(dynamodb: Any) -> None:
    table(dynamodb).acquire(RUN_ID, NOW, LEASE)
    with pytest.raises(LeaseHeldError, match=str(RUN_ID)):
        table(dynamodb, "another").acquire(RUN_ID, NOW + LEASE - seconds(1), LEASE)


def test_an_answer_that_was_lost_does_not_lock_its_own_handler_out(dynamodb: Any) -> None:
    mine = table(dynamodb)
    mine.acquire(RUN_ID, NOW, LEASE)
    assert mine.acquire(RUN_ID, NOW, LEASE) == RunRecord(RUN_ID)  # as botocore asks once more
    with pytest.raises(LeaseHeldError):
        table(dynamodb, "another").acquire(RUN_ID, NOW, LEASE)


def test_a_lease_that_ran_out_goes_to_the_next(dynamodb: Any) -> None:
    mine, other = table(dynamodb), table(dynamodb, "another")
    mine.acquire(RUN_ID, NOW, LEASE)
    mine.save(RECORD)
    assert other.acquire(RUN_ID, NOW + LEASE + seconds(1), LEASE) == RECORD


def test_a_lease_given_back_is_free_at_once(dynamodb: Any) -> None:
    mine = table(dynamodb)
    mine.acquire(RUN_ID, NOW, LEASE)
    mine.release(RECORD)
    assert table(dynamodb, "another").acquire(RUN_ID, NOW, LEASE) == RECORD


def test_who_has_lost_the_lease_writes_nothing(dynamodb: Any) -> None:
    late, other = table(dynamodb, "late"), table(dynamodb, "another")
    late.acquire(RUN_ID, NOW, LEASE)
    other.acquire(RUN_ID, NOW + LEASE + seconds(1), LEASE)
    other.save(RECORD)
    changed = replace(RECORD, next_capacity="FARGATE")
    with pytest.raises(LeaseLostError):
        late.save(changed)
    with pytest.raises(LeaseLostError):
        late.release(changed)
    assert other.read(RUN_ID) == RECORD


def test_a_record_is_kept_for_a_while_and_then_expires(dynamodb: Any) -> None:
    table(dynamodb).acquire(RUN_ID, NOW, LEASE)
    item = dynamodb.get_item(TableName="runs", Key={"pk": {"S": f"run#{RUN_ID}"}})["Item"]
    assert int(item["expires_at"]["N"]) == int((NOW + KEPT_FOR).timestamp())
    table_of_stack = infra.load("stack.json")["Resources"]["Table"]["Properties"]
    assert table_of_stack["TimeToLiveSpecification"]["AttributeName"] in item


def test_records_that_dynamodb_left_out_are_not_taken_for_none() -> None:
    class Busy:
        def batch_get_item(self, **asked: Any) -> dict[str, Any]:
            return {"Responses": {}, "UnprocessedKeys": asked["RequestItems"]}

    with pytest.raises(ThrottledError):
        table(Busy()).read_many([RUN_ID])
