"""Others who listen to the account's ECS tasks: prefect-aws's observer crashes runs on its own."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from spotctl.context import Context
from spotctl.rows import Row, ok, warning

DEFAULT_QUEUE: Final = "prefect-ecs-tasks-events"
"""The queue that prefect-aws's observer reads unless it is told otherwise."""

DEPLOYED_QUEUE_END: Final = "-ecs-events"
"""How the queue's name ends that `prefect-aws ecs-worker deploy-events` makes."""


@dataclass(frozen=True, slots=True)
class Observer:
    """A rule that sends ECS's task changes to a queue of prefect-aws's observer."""

    rule: str
    queue: str


def look(context: Context) -> tuple[Observer, ...]:
    """Ask EventBridge for rules about ECS tasks, and where they lead. Raises botocore's errors."""
    events = context.aws.client("events")
    return tuple(
        Observer(rule, queue)
        for rule in _rules_about_tasks(events)
        for queue in _queues(events, rule)
        if is_an_observers(queue)
    )


def is_an_observers(queue: str) -> bool:
    """Whether a queue is named as prefect-aws names the one of its observer."""
    return queue == DEFAULT_QUEUE or queue.endswith(DEPLOYED_QUEUE_END)


def rows(observers: tuple[Observer, ...]) -> list[Row]:
    """Warn of each observer."""
    if not observers:
        return [ok("other observers", "none")]
    return [
        warning(
            f"observer {observer.rule}",
            f"it sends task changes to {observer.queue}: a worker that reads there marks"
            " interrupted runs Crashed, and may crash a rerun by late news",
            f"disable the rule {observer.rule} (aws events disable-rule --name {observer.rule}):"
            " prefect-aws 0.7.12 does not read its own setting that should turn the observer off",
        )
        for observer in observers
    ]


def _rules_about_tasks(events: Any) -> Iterator[str]:
    for page in events.get_paginator("list_rules").paginate():
        for rule in page["Rules"]:
            if rule.get("State") == "ENABLED" and _is_about_tasks(rule.get("EventPattern")):
                yield rule["Name"]


def _is_about_tasks(pattern: str | None) -> bool:
    parsed: Mapping[str, Any] = json.loads(pattern) if pattern else {}
    kinds = parsed.get("detail-type", [])
    return "aws.ecs" in parsed.get("source", []) and "ECS Task State Change" in kinds


def _queues(events: Any, rule: str) -> Iterator[str]:
    for target in events.list_targets_by_rule(Rule=rule)["Targets"]:
        if ":sqs:" in target["Arn"]:
            yield str(target["Arn"]).rpartition(":")[2]
