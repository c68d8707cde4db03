"""Both event patterns against generated events: two matchers, and what the patterns are to mean.

MiniStack's matcher answers as TestEventPattern does; the embedded cloud's router asks moto's.
"""

import copy
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pytest
from moto.events.models import EventPattern

from app import FARGATE_STOPS, SPOT_EVENTS
from tests.make import CLUSTER_ARN, make_event
from tests.second_aws.server import ask

ABSENT: Final = object()
WAKING: Final = (
    "SpotInterruption",
    "TerminationNotice",
    "TaskFailedToStart",
    "InfrastructureHealth",
)
"""Stop codes that wake `react` whatever the rest of the event says."""
VALUES: Final[Mapping[str, tuple[object, ...]]] = {
    "stopCode": (
        *WAKING,
        *("EssentialContainerExited", "UserInitiated", "ServiceSchedulerInitiated"),
        *("spotinterruption", "SpotInterruption ", "", None, ABSENT),
    ),
    "stoppedReason": (
        *("Your Spot Task was interrupted.", "prefect-spot drill 7", "exited"),
        *("your spot task was interrupted.", " prefect-spot drill", "", None, ABSENT),
    ),
    "capacityProviderName": ("FARGATE_SPOT", "FARGATE", "fargate_spot", "mine", "", None, ABSENT),
    "lastStatus": (
        *("RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"),
        *("stopped", None, ABSENT),
    ),
}
PLACES: Final[Mapping[str, tuple[object, ...]]] = {
    "launchType": ("FARGATE", "EC2", "EXTERNAL", "MANAGED_INSTANCES", "fargate", "", None, ABSENT),
    "clusterArn": (
        *(CLUSTER_ARN, f"{CLUSTER_ARN}-2", CLUSTER_ARN.replace("/", "/my-"), CLUSTER_ARN.upper()),
        *(CLUSTER_ARN.replace("us-east-1", "eu-west-1"), "prefect-spot-dev", "", None, ABSENT),
    ),
}
ENVELOPES: Final = (
    *({"source": "aws.ecs"}, {"source": "AWS.ECS"}, {"source": "prefect"}),
    *({"detail-type": "ECS Service Action"}, {"detail-type": "ecs task state change"}),
)
ORDINARY: Final = {"launchType": "FARGATE", "clusterArn": CLUSTER_ARN}
INTERRUPTED: Final = {"stopCode": "SpotInterruption", "lastStatus": "STOPPED"}


def events() -> Iterator[dict[str, Any]]:
    """Every combination of what ends a task; every place with some ends; and other envelopes."""
    for values in itertools.product(*VALUES.values()):
        yield event({**ORDINARY, **dict(zip(VALUES, values, strict=True))})
    ends = [{**INTERRUPTED, "lastStatus": status} for status in VALUES["lastStatus"]]
    for places in itertools.product(*PLACES.values()):
        for end in ends:
            yield event({**end, **dict(zip(PLACES, places, strict=True))})
    for envelope in ENVELOPES:
        yield event({**INTERRUPTED, **ORDINARY}, **envelope)


def event(detail: Mapping[str, object], **envelope: Any) -> dict[str, Any]:
    made = make_event(**envelope)
    made["detail"].pop("stoppedReason")
    made["detail"].pop("capacityProviderName")
    made["detail"].update(detail)
    made["detail"] = {k: v for k, v in made["detail"].items() if v is not ABSENT}
    return made


EVENTS: Final = list(events())


def is_ours(event: Mapping[str, Any]) -> bool:
    """A Fargate task's event in the stage's cluster."""
    detail = event["detail"]
    return (
        (event["source"], event["detail-type"]) == ("aws.ecs", "ECS Task State Change")
        and str(detail.get("clusterArn", "")).endswith(":cluster/prefect-spot-dev")
        and detail.get("launchType", "FARGATE") == "FARGATE"
    )


def wakes_react(event: Mapping[str, Any]) -> bool:
    detail = event["detail"]
    code, reason = detail.get("stopCode"), detail.get("stoppedReason") or ""
    return is_ours(event) and (
        code in WAKING
        or reason.startswith(("Your Spot Task was interrupted", "prefect-spot drill"))
        or (
            detail.get("capacityProviderName") == "FARGATE_SPOT"
            and detail.get("lastStatus") in ("DEPROVISIONING", "STOPPED")
        )
    )


def wakes_meter(event: Mapping[str, Any]) -> bool:
    return is_ours(event) and event["detail"].get("lastStatus") == "STOPPED"


MEANT: Final[Mapping[str, tuple[Any, Callable[[Mapping[str, Any]], bool]]]] = {
    "react": (SPOT_EVENTS, wakes_react),
    "meter": (FARGATE_STOPS, wakes_meter),
}


def disagreements(pattern: object, meant: Callable[[Mapping[str, Any]], bool]) -> list[Any]:
    """Events, with the answers, on which MiniStack, the embedded router and the meaning differ."""
    answers = ask("patterns", [(json.dumps(pattern), event) for event in EVENTS])
    router: Any = EventPattern.load(json.dumps(pattern))
    return [
        (event["detail"], theirs, ours, meant(event))
        for event, theirs in zip(EVENTS, answers, strict=True)
        if not theirs == (ours := bool(router.matches_event(event))) == meant(event)
    ]


@pytest.fixture(scope="module")
def found(judged: dict[str, Any]) -> dict[str, int]:
    counted: dict[str, int] = judged.setdefault("patterns", {"events": len(EVENTS), "disagree": 0})
    return counted


@pytest.mark.parametrize("function", MEANT)
def test_a_pattern_means_the_same_to_every_matcher_and_to_us(
    function: str, found: dict[str, int]
) -> None:
    pattern, meant = MEANT[function]
    assert {meant(event) for event in EVENTS} == {True, False}
    differ = disagreements(pattern, meant)
    found["disagree"] += len(differ)
    assert differ == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("$or", 0, "stopCode", 1), "TerminationNotce"),
        (("$or", 1, "stoppedReason", 0), {"suffix": "Your Spot Task was interrupted"}),
        (("$or", 2, "lastStatus"), ["STOPPED"]),
        (("launchType",), ["FARGATE"]),
        (("clusterArn", 0), {"prefix": "arn:"}),
        (("clusterArn", 0), {"sufix": ":cluster/prefect-spot-dev"}),
    ],
    ids=["code", "reason", "status", "launch type", "cluster", "unknown operator"],
)
def test_a_planted_mistake_in_a_pattern_is_noticed(path: tuple[Any, ...], value: object) -> None:
    pattern = copy.deepcopy(SPOT_EVENTS)
    place = pattern["detail"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert disagreements(pattern, wakes_react) != []
