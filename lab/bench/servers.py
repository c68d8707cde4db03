"""Fresh servers for a measurement: Prefect's own on PostgreSQL, or the stand-in; and AWS's part.

The runs are on them already: RUNNING, each in a task. On the real server they are made once, and
its database is copied for each measurement, so that all measurements begin with the very same.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import httpx
import psutil

import infra
from chalicelib.core.provision.pool_template import merged
from lab.bench.interruptions import Seed, Victim
from lab.bench.machine import ROOT
from lab.bench.prefect_standin import DELAY_SECONDS
from lab.bench.usage import children_that_run
from localcloud.aws import EmulatedAws
from localcloud.bootstrap import CLUSTER, WORK_POOL
from localcloud.cloud import wait_for
from localcloud.postgres import Postgres
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Supervisor, free_port

START_SECONDS: Final = 30.0
CLIENTS: Final = 8
MOST_RUNS: Final = 200
"""How many runs Prefect gives at once."""

_SEEDED: Final = "bench_seeded"
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


class Http:
    """JSON to one address, from many threads; no part of what is measured."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def __enter__(self) -> "Http":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send(self, method: str, path: str, body: object = None) -> Any:
        """Return the decoded answer. Raises httpx.HTTPError."""
        answer = self._client.request(method, path, json=body).raise_for_status()
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        """Return the decoded answer. Raises httpx.HTTPError."""
        return self._client.get(path).raise_for_status().json()


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
        return sum(self.http.get("/bench/usage")["requests"].values())

    def runs(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the runs as they are now."""
        pages = [ids[n : n + MOST_RUNS] for n in range(0, len(ids), MOST_RUNS)]
        bodies = [{"flow_runs": {"id": {"any_": page}}, "limit": MOST_RUNS} for page in pages]
        return [r for b in bodies for r in self.http.send("POST", "/flow_runs/filter", b)]


class Servers(Protocol):
    """Where fresh ones come from."""

    @property
    def name(self) -> str:
        """For the log."""

    def fresh(self, number: int) -> AbstractContextManager[FreshPrefect]:
        """Start one that has so many runs."""


@dataclass(frozen=True)
class StandIns:
    """Stand-ins for the Prefect API, each in a process of its own."""

    supervisor: Supervisor
    seeds: Sequence[Seed]
    name: str = "stand-in"

    @contextmanager
    def fresh(self, number: int) -> Iterator[FreshPrefect]:
        """Start one, and end it."""
        seeds = self.seeds[:number]
        with (
            served(self.supervisor, "/api", "lab.bench.prefect_standin", str(DELAY_SECONDS)) as (
                http,
                url,
                process,
            ),
        ):
            wanted = [{"pid": seed.pid, "tags": seed.tags} for seed in seeds]
            made = http.send("POST", "/bench/runs", wanted)
            starts = [(run["id"], read_time(run["expected_start_time"])) for run in made]
            yield FreshPrefect(url, http, _victims(seeds, starts), process, True)


class RealServers:
    """Prefect's own server on PostgreSQL: the runs are made by `prepared`, once."""

    name = "Prefect server"

    def __init__(
        self, supervisor: Supervisor, postgres: Postgres, victims: Sequence[Victim]
    ) -> None:
        self._supervisor = supervisor
        self._postgres = postgres
        self._victims = victims
        self._number = 0

    @contextmanager
    def fresh(self, number: int) -> Iterator[FreshPrefect]:
        """Start one on a copy of the database, and end it."""
        self._number += 1
        name = f"bench_{self._number}"
        database = self._postgres.create_database(name, copy_of=_SEEDED)
        with _server(self._supervisor, name, database) as server, Http(server.api_url) as http:
            [process] = children_that_run("prefect")
            yield FreshPrefect(server.api_url, http, self._victims[:number], process, False)


@contextmanager
def prepared(supervisor: Supervisor, seeds: Sequence[Seed]) -> Iterator[RealServers]:
    """Start PostgreSQL and make the runs in it; hand out where copies are to be had."""
    with Postgres(supervisor.folder / "postgres", supervisor.spawn) as postgres:
        database = postgres.create_database(_SEEDED)
        with (
            _server(supervisor, _SEEDED, database) as server,
            Http(server.api_url) as http,
            ThreadPoolExecutor(CLIENTS) as pool,
        ):
            deployment_id = _make_deployment(http)
            starts = list(pool.map(lambda seed: start_run(http, deployment_id, seed), seeds))
        yield RealServers(supervisor, postgres, _victims(seeds, starts))


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


def move(http: Http, run_id: str, kind: str) -> None:
    """Propose a state."""
    http.send("POST", f"/flow_runs/{run_id}/set_state", {"state": {"type": kind}})


def read_time(text: str) -> datetime:
    """Read a time with its zone."""
    return datetime.fromisoformat(text)


@dataclass(frozen=True)
class FreshAws:
    """DynamoDB, SQS and ECS for one measurement; see `bench.aws_standin`."""

    url: str
    http: Http

    @property
    def environment(self) -> dict[str, str]:
        """What leads an AWS client there."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": EmulatedAws.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def usage(self) -> Mapping[str, Any]:
        """Return requests by operation, messages not yet done with, and who waits for one."""
        usage: Mapping[str, Any] = self.http.get("/bench/usage")
        return usage


@contextmanager
def fresh_aws(
    supervisor: Supervisor, tasks: Sequence[Mapping[str, Any]] = ()
) -> Iterator[FreshAws]:
    """Start one that knows these ECS tasks, and end it."""
    with served(supervisor, "", "lab.bench.aws_standin") as (http, url, _):
        http.send("POST", "/bench/tasks", tasks)
        yield FreshAws(url, http)


@contextmanager
def served(
    supervisor: Supervisor, path: str, module: str, *arguments: str
) -> Iterator[tuple[Http, str, psutil.Process]]:
    """Start `python -m MODULE PORT …`, wait until it answers below `path`, and end it."""
    port = free_port()
    process = supervisor.spawn(
        [sys.executable, "-m", module, str(port), *arguments],
        env={"PATH": "/usr/bin:/bin"},
        cwd=ROOT,
        log=supervisor.folder / f"{module}-{port}.log",
    )
    url = f"http://127.0.0.1:{port}{path}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/bench/usage", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    try:
        wait_for(f"{module}'s first answer", START_SECONDS, answers)
        with Http(url) as http:
            yield http, url, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _make_deployment(http: Http) -> str:
    """Make work pool, flow and deployment; return the deployment's id."""
    template = merged({}, infra.load("base-job-template.json"), _VALUES, "FARGATE_SPOT")
    pool = {"name": WORK_POOL, "type": "ecs", "base_job_template": template}
    http.send("POST", "/work_pools/", pool)
    flow = http.send("POST", "/flows/", {"name": "etl"})
    body = {"name": "nightly", "flow_id": flow["id"], "work_pool_name": WORK_POOL}
    return str(http.send("POST", "/deployments/", body)["id"])


def _server(supervisor: Supervisor, name: str, database: str) -> PrefectServer:
    return PrefectServer(supervisor.folder / name, supervisor.spawn, database=database)


def _victims(seeds: Sequence[Seed], starts: Sequence[tuple[str, datetime]]) -> Sequence[Victim]:
    return [
        Victim(run_id, seed.task_arn, at, seed.on_demand)
        for seed, (run_id, at) in zip(seeds, starts, strict=True)
    ]
