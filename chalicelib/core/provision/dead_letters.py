"""What keeps an event that nobody could handle: dead-letter queues, retries, destinations.

A deploy writes each rule's target anew, without queue or retry policy, and knows no event-invoke
config; so this is no part of the stack, but is put back by API whenever it differs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

RETRY_POLICY: Final[Mapping[str, int]] = {
    "MaximumRetryAttempts": 185,
    "MaximumEventAgeInSeconds": 86_400,
}
"""EventBridge's own, spelt out: with a queue behind it, nothing is gained by giving up earlier."""

Target = Mapping[str, object]
"""A rule's target, as EventBridge gives and takes it."""


@dataclass(frozen=True, slots=True)
class InvokeConfig:
    """How Lambda treats an asynchronous event; `on_failure` is the ARN of what it gets last."""

    on_failure: str
    retries: int = 2
    age_seconds: int = 21_600


@dataclass(frozen=True, slots=True)
class Delivery:
    """How events come to a function: its rules' targets, by the rule, and its event-invoke config.

    A function without rules is not deployed: each of ours is woken by one.
    """

    function: str
    arn: str
    targets: Mapping[str, tuple[Target, ...]]
    invoke_config: InvokeConfig | None


@dataclass(frozen=True, slots=True)
class PutTargets:
    """Give a rule's targets their dead-letter queue and retry policy."""

    rule: str
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class PutInvokeConfig:
    """Give a function its retries and its on-failure destination."""

    function: str
    config: InvokeConfig


def delivery_steps(
    deliveries: Iterable[Delivery], queue_arn: str
) -> tuple[PutTargets | PutInvokeConfig, ...]:
    """Return what has to be put so that `queue_arn` gets what was given up; nothing if all is."""
    steps: list[PutTargets | PutInvokeConfig] = []
    for delivery in deliveries:
        for rule, targets in delivery.targets.items():
            wanted = {**_POLICY, "DeadLetterConfig": {"Arn": queue_arn}}
            ours = [target for target in targets if target.get("Arn") == delivery.arn]
            changed = tuple({**t, **wanted} for t in ours if {**t, **wanted} != t)
            if changed:
                steps.append(PutTargets(rule, changed))
        config = InvokeConfig(queue_arn)
        if delivery.targets and delivery.invoke_config != config:
            steps.append(PutInvokeConfig(delivery.function, config))
    return tuple(steps)


_POLICY: Final[Target] = {"RetryPolicy": dict(RETRY_POLICY)}
