"""The requests that a rescue cannot do without, each with its reason, as bytes to be sent bare.

One list for a rerun on Spot, and one for a move to FARGATE. Requests of one stage do not depend on
each other; each stage needs the answer, or the effect, of the one before.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid4, uuid5

from bench.interruptions import Victim
from localcloud.bootstrap import STACK

TABLE: Final = "the table"
PREFECT: Final = "Prefect"


@dataclass(frozen=True)
class Needed:
    """A request that cannot be spared, and why."""

    to: str
    name: str
    why: str
    method: str
    path: str
    body: object = None


Json = Mapping[str, Any]
Stage = Sequence[Needed]

OWN_RETRIES: Final = 0
"""What the flow has of its own."""


def stages_of(run: Victim) -> Sequence[Stage]:
    """Return what moves this run from RUNNING to due again, with everybody told."""
    of_run, owner, now = f"/flow_runs/{run.run_id}", str(uuid4()), datetime.now(UTC)
    park_id = uuid5(NAMESPACE_URL, run.task_arn)
    capacity = "FARGATE" if run.on_demand else "FARGATE_SPOT"
    told = f"Spot interruption 1 of 3 in us-east-1b: rerun on {capacity}"
    of_history = f"/flow_run_states/?flow_run_id={run.run_id}"

    def read(name: str, why: str, path: str) -> Needed:
        return Needed(PREFECT, name, why, "GET", path)

    def update(name: str, why: str, body: Json) -> Needed:
        return Needed(TABLE, name, why, "POST", "/", body)

    def propose(name: str, why: str, transition_id: object, at: datetime) -> Needed:
        details = {"transition_id": str(transition_id), "scheduled_time": at.isoformat()}
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": told}
        body = {"state": {**state, "state_details": details}, "force": False}
        return Needed(PREFECT, name, why, "POST", f"{of_run}/set_state", body)

    return (
        [
            update(
                "take the lease",
                "Prefect cannot compare and swap; it brings the record as well",
                _acquire(run, owner, now),
            )
        ],
        [
            read("read the run", "whether it may be rerun, and how often it was", of_run),
            read(
                "read its states", "whether this very interruption was answered before", of_history
            ),
        ],
        [
            update(
                "record the interruption",
                "before the run can move on: else a death here would lose the count",
                _save(run, owner, now, release=False),
            )
        ],
        [
            propose(
                "park",
                "Prefect takes changes only while the run is scheduled, and no worker may have it"
                " meanwhile",
                park_id,
                now + timedelta(hours=1),
            )
        ],
        [
            read(
                "read the run again",
                "a change replaces whole what it changes: it needs a fresh read",
                of_run,
            ),
            read(
                "read its states again",
                "whether the run had ended while it was being parked",
                of_history,
            ),
        ],
        [
            Needed(
                PREFECT,
                "change",
                "the retry that the rerun would eat, the tag"
                + (", and the capacity" if run.on_demand else ""),
                "PATCH",
                of_run,
                _change(on_demand=run.on_demand),
            )
        ],
        [propose("make due", "the rerun itself", uuid5(park_id, "due"), now)],
        _annotation(run, told, capacity, now),
        [
            update(
                "release the lease",
                "the next event shall not wait, nor annotate a second time",
                _save(run, owner, now, release=True),
            )
        ],
    )


def as_event(stages: Sequence[Stage], *, prefect_url: str, aws_url: str) -> Json:
    """Return the stages as `bare/requests_alone.py` takes them."""
    prefect, aws = urlsplit(prefect_url), urlsplit(aws_url)

    def wire(request: Needed) -> Json:
        body = b"" if request.body is None else json.dumps(request.body).encode()
        address, headers = (prefect, {"Accept": "application/json"})
        if request.to == TABLE:
            address, headers = (aws, {"X-Amz-Target": "DynamoDB_20120810.UpdateItem"})
        return {
            "method": request.method,
            "host": address.netloc,
            "path": (prefect.path if request.to == PREFECT else "") + request.path,
            "headers": {**headers, "Content-Type": "application/json"} if body else headers,
            "body": base64.b64encode(body).decode(),
        }

    return {"stages": [[wire(request) for request in stage] for stage in stages]}


def _annotation(run: Victim, told: str, capacity: str, now: datetime) -> Stage:
    """What people are told by: four resources of Prefect's API, none of which takes another's."""
    event = {
        "occurred": now.isoformat(),
        "resource": {
            "prefect.resource.id": f"prefect.flow-run.{run.run_id}",
            "prefect.resource.name": "measured",
        },
        "related": [],
        "payload": {"interruption": 1, "task_arn": run.task_arn, "rerun_on": capacity},
    }
    names = ("prefect-spot.interrupted", "prefect-spot.rerun")
    log = {"name": "prefect-spot", "level": 30, "message": told, "flow_run_id": run.run_id}
    artifact = {
        "key": f"spot-interruption-{run.run_id[:8]}",
        "type": "markdown",
        "data": f"## {told}\n\n" + "| Cause | Spot interruption |\n" * 12,
        "description": told,
        "flow_run_id": run.run_id,
    }
    labels = {"prefect-spot.interruptions": 1, "prefect-spot.capacity": capacity}

    def write(name: str, why: str, path: str, body: object, method: str = "POST") -> Needed:
        return Needed(PREFECT, name, why, method, path, body)

    return [
        write("log", "people look there first", "/logs/", [{**log, "timestamp": now.isoformat()}]),
        write("artifact", "the whole story, on the run", "/artifacts/", artifact),
        write(
            "events",
            "users' automations wait for them; both in one request",
            "/events",
            [{**event, "id": str(uuid4()), "event": name} for name in names],
        ),
        write(
            "labels",
            "runs are searched by them",
            f"/flow_runs/{run.run_id}/labels",
            labels,
            "PATCH",
        ),
    ]


def _change(*, on_demand: bool) -> Json:
    policy = {
        "max_retries": 0,
        "retry_delay_seconds": 0,
        "retries": OWN_RETRIES + 1,
        "retry_delay": 0,
        "pause_keys": [],
        "resuming": False,
        "retry_type": None,
    }
    tags = ["spot-interrupted", *(["spot-retries:0", "spot-on-demand"] if on_demand else [])]
    variables = {"launch_type": "FARGATE", "capacity_provider_strategy": []}
    moved = {"job_variables": variables} if on_demand else {}
    return {**moved, "empirical_policy": policy, "tags": tags}


def _acquire(run: Victim, owner: str, now: datetime) -> Json:
    milliseconds = int(now.timestamp() * 1000)
    return {
        "TableName": STACK,
        "Key": {"pk": {"S": f"run#{run.run_id}"}},
        "UpdateExpression": "SET lease_owner = :me, lease_until = :until, expires_at = :expires",
        "ConditionExpression": (
            "attribute_not_exists(lease_until) OR lease_until < :now OR lease_owner = :me"
        ),
        "ExpressionAttributeValues": {
            ":me": {"S": owner},
            ":now": {"N": str(milliseconds)},
            ":until": {"N": str(milliseconds + 35_000)},
            ":expires": {"N": str(milliseconds // 1000 + 7_776_000)},
        },
        "ReturnValues": "ALL_NEW",
    }


def _save(run: Victim, owner: str, now: datetime, *, release: bool) -> Json:
    interruption = {
        "number": {"N": "1"},
        "cause": {"S": "Spot interruption"},
        "capacity": {"S": "FARGATE_SPOT"},
        "reason": {"S": "Your Spot Task was interrupted."},
        "recorded_at": {"S": now.isoformat()},
        "exited_at": {"S": now.isoformat()},
        "rerun_on": {"S": "FARGATE_SPOT"},
    }
    return {
        "TableName": STACK,
        "Key": {"pk": {"S": f"run#{run.run_id}"}},
        "UpdateExpression": (
            "SET interruptions = :interruptions, own_retries = :own_retries"
            + (" REMOVE lease_owner, lease_until" if release else "")
        ),
        "ConditionExpression": "lease_owner = :me",
        "ExpressionAttributeValues": {
            ":me": {"S": owner},
            ":interruptions": {"M": {run.task_arn: {"M": interruption}}},
            ":own_retries": {"N": str(OWN_RETRIES)},
        },
    }
