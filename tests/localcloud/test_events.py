"""The emulated EventBridge delivers by moto's rules and by the delivery plan."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from app import FARGATE_STOPS, SPOT_EVENTS
from localcloud.aws import EmulatedAws
from localcloud.events import EventRouter, delay, drop, duplicate
from tests.localcloud.cloud import wait_until
from tests.make import make_event as task_event

ARN = "arn:aws:{}:us-east-1:123456789012:{}"
OF_ECS = {"source": ["aws.ecs"]}


class Bus:
    """A router whose invocations are only written down."""

    def __init__(self, aws: EmulatedAws) -> None:
        self.invoked: list[tuple[str, Any]] = []
        self.router = EventRouter(aws, lambda name, event: self.invoked.append((name, event)))
        self._client = aws.client("events")

    def add_rule(
        self, pattern: Any, target: str = ARN.format("lambda", "function:react"), **rule: str
    ) -> None:
        name = f"rule-{uuid.uuid4().hex[:8]}"
        how = {"EventPattern": json.dumps(pattern)} if pattern else {}
        self._client.put_rule(Name=name, **how, **rule)
        self._client.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": target}])

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


def test_event_reaches_the_functions_and_queues_whose_rules_match(
    bus: Bus, aws: EmulatedAws
) -> None:
    sqs = aws.client("sqs")
    queue_url = sqs.create_queue(QueueName="ecs-events")["QueueUrl"]
    bus.add_rule(OF_ECS)
    reason = {"stoppedReason": [{"prefix": "Your Spot"}]}
    bus.add_rule({"detail": reason}, ARN.format("lambda", "function:meter"))
    bus.add_rule({"detail": reason}, ARN.format("sqs", "ecs-events"))
    bus.add_rule(OF_ECS, State="DISABLED")
    bus.add_rule(None, ScheduleExpression="rate(5 minutes)")
    bus.router.put(make_event(stoppedReason="Your Spot Task was interrupted."))
    bus.router.put(make_event(stoppedReason="Scaling"))
    assert [name for name, _ in bus.invoked] == ["react", "meter", "react"]
    [message] = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10)["Messages"]
    assert json.loads(message["Body"]) == bus.invoked[0][1]
    bus.add_rule(OF_ECS, ARN.format("sns", "topic"))
    with pytest.raises(NotImplementedError, match="only plain Lambda and SQS targets"):
        bus.router.put(make_event())


def test_tasks_on_ec2_wake_no_function(bus: Bus) -> None:
    bus.add_rule(SPOT_EVENTS)
    bus.add_rule(FARGATE_STOPS, ARN.format("lambda", "function:meter"))
    taken = {"stopCode": "TerminationNotice", "lastStatus": "STOPPED"}
    for launch_type in ("EC2", "EXTERNAL", "MANAGED_INSTANCES", "FARGATE", None):
        bus.router.put(task_event({**taken, "launchType": launch_type}))
    assert [name for name, _ in bus.invoked] == ["react", "meter"] * 2


def test_tasks_of_another_teams_cluster_wake_no_function(bus: Bus) -> None:
    bus.add_rule(SPOT_EVENTS)
    bus.add_rule(FARGATE_STOPS, ARN.format("lambda", "function:meter"))
    for cluster in ("another", "not-prefect-spot-dev", "prefect-spot-dev-2", "prefect-spot-dev"):
        arn = ARN.format("ecs", f"cluster/{cluster}")
        bus.router.put(task_event({"lastStatus": "STOPPED", "clusterArn": arn}))
    assert [name for name, _ in bus.invoked] == ["react", "meter"]


def test_a_runs_delivery_plan_touches_no_other_runs_events(bus: Bus) -> None:
    bus.add_rule(OF_ECS)
    bus.router.plan = drop(lambda event: event["detail"]["version"] == 2)
    bus.router.plan_of["one"] = duplicate(2)
    for version, run in enumerate(("one", "another", "a third")):
        environment = [{"name": "PREFECT__FLOW_RUN_ID", "value": run}]
        overrides = {"containerOverrides": [{"environment": environment}]}
        bus.router.put(make_event(version, overrides=overrides))
    assert bus.versions() == [0, 0, 1]


def test_chosen_events_are_delayed_until_the_router_is_closed(bus: Bus) -> None:
    bus.add_rule(OF_ECS)
    bus.router.plan = delay(lambda event: event["detail"]["version"] == 1, 2)
    bus.router.put(make_event(1))
    bus.router.put(make_event(2))
    assert (bus.versions(), bus.router.pending) == ([2], 1)
    wait_until(lambda: bus.versions() == [2, 1])
    wait_until(lambda: bus.router.pending == 0)
    bus.router.put(make_event(1))
    bus.router.close()
    bus.router.put(make_event(3))
    assert bus.versions() == [2, 1]
