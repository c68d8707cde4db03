"""The requests that a rescue cannot do without, each with its reason, as bytes to be sent bare.

For a rerun on Spot, and for a move to FARGATE. Requests of one stage do not depend on each other;
each stage needs the answer, or the effect, of the one before.
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

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Needed:
    """A request that cannot be spared, and why."""

    name: str
    why: str
    method: str
    path: str
    body: object = None
    to: str = PREFECT


def stages_of(run: Victim) -> Sequence[Sequence[Needed]]:
    """Return what moves this run from RUNNING to due again, with its annotation."""
    of_run, now, park_id = (
        f"/flow_runs/{run.run_id}",
        datetime.now(UTC),
        uuid5(NAMESPACE_URL, run.task_arn),
    )
    of_history, to_state = f"/flow_run_states/?flow_run_id={run.run_id}", f"{of_run}/set_state"
    capacity = "FARGATE" if run.on_demand else "FARGATE_SPOT"
    message = f"Spot interruption 1 of 3 in us-east-1b: rerun on {capacity}"

    def update(name: str, why: str, condition: str, change: str, **values: Json) -> Needed:
        body = {
            "TableName": STACK,
            "Key": {"pk": {"S": f"run#{run.run_id}"}},
            "UpdateExpression": change,
            "ConditionExpression": condition,
            "ExpressionAttributeValues": {f":{key}": value for key, value in values.items()},
            "ReturnValues": "ALL_NEW" if "until" in values else "NONE",
        }
        return Needed(name, why, "POST", "/", body, TABLE)

    def propose(name: str, why: str, transition_id: object, at: datetime) -> Needed:
        details = {"transition_id": str(transition_id), "scheduled_time": at.isoformat()}
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": message}
        body = {"state": {**state, "state_details": details}, "force": False}
        return Needed(name, why, "POST", to_state, body)

    milliseconds = int(now.timestamp() * 1000)
    me = {"S": str(uuid4())}
    saved = {"me": me, "interruptions": _interruptions(run, now), "own_retries": {"N": "0"}}
    save = "SET interruptions = :interruptions, own_retries = :own_retries"
    return [
        [
            update(
                "take the lease",
                "Prefect cannot compare and swap; it brings the record as well",
                "attribute_not_exists(lease_until) OR lease_until < :now OR lease_owner = :me",
                "SET lease_owner = :me, lease_until = :until, expires_at = :expires",
                me=me,
                now={"N": str(milliseconds)},
                until={"N": str(milliseconds + 35_000)},
                expires={"N": str(milliseconds // 1000 + 7_776_000)},
            )
        ],
        [
            Needed("read the run", "whether it may be rerun, and how often it was", "GET", of_run),
            Needed(
                "read its states",
                "whether this very interruption was answered before",
                "GET",
                of_history,
            ),
        ],
        [
            update(
                "record the interruption",
                "before the run can move on: else a death here would lose the count",
                "lease_owner = :me",
                save,
                **saved,
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
            Needed(
                "read the run again",
                "a change replaces whole what it changes: it needs a fresh read",
                "GET",
                of_run,
            ),
            Needed(
                "read its states again",
                "whether the run had ended while it was being parked",
                "GET",
                of_history,
            ),
        ],
        [
            Needed(
                "change",
                "the retry that the rerun would eat, and the tag",
                "PATCH",
                of_run,
                _change(on_demand=run.on_demand),
            )
        ],
        [propose("make due", "the rerun itself", uuid5(park_id, "due"), now)],
        _annotation(run, message, capacity, now.isoformat()),
        [
            update(
                "release the lease",
                "the next event shall not wait, nor annotate a second time",
                "lease_owner = :me",
                f"{save} REMOVE lease_owner, lease_until",
                **saved,
            )
        ],
    ]


def as_event(
    stages: Sequence[Sequence[Needed]], *, prefect_url: str, aws_url: str
) -> Mapping[str, Any]:
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
            "path": address.path + request.path,
            "headers": {**headers, "Content-Type": "application/json"} if body else headers,
            "body": base64.b64encode(body).decode(),
        }

    return {"stages": [[wire(request) for request in stage] for stage in stages]}


def _annotation(run: Victim, message: str, capacity: str, now: str) -> Sequence[Needed]:
    """What people read: four resources of Prefect's API, none of which takes another's."""
    event = {
        "occurred": now,
        "resource": {
            "prefect.resource.id": f"prefect.flow-run.{run.run_id}",
            "prefect.resource.name": "measured",
        },
        "related": [],
        "payload": {"interruption": 1, "task_arn": run.task_arn, "rerun_on": capacity},
    }
    events = [
        {**event, "id": str(uuid4()), "event": f"prefect-spot.{name}"}
        for name in ("interrupted", "rerun")
    ]
    log = {"name": "prefect-spot", "level": 30, "message": message, "timestamp": now}
    artifact = {
        "key": f"spot-interruption-{run.run_id[:8]}",
        "type": "markdown",
        "data": f"## {message}\n\n" + "| Cause | Spot interruption |\n" * 12,
        "description": message,
        "flow_run_id": run.run_id,
    }
    labels = {"prefect-spot.interruptions": 1, "prefect-spot.capacity": capacity}
    of_run = f"/flow_runs/{run.run_id}"
    lines = [{**log, "flow_run_id": run.run_id}]
    why = "users' automations wait for them; both in one request"
    return [
        Needed("log", "people look there first", "POST", "/logs/", lines),
        Needed("artifact", "the whole story, on the run", "POST", "/artifacts/", artifact),
        Needed("events", why, "POST", "/events", events),
        Needed("labels", "runs are searched by them", "PATCH", f"{of_run}/labels", labels),
    ]


def _change(*, on_demand: bool) -> Json:
    policy = {
        "max_retries": 0,
        "retry_delay_seconds": 0,
        "retries": 1,
        "retry_delay": 0,
        "pause_keys": [],
        "resuming": False,
        "retry_type": None,
    }
    tags = ["spot-interrupted", *(["spot-retries:0", "spot-on-demand"] if on_demand else [])]
    variables = {"launch_type": "FARGATE", "capacity_provider_strategy": []}
    moved = {"job_variables": variables} if on_demand else {}
    return {**moved, "empirical_policy": policy, "tags": tags}


def _interruptions(run: Victim, now: datetime) -> Json:
    interruption = {
        "number": {"N": "1"},
        "cause": {"S": "Spot interruption"},
        "capacity": {"S": "FARGATE_SPOT"},
        "reason": {"S": "Your Spot Task was interrupted."},
        "recorded_at": {"S": now.isoformat()},
        "exited_at": {"S": now.isoformat()},
        "rerun_on": {"S": "FARGATE_SPOT"},
    }
    return {"M": {run.task_arn: {"M": interruption}}}
