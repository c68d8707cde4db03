"""Fault scenarios: what Prefect, AWS and the event bus do wrong while a run is rescued.

In each scenario only what it names goes wrong, for one run: faults are meant for the requests that
speak of that run or its task. That the same end is reached wherever a single call fails, and with
events in any order: `tests/faults` and `tests/laws`. Here the deployed zip meets real connections,
Lambda's retries and a real Prefect server.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from localcloud.events import Delivery, DeliveryPlan, Event, deliver_once, drop
from localcloud.fault_proxy import (
    Answer,
    Cut,
    Fault,
    Hang,
    LoseAnswer,
    Plan,
    Reset,
    either,
    first,
    fraction,
    matching,
    nth,
    throttle,
)
from tests.e2e.scenario import Run, Stage
from tests.system.simulated_worker import FLOW

T = TypeVar("T")

READ_RUN = r"^GET /api/flow_runs/[^/]+ "
READ_HISTORY = r"^GET /api/flow_run_states/"
SET_STATE = r"^POST /api/flow_runs/.*/set_state"
PATCH = r"^PATCH /api/flow_runs/[^/]+ [^\n]*\n.*empirical_policy"
LABELS = r"^PATCH /api/flow_runs/.*/labels"
LOG = r"^POST /api/logs/"
ARTIFACT = r"^POST /api/artifacts/"
EVENT = r"^POST /api/events.*\n.*prefect-spot\.rerun"

ACQUIRE = r"DynamoDB_\d+\.UpdateItem\n.*lease_until < :now"
SAVE = r"DynamoDB_\d+\.UpdateItem\n(?!.*REMOVE lease_owner).*SET interruptions"
RELEASE = r"DynamoDB_\d+\.UpdateItem\n.*REMOVE lease_owner"
READ_RECORD = r"DynamoDB_\d+\.GetItem"
DESCRIBE = r"\.DescribeTasks"

TOO_MANY = Answer(429, {"Retry-After": "1"})
BROKEN = Answer(500, {"Content-Type": "application/json"}, b'{"exception_message": "oh"}')
BUSY = Answer(503, {"Content-Type": "text/plain"}, b"Service Unavailable")
UNAUTHORIZED = Answer(401, {"Content-Type": "application/json"}, b'{"detail": "Unauthorized"}')
SILENCE = Hang(40)
"""Longer than Lambda lets a try last."""
TABLE_BUSY = throttle("ProvisionedThroughputExceededException")

ADDING = threading.Lock()
"""Held while a scenario adds its plan to those of a proxy."""


@dataclass(frozen=True)
class FaultScenario:
    """One interruption, and what goes wrong around it; `least` is how often it has to."""

    name: str
    prefect: Plan | None = None
    aws: Plan | None = None
    events: DeliveryPlan = deliver_once
    least: int = 1

    def __call__(self, stage: Stage) -> Sequence[Run]:
        happened: list[object] = []

        def noted(fault: T) -> T:
            happened.append(fault)
            return fault

        def deliveries(event: Event) -> Sequence[Delivery]:
            """Only stop events suffer: a change would make one of any other event."""
            if event["detail"]["desiredStatus"] != "STOPPED":
                return deliver_once(event)
            found = self.events(event)
            return found if list(found) == [Delivery(event)] else noted(found)

        def noting(plan: Plan) -> Plan:
            return lambda request: noted(fault) if (fault := plan(request)) else None

        run = stage.start(FLOW, tags=("spot-retries:3",), event_faults=deliveries, seconds=1)
        run.wait_for_start(1)
        names = (run.id, run.containers()[-1].task_arn)
        for plan, proxy in (
            (self.prefect, stage.cloud.prefect_faults),
            (self.aws, stage.cloud.aws_faults),
        ):
            if plan and proxy:
                with ADDING:
                    proxy.plan = either(proxy.plan, matching("|".join(names), noting(plan)))
        run.interrupt()
        run.completes(starts=2)
        assert run.capacities() == ["FARGATE_SPOT"] * 2
        assert len(happened) >= self.least, f"not as much went wrong as planned: {happened}"
        return (run,)


def each_once(fault: Fault, *operations: str) -> Plan:
    """The first request of each kind."""
    return either(*(matching(operation, nth(1, fault)) for operation in operations))


def is_warning(event: Event) -> bool:
    return bool(event["detail"]["lastStatus"] == "RUNNING")


def exits_say_essential_container(event: Event) -> Sequence[Delivery]:
    """As for a task that exits by itself within the two minutes."""
    code = "EssentialContainerExited"
    detail = {**event["detail"], "stopCode": code, "stoppedReason": "Essential container exited"}
    return [Delivery(event if is_warning(event) else {**event, "detail": detail})]


def as_short_as_the_guides(event: Event) -> Sequence[Delivery]:
    """Neither overrides nor times nor containers."""
    kept = {
        *("taskArn", "clusterArn", "lastStatus", "desiredStatus"),
        *("stopCode", "stoppedReason", "capacityProviderName"),
    }
    detail = {k: v for k, v in event["detail"].items() if k in kept}
    return [Delivery({**event, "detail": detail})]


ALL = (
    FaultScenario(
        "Prefect answers 429 with Retry-After",
        prefect=matching(SET_STATE, first(2, TOO_MANY)),
        least=2,
    ),
    FaultScenario("Prefect answers 500 once", prefect=matching(PATCH, nth(1, BROKEN))),
    FaultScenario("Prefect answers 503 several times", prefect=first(4, BUSY), least=4),
    FaultScenario(
        "Prefect answers 401 until the credential is replaced",
        prefect=first(4, UNAUTHORIZED),
        least=2,
    ),
    FaultScenario(
        "connections to Prefect are reset",
        prefect=each_once(Reset(), READ_RUN, SET_STATE, PATCH, LOG, ARTIFACT, EVENT, LABELS),
        least=7,
    ),
    FaultScenario(
        "Prefect's answers are cut in the middle",
        prefect=each_once(Cut(20), READ_RUN, READ_HISTORY, SET_STATE, ARTIFACT),
        least=4,
    ),
    FaultScenario(
        "a fifth of Prefect's answers are lost, and a tenth are 503",
        prefect=either(fraction(1, 0.2, LoseAnswer()), fraction(2, 0.1, BUSY)),
    ),
    FaultScenario(
        "each of Prefect's answers is lost after it took effect",
        prefect=either(
            matching(SET_STATE, first(2, LoseAnswer())),
            each_once(LoseAnswer(), PATCH, LOG, ARTIFACT, LABELS, EVENT),
        ),
        least=7,
    ),
    FaultScenario(
        "Prefect is silent when the run is parked", prefect=matching(SET_STATE, nth(1, SILENCE))
    ),
    FaultScenario(
        "Prefect is silent when the run is made due", prefect=matching(SET_STATE, nth(2, SILENCE))
    ),
    FaultScenario(
        "each call of the table is throttled",
        aws=either(*(matching(x, first(3, TABLE_BUSY)) for x in (ACQUIRE, SAVE, RELEASE))),
        least=9,
    ),
    FaultScenario(
        "the table is throttled for longer than a try lasts",
        aws=matching(SAVE, first(11, TABLE_BUSY)),
    ),
    FaultScenario(
        "the read of the record is throttled, and the last stop code says nothing of Spot",
        aws=matching(READ_RECORD, first(3, TABLE_BUSY)),
        events=exits_say_essential_container,
        least=5,
    ),
    FaultScenario(
        "DescribeTasks is throttled, and events lack what it has",
        aws=matching(DESCRIBE, first(3, throttle())),
        events=as_short_as_the_guides,
        least=5,
    ),
    FaultScenario(
        "each of the table's answers is lost after it took effect",
        aws=each_once(LoseAnswer(), ACQUIRE, SAVE, RELEASE),
    ),
    FaultScenario(
        "connections to the table are reset", aws=each_once(Reset(), ACQUIRE, SAVE, RELEASE)
    ),
    FaultScenario(
        "the table is silent until Lambda ends the try", aws=matching(SAVE, nth(1, SILENCE))
    ),
    FaultScenario("there is no warning", events=drop(is_warning)),
)
SCENARIOS = {scenario.name: scenario for scenario in ALL}
