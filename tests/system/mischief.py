"""What an event may look like on a bad day, and in which order events may come."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from localcloud.events import Delivery, Event

SPOT = "Your Spot Task was interrupted."
HOSTILE_TEXTS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![i](//evil.example/i.png)",
    "http://evil.example/x",
    "`code`",
    "**bold** ~~gone~~",
    "| cell |\n\n# heading\n- item\n",
    "\x1b[31mred\x1b[0m \u202eelbisivni",
    "${jndi:ldap://evil.example} %s {0}",
    '","level":"forged","x":"',
)
KILOBYTE = 1024
MALFORMED = "malformed"
"""Id of all malformed events, to know them by."""


def is_warning(event: Event) -> bool:
    return bool(event["detail"]["lastStatus"] == "RUNNING")


def is_not_the_last(event: Event) -> bool:
    return bool(event["detail"]["lastStatus"] == "DEPROVISIONING")


def last_first(event: Event) -> Sequence[Delivery]:
    """The warning last of all."""
    late = {"RUNNING": 8.0, "DEPROVISIONING": 4.0}
    return [Delivery(event, late.get(event["detail"]["lastStatus"], 0.0))]


def changed(event: Event, change: Callable[[dict[str, Any]], object]) -> Event:
    """Return a copy of the event, its detail changed by `change`."""
    copy: Event = json.loads(json.dumps(event))
    change(copy["detail"])
    return copy


def exits_say_essential_container(event: Event) -> Sequence[Delivery]:
    """As for a task that exits by itself within the two minutes."""
    said = {
        "stopCode": "EssentialContainerExited",
        "stoppedReason": "Essential container in task exited",
    }
    if is_warning(event):
        return [Delivery(event)]
    return [Delivery(changed(event, lambda detail: detail.update(said)))]


def as_short_as_the_guides(event: Event) -> Sequence[Delivery]:
    """Neither overrides nor times nor containers."""
    kept = {
        *("taskArn", "clusterArn", "lastStatus", "desiredStatus"),
        *("stopCode", "stoppedReason", "capacityProviderName"),
    }
    short = {**event, "detail": {k: v for k, v in event["detail"].items() if k in kept}}
    return [Delivery(short)]


def with_malformed_ones(event: Event) -> Sequence[Delivery]:
    """Before the event, five that match the rule as well and are no good."""
    unknown = event["detail"]["taskArn"][:-8] + "00000000"
    wrong_types: dict[str, Any] = {
        "cpu": {},
        "memory": [1],
        "containers": "all",
        "attributes": {"name": 1},
        "createdAt": 5,
        "version": "x",
        "availabilityZone": ["a"],
    }
    changes: list[dict[str, Any]] = [
        {"taskArn": None},
        {"clusterArn": 7, "overrides": []},
        {"taskArn": "arn:aws:ecs", "overrides": {"containerOverrides": [None, {"name": {}}]}},
        {"taskArn": unknown, "overrides": {"containerOverrides": {}}},
        wrong_types,
    ]
    malformed = [
        {**event, "id": MALFORMED, "detail": {**event["detail"], **change}} for change in changes
    ]
    return [*map(Delivery, malformed), Delivery(event)]


def oversized(event: Event) -> Sequence[Delivery]:
    """200 KB, in the places that whoever writes a deployment, or ECS itself, could fill."""

    def swell(detail: dict[str, Any]) -> None:
        detail["stoppedReason"] = (SPOT + " x" * 40 * KILOBYTE)[: 60 * KILOBYTE]
        detail["availabilityZone"] = "z" * 60 * KILOBYTE
        _environment(detail).append({"name": "BIG", "value": "b" * 80 * KILOBYTE})

    return [Delivery(changed(event, swell))]


def hostile(event: Event) -> Sequence[Delivery]:
    """Each text by turns in the reason and the zone; all of them in the environment."""
    turn = {"RUNNING": 0, "DEPROVISIONING": 1}.get(event["detail"]["lastStatus"], 2)

    def poison(detail: dict[str, Any]) -> None:
        detail["stoppedReason"] = f"{SPOT} {' '.join(HOSTILE_TEXTS[turn::3])}"
        detail["availabilityZone"] = " ".join(HOSTILE_TEXTS)
        _environment(detail)[:0] = [{"name": text, "value": text} for text in HOSTILE_TEXTS]
        _environment(detail).insert(0, {"name": "PREFECT__FLOW_RUN_ID", "value": "' OR 1=1"})

    return [Delivery(changed(event, poison))]


def _environment(detail: dict[str, Any]) -> list[dict[str, str]]:
    environment: list[dict[str, str]] = detail["overrides"]["containerOverrides"][0]["environment"]
    return environment
