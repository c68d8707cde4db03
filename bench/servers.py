"""Fresh servers for a measurement: Prefect's own on PostgreSQL, or the stand-in; and AWS's part.

The runs are on them already: RUNNING, each in a task. On the real server they are made once, and
its database is copied for each measurement, so that all measurements begin with the very same.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import httpx
import psutil

import infra
from bench.http_client import Http, at_once
from bench.interruptions import Seed, Victim
from bench.machine import ROOT
from bench.prefect_json import read_time
from bench.standin import DELAY_SECONDS
from bench.usage import children_that_run
from chalicelib.core.pool_template import merged
from localcloud.bootstrap import CLUSTER, WORK_POOL
from localcloud.postgres import Postgres
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Household, free_port

START_SECONDS: Final = 30.0
SPOT: Final = "FARGATE_SPOT"
MOST_RUNS: Final = 200
"""How many runs Prefect tells of at once."""

_VALUES: Final[Mapping[str, Any]] = {
    "ClusterName": CLUSTER,
    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/execution",
    "FlowRoleArn": "arn:aws:iam::123456789012:role/flow",
    "LogGroupName": "/ecs/prefect-spot-dev",
    "VpcId": "vpc-11111111",
    "SubnetIds": ("subnet-11111111",),
    "SecurityGroupIds": ("sg-11111111",),
    "AssignPublicIp": "ENABLED",
    "ApiKeyParameterArn": "",
    "AuthStringParameterArn": "",
}
"""What provisioning would put into the work pool's template; nothing here is started by it."""


@dataclass(frozen=True)
class FreshPrefect:
    """A Prefect API with its runs; `process` is the one that was started for it."""

    api_url: str
    http: Http
    victims: Sequence[Victim]
    process: psutil.Process
    counts_requests: bool

    def processes(self) -> Sequence[psutil.Process]:
        """The server's, without its database's."""
        return [self.process, *self.process.children(recursive=True)]

    def requests(self) -> int:
        """How many requests and messages it was sent so far; only the stand-in counts them."""
        return sum(self.http.get("/standin/usage")["requests"].values())

    def runs(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the runs as they are now."""
        pages = [ids[n : n + MOST_RUNS] for n in range(0, len(ids), MOST_RUNS)]
        bodies = [{"flow_runs": {"id": {"any_": page}}, "limit": MOST_RUNS} for page in pages]
        return [r for b in bodies for r in self.http.send("POST", "/flow_runs/filter", b)]


class Servers(Protocol):
    """Where fresh ones come from."""

    name: str

    def fresh(self, number: int) -> AbstractContextManager[FreshPrefect]:
        """Start one that has so many runs."""


class StandIns:
    """Stand-ins for the Prefect API, each in a process of its own."""

    name = "stand-in"

    def __init__(
        self, household: Household, seeds: Sequence[Seed], delay_seconds: float = DELAY_SECONDS
    ) -> None:
        self._household = household
        self._seeds = seeds
        self._delay_seconds = delay_seconds

    @contextmanager
    def fresh(self, number: int) -> Iterator[FreshPrefect]:
        """Start one, and end it."""
        arguments = ["bench.standin", str(self._delay_seconds)]
        with (
            served(self._household, arguments, "/api/standin/usage") as (url, process),
            Http(f"{url}/api") as http,
        ):
            seeds = self._seeds[:number]
            wanted = [{"infrastructure_pid": s.pid, "tags": s.tags} for s in seeds]
            made = http.send("POST", "/standin/runs", wanted)
            starts = [(run["id"], read_time(run["task_started_at"])) for run in made]
            yield FreshPrefect(f"{url}/api", http, _victims(seeds, starts), process, True)


class RealServers:
    """Prefect's own server on PostgreSQL: the runs are made by `prepared`, once."""

    name = "Prefect server"

    def __init__(self, household: Household, postgres: Postgres, victims: Sequence[Victim]) -> None:
        self._household = household
        self._postgres = postgres
        self._victims = victims
        self._number = 0

    @contextmanager
    def fresh(self, number: int) -> Iterator[FreshPrefect]:
        """Start one on a copy of the database, and end it."""
        self._number += 1
        name = f"bench_{self._number}"
        database = self._postgres.create_database(name, copy_of=_SEEDED)
        with _server(self._household, name, database) as server, Http(server.api_url) as http:
            [process] = children_that_run("prefect")
            yield FreshPrefect(server.api_url, http, self._victims[:number], process, False)


_SEEDED: Final = "bench_seeded"


@contextmanager
def prepared(household: Household, seeds: Sequence[Seed]) -> Iterator[RealServers]:
    """Start PostgreSQL and make the runs in it; hand out where copies are to be had."""
    with Postgres(household.folder / "postgres", household.spawn) as postgres:
        database = postgres.create_database(_SEEDED)
        with _server(household, _SEEDED, database) as server, Http(server.api_url) as http:
            deployment_id = make_deployment(http)
            starts = at_once(lambda seed: start_run(http, deployment_id, seed), seeds)
        yield RealServers(household, postgres, _victims(seeds, starts))


def make_deployment(http: Http) -> str:
    """Make work pool, flow and deployment; return the deployment's id."""
    template = merged({}, infra.load("base-job-template.json"), _VALUES, SPOT)
    pool = {"name": WORK_POOL, "type": "ecs", "base_job_template": template}
    http.send("POST", "/work_pools/", pool)
    flow = http.send("POST", "/flows/", {"name": "etl"})
    body = {"name": "nightly", "flow_id": flow["id"], "work_pool_name": WORK_POOL}
    return str(http.send("POST", "/deployments/", body)["id"])


def start_run(http: Http, deployment_id: str, seed: Seed, retries: int = 0) -> tuple[str, datetime]:
    """Make a run and have it RUNNING, as a worker and an engine would; and when its task began."""
    policy = {"retries": retries, "retry_delay": 0}
    body = {"state": {"type": "SCHEDULED"}, "tags": seed.tags, "empirical_policy": policy}
    run = http.send("POST", f"/deployments/{deployment_id}/create_flow_run", body)
    move(http, run["id"], "PENDING")
    started_at = datetime.now(UTC)
    http.send("PATCH", f"/flow_runs/{run['id']}", {"infrastructure_pid": seed.pid})
    move(http, run["id"], "RUNNING")
    return run["id"], started_at


def move(http: Http, run_id: str, kind: str) -> Mapping[str, Any]:
    """Propose a state; return Prefect's answer."""
    path = f"/flow_runs/{run_id}/set_state"
    answer: Mapping[str, Any] = http.send("POST", path, {"state": {"type": kind}})
    return answer


@contextmanager
def served(
    household: Household, arguments: Sequence[str], path: str
) -> Iterator[tuple[str, psutil.Process]]:
    """Start `python -m MODULE PORT …`, wait until it answers at `path`, and end it."""
    module, *rest = arguments
    port = free_port()
    process = household.spawn(
        [sys.executable, "-m", module, str(port), *rest],
        env={"PATH": "/usr/bin:/bin"},
        cwd=ROOT,
        log=household.folder / f"{module}-{port}.log",
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(url + path)
        yield url, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _wait_until_it_answers(address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            httpx.get(address, trust_env=False).raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _server(household: Household, name: str, database: str) -> PrefectServer:
    return PrefectServer(household.folder / name, household.spawn, database=database)


def _victims(seeds: Sequence[Seed], starts: Sequence[tuple[str, datetime]]) -> Sequence[Victim]:
    return [
        Victim(run_id, seed.task_arn, at, seed.on_demand)
        for seed, (run_id, at) in zip(seeds, starts, strict=True)
    ]
