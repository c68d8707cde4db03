"""Other consumers of the account's ECS task events: prefect-aws's observer marks runs Crashed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.core.model.policy import Mode
from spotctl.context import Context
from spotctl.output import Row, ok, warning

DEFAULT_QUEUE: Final = "prefect-ecs-tasks-events"
"""The queue that prefect-aws's observer reads by default."""

DEPLOYED_QUEUE_END: Final = "-ecs-events"
"""The end of the name of a queue created by `prefect-aws ecs-worker deploy-events`."""


@dataclass(frozen=True, slots=True)
class Observer:
    """A rule that sends ECS's task changes to a queue of prefect-aws's observer."""

    rule: str
    queue: str


def read(context: Context) -> tuple[Observer, ...]:
    """Return the enabled rules with an observer's queue as target. Raises botocore's errors."""
    events = context.aws.client("events")
    pages = events.get_paginator("list_rules").paginate()
    return tuple(
        Observer(rule["Name"], target["Arn"].rpartition(":")[2])
        for page in pages
        for rule in page["Rules"]
        if rule.get("State") == "ENABLED" and _is_about_tasks(rule.get("EventPattern"))
        for target in events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        if ":sqs:" in target["Arn"] and is_an_observers(target["Arn"].rpartition(":")[2])
    )


def is_an_observers(queue: str) -> bool:
    """Whether a queue's name is one that prefect-aws gives its observer's queue."""
    return queue == DEFAULT_QUEUE or queue.endswith(DEPLOYED_QUEUE_END)


def rows(observers: tuple[Observer, ...], mode: Mode) -> list[Row]:
    """Return a warning per observer; in a mode that ends no run it is what does."""
    if not observers:
        return [ok("other observers", "none")]
    if not mode.ends_runs:
        rules = ", ".join(observer.rule for observer in observers)
        return [ok("other observers", f"{rules}; in MODE observe they go on marking runs Crashed")]
    return [
        warning(
            f"observer {observer.rule}",
            f"it sends task changes to {observer.queue}: a worker that reads it marks"
            " interrupted runs Crashed, and by a stale event a rerun too",
            f"disable the rule {observer.rule} (aws events disable-rule --name {observer.rule}):"
            " prefect-aws 0.7.12 does not read its own setting that should turn the observer off",
        )
        for observer in observers
    ]


def _is_about_tasks(pattern: str | None) -> bool:
    parsed: Mapping[str, Any] = json.loads(pattern) if pattern else {}
    kinds = parsed.get("detail-type", [])
    return "aws.ecs" in parsed.get("source", []) and "ECS Task State Change" in kinds
