"""The Prefect adapter before a scripted server, and ordinary answers to script."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from chalicelib.adapters.prefect_api import PrefectRest
from chalicelib.adapters.prefect_client import JsonHttp
from tests.unit.scripted_server import ScriptedServer, Step

RUN_ID = UUID("11111111-2222-4333-8444-555555555555")
STATE_ID = "22222222-2222-4333-8444-555555555555"
KEY = "pnu_0123456789abcdef"
AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def make_state(**changes: object) -> dict[str, object]:
    ordinary: dict[str, object] = {
        "id": STATE_ID,
        "type": "RUNNING",
        "name": "Running",
        "timestamp": "2026-11-23T12:00:00.123456Z",
        "message": None,
        "state_details": {"transition_id": None},
    }
    return ordinary | changes


def make_answer(**changes: object) -> dict[str, object]:
    ordinary: dict[str, object] = {
        "id": str(RUN_ID),
        "name": "brave-otter",
        "state": make_state(),
        "run_count": 1,
        "tags": ["etl"],
        "job_variables": {"cpu": 512},
        "empirical_policy": {"retries": 2, "retry_type": None, "retry_delay": 7},
    }
    return ordinary | changes


def without(body: dict[str, object], *names: str) -> dict[str, object]:
    return {key: value for key, value in body.items() if key not in names}


@dataclass
class Bench:
    """The adapter before a scripted server; `slept` are the pauses it made, in seconds."""

    script: Sequence[Step]
    seconds_left: float = 60.0
    credentials: Sequence[str | None] = (f"Bearer {KEY}", "Bearer pnu_fresh")
    path: str = "/api"
    slept: list[float] = field(default_factory=list)
    asked_fresh: list[bool] = field(default_factory=list)

    def __enter__(self) -> "Bench":
        self.server = ScriptedServer(self.script).__enter__()
        url = self.server.url + self.path
        self.http = JsonHttp(url, self.credential, self.left, sleep=self.slept.append)
        self.prefect = PrefectRest(self.http)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__(None, None, None)

    def credential(self, fresh: bool) -> str | None:
        self.asked_fresh.append(fresh)
        return self.credentials[1 if fresh else 0]

    def left(self) -> float:
        return self.seconds_left - sum(self.slept)

    @property
    def requests(self) -> list[str]:
        return [f"{seen.method} {seen.path}" for seen in self.server.seen]
