"""A few reads and writes of Prefect's REST API for demo, tests and oracle.

Not the product's adapter: what judges the product must not be the product.
"""

import re
import time
from typing import Any
from uuid import uuid4

import httpx

BUSY_SECONDS = 120.0
"""For so long a server on SQLite may answer 503 before that is an error."""

MOST_TRIES = 4
"""Of a request on which the server hangs up, as an overloaded machine does now and then."""

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})


class PrefectApi:
    """Talks to one server; `auth_string` is "user:password" where basic auth is on.

    `csrf`: the server has CSRF protection. A token is good for an hour, and none is fetched anew.
    """

    def __init__(self, api_url: str, auth_string: str | None = None, *, csrf: bool = False) -> None:
        auth = None
        if auth_string:
            user, _, password = auth_string.partition(":")
            auth = httpx.BasicAuth(user, password)
        transport = httpx.HTTPTransport(retries=3)
        self._http = httpx.Client(
            base_url=api_url, auth=auth, timeout=30, transport=transport, trust_env=False
        )
        if csrf:
            client = str(uuid4())
            self._http.headers["Prefect-Csrf-Client"] = client
            self._http.headers["Prefect-Csrf-Token"] = self.replace_csrf_token(client)

    def replace_csrf_token(self, client: str) -> str:
        """Return a new CSRF token of a client; one that it had is good for nothing from now on."""
        return str(self.send("GET", f"/csrf-token?client={client}")["token"])

    def start(self, deployment_id: str, **fields: Any) -> str:
        """Create a flow run of a deployment, due now; return its id.

        The idempotency key makes it safe to send again: there is one run, however often it is sent.
        """
        scheduled = {"type": "SCHEDULED", "name": "Scheduled"}
        body = {"state": scheduled, "idempotency_key": str(uuid4()), **fields}
        return str(self.send("POST", f"/deployments/{deployment_id}/create_flow_run", body)["id"])

    def run(self, flow_run_id: str) -> dict[str, Any]:
        """Return the flow run."""
        return dict(self.send("GET", f"/flow_runs/{flow_run_id}"))

    def history(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Return the run's states, oldest first."""
        states = self.send("GET", f"/flow_run_states/?flow_run_id={flow_run_id}")
        return sorted(states, key=lambda state: str(state["timestamp"]))

    def task_runs(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Return the run's task runs."""
        body = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
        return list(self.send("POST", "/task_runs/filter", body))

    def annotation(self, flow_run_id: str) -> str:
        """Return the newest Markdown artifact of the run, empty when there is none."""
        body = {
            "artifacts": {"type": {"any_": ["markdown"]}},
            "flow_runs": {"id": {"any_": [flow_run_id]}},
            "sort": "CREATED_DESC",
            "limit": 1,
        }
        found = self.send("POST", "/artifacts/filter", body)
        return str(found[0]["data"]) if found else ""

    def logs(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Return the run's log lines, oldest first, 200 at most."""
        body = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "TIMESTAMP_ASC"}
        return list(self.send("POST", "/logs/filter", body))

    def events(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Return the newest events about the run, 50 at most."""
        body = {
            "filter": {"resource": {"id": [f"prefect.flow-run.{flow_run_id}"]}, "order": "DESC"},
            "limit": 50,
        }
        return list(self.send("POST", "/events/filter", body)["events"])

    def workers(self, pool: str) -> list[dict[str, Any]]:
        """Return the pool's workers."""
        return list(self.send("POST", f"/work_pools/{pool}/workers/filter", {}))

    def children(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Return the runs that a run started."""
        body = {"flow_runs": {"parent_flow_run_id": {"any_": [flow_run_id]}}}
        return list(self.send("POST", "/flow_runs/filter", body))

    def set_state(self, flow_run_id: str, state: dict[str, Any]) -> dict[str, Any]:
        """Propose a state, as a user in the UI would; return Prefect's answer."""
        body = {"state": state}
        return dict(self.send("POST", f"/flow_runs/{flow_run_id}/set_state", body))

    def delete(self, flow_run_id: str) -> None:
        """Delete the flow run, as a user in the UI would."""
        self.send("DELETE", f"/flow_runs/{flow_run_id}")

    def tag(self, flow_run_id: str, tag: str) -> None:
        """Add a tag to those that the run has."""
        tags = [*self.run(flow_run_id)["tags"], tag]
        self.send("PATCH", f"/flow_runs/{flow_run_id}", {"tags": tags})

    def resume(self, flow_run_id: str) -> None:
        """Resume a paused or suspended run, as a user in the UI would."""
        self.send("POST", f"/flow_runs/{flow_run_id}/resume", {})

    def pause_queue(self, pool: str, paused: bool, queue: str = "default") -> None:
        """Pause or resume a work queue of the pool: workers see none of its runs meanwhile."""
        self.send("PATCH", f"/work_pools/{pool}/queues/{queue}", {"is_paused": paused})

    def is_final(self, flow_run_id: str) -> bool:
        """Whether the run is over."""
        return self.run(flow_run_id)["state_type"] in FINAL

    def send(self, method: str, path: str, body: object = None) -> Any:
        """Send any request, and return the JSON of the answer; None where there is none.

        It is sent again while the server is busy, or if it hangs up and repeating is safe.
        """
        may_repeat = method == "GET" or path.endswith(("/filter", "/create_flow_run"))
        hung_up, deadline = 0, time.monotonic() + BUSY_SECONDS
        while True:
            try:
                answer = self._http.request(method, path, json=body)
            except (httpx.RemoteProtocolError, httpx.ReadError):
                hung_up += 1
                if not may_repeat or hung_up == MOST_TRIES:
                    raise
                continue
            is_busy = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            if not is_busy or time.monotonic() > deadline:
                answer.raise_for_status()
                return answer.json() if answer.content else None
            time.sleep(0.25)


def deployment_id_in(output: str) -> str:
    """Return the last UUID-only line of a deploy script's output. Raises ValueError without one."""
    found = re.findall(
        r"^\s*([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\s*$", output, re.MULTILINE
    )
    if not found:
        raise ValueError(f"no deployment id in:\n{output}")
    return str(found[-1])
