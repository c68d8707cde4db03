"""The emulated EventBridge delivers by moto's rules, and misbehaves exactly as told."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from localcloud.aws import EmulatedAws
from localcloud.events import (
    Delivery,
    EventRouter,
    delay,
    deliver_once,
    drop,
    duplicate,
    shuffle,
)
from tests.localcloud.cloud import wait_until

LAMBDA = "arn:aws:lambda:us-east-1:123456789012:function:"


class Bus:
    """A router whose invocations are only written down."""

    def __init__(self, aws: EmulatedAws) -> None:
        self.invoked: list[tuple[str, Any]] = []
        self.router = EventRouter(aws, lambda name, event: self.invoked.append((name, event)))
        self._client = aws.client("events")

    def add_rule(self, pattern: Any = None, schedule: str = "", function: str = "react") -> str:
        name = f"rule-{uuid.uuid4().hex[:8]}"
        how = {"ScheduleExpression": schedule} if schedule else {}
        if pattern:
            how = {"EventPattern": json.dumps(pattern)}
        self._client.put_rule(Name=name, **how)
        self._client.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": f"{LAMBDA}{function}"}])
        return name

    def clear(self) -> None:
        self.router.close()
        for rule in self._client.list_rules()["Rules"]:
            self._client.remove_targets(Rule=rule["Name"], Ids=["1"])
            self._client.delete_rule(Name=rule["Name"])

    def versions(self) -> list[int]:
        return [event["detail"]["version"] for _, event in self.invoked]


@pytest.fixture
def bus(aws: EmulatedAws) -> Iterator[Bus]:
    bus = Bus(aws)
    yield bus
    bus.clear()


def make_event(version: int = 1, **detail: Any) -> dict[str, Any]:
    return {"source": "aws.ecs", "detail": {"version": version, **detail}}


def test_event_reaches_the_functions_whose_rules_match(bus: Bus) -> None:
    bus.add_rule({"source": ["aws.ecs"]}, function="react")
    bus.add_rule({"detail": {"stoppedReason": [{"prefix": "Your Spot"}]}}, function="meter")
    bus.add_rule(schedule="rate(5 minutes)", function="sweep")
    bus.router.check_rules()
    bus.router.put(make_event(stoppedReason="Your Spot Task was interrupted."))
    bus.router.put(make_event(stoppedReason="Scaling"))
    assert [name for name, _ in bus.invoked] == ["react", "meter", "react"]
    assert [d.function_name for d in bus.router.delivered] == ["react", "meter", "react"]


def test_disabled_rule_delivers_nothing(bus: Bus, aws: EmulatedAws) -> None:
    aws.client("events").disable_rule(Name=bus.add_rule({"source": ["aws.ecs"]}))
    bus.router.put(make_event())
    assert bus.invoked == []


@pytest.mark.parametrize(
    "pattern",
    [
        {"detail": {"a": [{"starts-with": "x"}]}},
        {"detail": {"a": [{"anything-but": {"like": "x"}}]}},
        {"detail": {"a": [{"prefix": "x", "suffix": "y"}]}},
        {"detail": {"$or": [{"a": ["x"]}, {"b": [{"startswith": "y"}]}]}},
        {"detail": {"containers": {"name": ["prefect"]}}},
    ],
    ids=["unknown", "unknown inside", "two at once", "unknown in or", "into an array"],
)
def test_rule_that_moto_cannot_judge_is_refused(bus: Bus, pattern: Any) -> None:
    bus.add_rule(pattern)
    with pytest.raises(NotImplementedError, match="moto"):
        bus.router.put(make_event(a="x", containers=[{"name": "prefect"}]))
    assert bus.invoked == []


def test_target_that_is_neither_lambda_nor_queue_is_refused(bus: Bus, aws: EmulatedAws) -> None:
    target = {"Id": "1", "Arn": "arn:aws:sns:us-east-1:123456789012:topic"}
    aws.client("events").put_targets(Rule=bus.add_rule({"source": ["aws.ecs"]}), Targets=[target])
    with pytest.raises(NotImplementedError, match="only plain Lambda and SQS targets"):
        bus.router.check_rules()


def test_event_reaches_the_queue_that_a_rule_names(bus: Bus, aws: EmulatedAws) -> None:
    sqs = aws.client("sqs")
    queue_url = sqs.create_queue(QueueName="ecs-events")["QueueUrl"]
    target = {"Id": "1", "Arn": "arn:aws:sqs:us-east-1:123456789012:ecs-events"}
    aws.client("events").put_targets(Rule=bus.add_rule({"source": ["aws.ecs"]}), Targets=[target])
    bus.router.put(make_event(7))
    bus.router.put({**make_event(8), "source": "somebody"})
    bodies = [m["Body"] for m in sqs.receive_message(QueueUrl=queue_url)["Messages"]]
    assert [json.loads(body) for body in bodies] == [make_event(7)]
    assert bus.invoked == []


def test_mischief_duplicates_and_drops(bus: Bus) -> None:
    bus.add_rule({"source": ["aws.ecs"]})
    bus.router.mischief = drop(lambda event: event["detail"]["version"] == 2, duplicate(3))
    bus.router.put(make_event(1))
    bus.router.put(make_event(2))
    assert bus.versions() == [1, 1, 1]


def test_mischief_of_a_run_touches_no_other_runs_events(bus: Bus) -> None:
    bus.add_rule({"source": ["aws.ecs"]})
    bus.router.mischief_of["one"] = duplicate(2)
    for version, run in enumerate(("one", "another")):
        environment = [{"name": "PREFECT__FLOW_RUN_ID", "value": run}]
        overrides = {"containerOverrides": [{"environment": environment}]}
        bus.router.put(make_event(version, overrides=overrides))
    assert bus.versions() == [0, 0, 1]


def test_mischief_delays_the_chosen_events(bus: Bus) -> None:
    bus.add_rule({"source": ["aws.ecs"]})
    bus.router.mischief = delay(lambda event: event["detail"]["version"] == 1, 0.2)
    started = time.monotonic()
    bus.router.put(make_event(1))
    bus.router.put(make_event(2))
    assert bus.versions() == [2]
    assert bus.router.pending == 1
    wait_until(lambda: bus.versions() == [2, 1])
    assert time.monotonic() - started >= 0.2
    wait_until(lambda: bus.router.pending == 0)


def test_mischief_shuffles_the_same_way_for_the_same_seed() -> None:
    def delays(seed: int) -> list[float]:
        mischief = shuffle(seed, 5.0, duplicate(2))
        return [d.delay_seconds for _ in range(3) for d in mischief(make_event())]

    assert delays(1) == delays(1) != delays(2)
    assert all(0 <= seconds <= 5 for seconds in delays(1))
    assert deliver_once(make_event()) == [Delivery(make_event(), 0.0)]


def test_schedule_fires_at_its_shortened_rate(bus: Bus) -> None:
    rule = bus.add_rule(schedule="rate(1 minute)", function="sweep")
    bus.router.run_schedules(scale=0.2 / 60)
    wait_until(lambda: len(bus.invoked) >= 2)
    name, event = bus.invoked[0]
    assert name == "sweep"
    assert event["detail-type"] == "Scheduled Event"
    assert event["resources"][0].endswith(rule)


def test_closed_router_delivers_nothing(bus: Bus) -> None:
    bus.add_rule({"source": ["aws.ecs"]})
    bus.router.mischief = delay(lambda _: True, 0.1)
    bus.router.put(make_event())
    bus.router.close()
    time.sleep(0.2)
    assert bus.invoked == []
