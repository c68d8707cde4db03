"""EventBridge on the laptop: events find their targets by the rules that `chalice deploy` made.

A wrong rule fails here, not in production. A delivery plan has events delivered twice, late, in
another order or never, as at-least-once delivery may do.
"""

import json
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from moto.events.models import Rule

from localcloud.aws import EmulatedAws
from localcloud.containers import overridden_environment
from localcloud.task_life import FLOW_RUN_ID

Event = dict[str, Any]
SECONDS_OF = {"minute": 60, "hour": 3600, "day": 86400}


@dataclass(frozen=True)
class Delivery:
    """One delivery of an event, some seconds after it was put."""

    event: Event
    delay_seconds: float = 0.0


DeliveryPlan = Callable[[Event], Sequence[Delivery]]


def deliver_once(event: Event) -> Sequence[Delivery]:
    """Deliver once, without delay."""
    return [Delivery(event)]


def duplicate(times: int, then: DeliveryPlan = deliver_once) -> DeliveryPlan:
    """Deliver everything `times` times."""
    return lambda event: [delivery for _ in range(times) for delivery in then(event)]


def drop(predicate: Callable[[Event], bool]) -> DeliveryPlan:
    """Never deliver the events that `predicate` chooses."""
    return lambda event: [] if predicate(event) else deliver_once(event)


def delay(predicate: Callable[[Event], bool], seconds: float) -> DeliveryPlan:
    """Deliver the events that `predicate` chooses some seconds later."""
    return lambda event: [Delivery(event, seconds if predicate(event) else 0.0)]


def shuffle(seed: int, within_seconds: float) -> DeliveryPlan:
    """Deliver everything after a random time of at most `within_seconds`: in any order."""
    chance = random.Random(seed)
    return lambda event: [Delivery(event, chance.uniform(0, within_seconds))]


def flow_run_of(event: Event) -> str:
    """Return the id of the flow run that the event's task runs, "" where it names none."""
    detail = event.get("detail")
    overrides = detail.get("overrides") if isinstance(detail, dict) else None
    return overridden_environment(overrides or {}).get(FLOW_RUN_ID, "")


class EventRouter:
    """Hands events to the Lambdas and queues that moto's rules name.

    Schedules are not fired: a test does that, or the kept demo, as often as `schedules` says.

    `invoke(function_name, event)` must not block: it is an asynchronous invocation. `plan_of`
    holds, by a flow run's id, what happens to the events of its tasks; `plan` is for all other.
    """

    def __init__(self, aws: EmulatedAws, invoke: Callable[[str, Event], object]) -> None:
        self.plan: DeliveryPlan = deliver_once
        self.plan_of: dict[str, DeliveryPlan] = {}
        self.delivered: list[Event] = []  # to functions
        self._aws = aws
        self._invoke = invoke
        self._timers: list[threading.Timer] = []
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what is still to be delivered."""
        self._closed.set()
        for timer in self._timers:
            timer.cancel()

    @property
    def pending(self) -> int:
        """How many deliveries are still on their way."""
        return sum(timer.is_alive() for timer in self._timers)

    def schedules(self) -> dict[str, float]:
        """Return how far apart, in seconds, the deployed schedules fire each function."""
        rates = {}
        for rule in self._rules():
            if rule.scheduled_expression:
                text = rule.scheduled_expression.removeprefix("rate(").removesuffix(")")
                number, unit = text.split()
                for target in rule.targets:
                    function = _arn_of(rule, target).rpartition(":")[2]
                    rates[function] = float(number) * SECONDS_OF[unit.removesuffix("s")]
        return rates

    def put(self, event: Event) -> None:
        """Match the event as it arrives, and deliver it as its run's plan says.

        Raises NotImplementedError for a target that is neither a function nor a queue.
        """
        for delivery in self.plan_of.get(flow_run_of(event), self.plan)(event):
            for rule in self._rules():
                pattern = rule.event_pattern.get_pattern()
                # A schedule has no pattern, and an empty pattern would match everything.
                if pattern and rule.event_pattern.matches_event(delivery.event):  # type: ignore[arg-type]  # any event
                    for target in rule.targets:
                        self._deliver(_arn_of(rule, target), delivery)

    def _rules(self) -> list[Rule]:
        rules = self._aws.events.event_buses["default"].rules
        return [rule for rule in list(rules.values()) if rule.state == "ENABLED"]

    def _deliver(self, arn: str, delivery: Delivery) -> None:
        if delivery.delay_seconds <= 0:
            self._hand_over(arn, delivery.event)
            return
        timer = threading.Timer(delivery.delay_seconds, self._hand_over, (arn, delivery.event))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _hand_over(self, arn: str, event: Event) -> None:
        if self._closed.is_set():
            return
        if ":sqs:" in arn:
            self._aws.send(arn, event)
            return
        function_name = arn.split(":function:")[1].split(":")[0]
        self.delivered.append(event)
        self._invoke(function_name, json.loads(json.dumps(event)))  # each function gets a copy


def _arn_of(rule: Rule, target: dict[str, Any]) -> str:
    arn = str(target["Arn"])
    transformed = {"Input", "InputPath", "InputTransformer"} & target.keys()
    if transformed or not (":lambda:" in arn or ":sqs:" in arn):
        raise NotImplementedError(
            f"rule {rule.name}: only plain Lambda and SQS targets are emulated, not {target}"
        )
    return arn
