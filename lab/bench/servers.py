"""What is measured: the project as `chalice deploy` makes it; and its servers.

Prefect's own on PostgreSQL, or a stand-in; AWS's stand-in.
"""

import asyncio
import io
import json
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import psutil

import infra
from lab.bench.copies import copy_runs
from lab.bench.interruptions import Interruption
from lab.bench.part import ROOT, cpu_seconds
from localcloud.aws import EmulatedAws, environment_of
from localcloud.bootstrap import STAGE, WORK_POOL
from localcloud.cloud import LAMBDA_PYTHON, REACT, wait_for
from localcloud.deployment import copy_project, deploy
from localcloud.lambda_environment import ExecutionEnvironment, FunctionConfig, Outcome
from localcloud.postgres import Postgres
from localcloud.prefect_api import PrefectApi
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Supervisor, free_port

START_SECONDS: Final = 30.0
QUIET_SECONDS: Final = 1.0
QUIET_SHARE: Final = 0.15
"""A server that takes no more of a processor for so long has nothing to do."""

MOST_RUNS: Final = 200
"""How many runs Prefect returns at once."""

TIMEOUT_SECONDS: Final = 30
OTHER_NAME: Final = "another-checkout"

SETTINGS: Final = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
"""Replaced by the address of its server in each runtime."""

AS_ON_LAMBDA: Final = {"PYTHONDONTWRITEBYTECODE": "1"}
"""The zip's folder cannot be written to there: its code is compiled in each cold start."""


@dataclass(frozen=True)
class Usage:
    """What a stand-in was sent, by its own count."""

    url: str

    def read(self) -> Mapping[str, Any]:
        """Return `requests` by kind, a WebSocket's messages among them, and what else there is."""
        usage: Mapping[str, Any] = httpx.get(f"{self.url}/bench/usage", trust_env=False).json()
        return usage

    def requests(self, kind: str = "") -> int:
        """Return the number of requests so far, of those whose kind holds this text."""
        return sum(n for name, n in self.read()["requests"].items() if kind in name)

    def newest(self, number: int) -> Sequence[Mapping[str, str]]:
        """Return the newest requests, in the order in which they came."""
        newest: Sequence[Mapping[str, str]] = self.read()["newest"]
        return newest[-number:]


class Prefect(PrefectApi):
    """A Prefect API with a deployment; `process` is the server's, `database` a real one's URL.

    Only a stand-in has a usage.
    """

    def __init__(self, api_url: str, process: psutil.Process, database: str = "") -> None:
        super().__init__(api_url)
        self.environment: Final = {"PREFECT_API_URL": api_url}
        self.is_stand_in: Final = not database
        self.usage: Final = Usage(api_url)
        self._process = process
        self._database = database
        template = infra.load("base-job-template.json")
        # As `provision` fills it in; a real server takes no default that is none of the choices.
        template["variables"]["properties"]["cpu_architecture"]["default"] = "X86_64"
        pool = {"name": WORK_POOL, "type": "ecs", "base_job_template": template}
        self.send("POST", "/work_pools/", pool)
        self._flow_id = self.send("POST", "/flows/", {"name": "etl"})["id"]
        self.renew_deployment()

    def renew_deployment(self, tags: Sequence[str] = ()) -> None:
        """Make another deployment, whose runs are begun from now on."""
        name = f"nightly-{uuid4()}"
        fields = {"flow_id": self._flow_id, "work_pool_name": WORK_POOL, "tags": list(tags)}
        made = self.send("POST", "/deployments/", {"name": name, **fields})
        self.deployment_id = str(made["id"])

    def begin(self, planned: Interruption, retries: int = 0, **fields: Any) -> Interruption:
        """Start a run in the planned task, as a worker and an engine would: it is RUNNING."""
        policy = {"retries": retries, "retry_delay": 0}
        fields = {"tags": planned.tags, "empirical_policy": policy, **fields}
        return self.take(self.start(self.deployment_id, **fields), planned)

    def take(self, run_id: str, task: Interruption) -> Interruption:
        """Let a SCHEDULED run be RUNNING in this task, as a worker and an engine would."""
        self.move(run_id, "PENDING")
        started_at = datetime.now(UTC)
        self.begin_again(run_id, task)
        return Interruption(task.on_demand, task.task_arn, run_id, started_at)

    def begin_again(self, run_id: str, task: Interruption) -> None:
        """Let a PENDING run be RUNNING in this task."""
        self.send("PATCH", f"/flow_runs/{run_id}", {"infrastructure_pid": task.pid})
        self.move(run_id, "RUNNING")

    def begin_each(self, planned: Sequence[Interruption]) -> Sequence[Interruption]:
        """Start a run for each, with all its events: an automation waits for what came before."""
        return list(map(self.begin, planned))

    def begin_all(self, planned: Sequence[Interruption]) -> Sequence[Interruption]:
        """Let a run for each be RUNNING, in one request or in the database: copies of one run."""
        if self.is_stand_in:
            runs = [{"tags": each.tags, "pid": each.pid} for each in planned]
            pairs = list(zip(planned, self.send("POST", "/bench/runs", runs), strict=True))
            started_at = datetime.now(UTC)
            return [replace(x, run_id=y, task_started_at=started_at) for x, y in pairs]
        began: dict[str, Interruption] = {}
        for on_demand in {each.on_demand for each in planned}:
            copied = self.begin(Interruption(on_demand))
            some = [each for each in planned if each.on_demand is on_demand]
            asyncio.run(copy_runs(self._database, copied.run_id, {x.run_id: x.pid for x in some}))
            self.delete(copied.run_id)
            started_at = copied.task_started_at
            began |= {x.run_id: replace(x, task_started_at=started_at) for x in some}
        return [began[each.run_id] for each in planned]

    @contextmanager
    def automation(self) -> Iterator[None]:
        """Run the deployment of each run that becomes Crashed again, as Prefect's users do."""
        trigger = {
            "type": "event",
            "posture": "Reactive",
            "expect": ["prefect.flow-run.Crashed"],
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": 0,
        }
        actions = [{"type": "run-deployment", "source": "inferred"}]
        body = {"name": "run again", "enabled": True, "trigger": trigger, "actions": actions}
        made = self.send("POST", "/automations/", body)
        try:
            yield
        finally:
            self.send("DELETE", f"/automations/{made['id']}")

    def count_runs(self) -> int:
        """Return the number of the newest deployment's runs."""
        return int(self.send("POST", "/flow_runs/count", self._of_the_deployment))

    def all_runs(self) -> Sequence[Mapping[str, Any]]:
        """Return the newest deployment's runs."""
        found: list[Mapping[str, Any]] = []
        while True:
            page = {"sort": "ID_DESC", "limit": MOST_RUNS, "offset": len(found)}
            runs = self.send("POST", "/flow_runs/filter", {**self._of_the_deployment, **page})
            found += runs
            if len(runs) < MOST_RUNS:
                return found

    def due_run(self, before: datetime) -> Mapping[str, Any] | None:
        """Return the newest deployment's run that a worker gets; None for none."""
        mine = [
            run for run in self._for_workers(before) if run["deployment_id"] == self.deployment_id
        ]
        return mine[0] if mine else None

    def wait_until_quiet(self) -> None:
        """Wait until the server has stored its events, and does next to nothing."""

        def is_quiet() -> bool:
            before = cpu_seconds(self.processes())
            time.sleep(QUIET_SECONDS)
            return cpu_seconds(self.processes()) - before < QUIET_SECONDS * QUIET_SHARE

        if not self.is_stand_in:
            wait_for("the server to be quiet", START_SECONDS, is_quiet)

    def move(self, run_id: str, state_type: str) -> None:
        """Propose a state."""
        self.set_state(run_id, {"type": state_type})

    def runs(self, of: Sequence[Interruption]) -> Sequence[Mapping[str, Any]]:
        """Return the runs as they are now."""
        ids = [each.run_id for each in of]
        pages = [ids[n : n + MOST_RUNS] for n in range(0, len(ids), MOST_RUNS)]
        bodies = [{"flow_runs": {"id": {"any_": page}}, "limit": MOST_RUNS} for page in pages]
        return [run for body in bodies for run in self.send("POST", "/flow_runs/filter", body)]

    def is_given_to_workers(self, run_id: str, before: datetime) -> bool:
        """Whether a worker gets the run that asks for what is due before this time."""
        return run_id in [run["id"] for run in self._for_workers(before)]

    def processes(self) -> Sequence[psutil.Process]:
        """Return the server's processes, without its database's."""
        return [self._process, *self._process.children(recursive=True)]

    def _for_workers(self, before: datetime) -> Sequence[Mapping[str, Any]]:
        path = f"/work_pools/{WORK_POOL}/get_scheduled_flow_runs"
        body = {"scheduled_before": before.isoformat(), "limit": MOST_RUNS}
        return [each["flow_run"] for each in self.send("POST", path, body)]

    @property
    def _of_the_deployment(self) -> Mapping[str, Any]:
        return {"deployments": {"id": {"any_": [self.deployment_id]}}}


@contextmanager
def stand_in(supervisor: Supervisor, age_seconds: int = 0) -> Iterator[Prefect]:
    """Start a stand-in for the Prefect API, whose runs are so old, and end it."""
    with _served(supervisor, "/api", "prefect_standin", str(age_seconds)) as (url, process):
        yield Prefect(url, process)


@contextmanager
def real_server(supervisor: Supervisor) -> Iterator[Prefect]:
    """Start Prefect's own server on PostgreSQL, and end both."""
    with Postgres(supervisor.folder / "postgres", supervisor.spawn) as postgres:
        database, folder = postgres.create_database("bench"), supervisor.folder / "prefect"
        with PrefectServer(folder, supervisor.spawn, database=database) as server:
            children = psutil.Process().children()
            [process] = [child for child in children if "server" in child.cmdline()]
            yield Prefect(server.api_url, process, database)


class Aws(Usage):
    """DynamoDB, SQS and ECS for one measurement; see `lab/bench/aws_standin.py`.

    Its usage also has `messages` that are not deleted, and `listeners` that wait for one.
    """

    @property
    def environment(self) -> dict[str, str]:
        """The environment that leads an AWS client there."""
        return environment_of(self.url, "testing")

    def add(self, what: str, items: Sequence[object]) -> None:
        """Add "messages" to the queue, or "tasks" to ECS."""
        url = f"{self.url}/bench/{what}"
        httpx.post(url, json=items, trust_env=False, timeout=60).raise_for_status()


@contextmanager
def fresh_aws(supervisor: Supervisor, tasks: Sequence[Mapping[str, Any]] = ()) -> Iterator[Aws]:
    """Start one that has these ECS tasks, and end it."""
    with _served(supervisor, "", "aws_standin") as (url, _):
        aws = Aws(url)
        aws.add("tasks", tasks)
        yield aws


@contextmanager
def running(
    supervisor: Supervisor,
    name: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    is_ready: Callable[[], object],
) -> Iterator[psutil.Process]:
    """Run Python with these arguments, wait until it is ready, and end it."""
    home = supervisor.folder / name
    process = supervisor.spawn(
        [sys.executable, *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), **environment},
        cwd=ROOT,
        log=home / "log",
    )

    def has_begun() -> object:
        if process.poll() is not None:
            raise RuntimeError(f"{name} has ended with {process.returncode}")
        return is_ready()

    try:
        wait_for(f"{name}'s start", START_SECONDS, has_begun)
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


@contextmanager
def _served(
    supervisor: Supervisor, path: str, module: str, *arguments: str
) -> Iterator[tuple[str, psutil.Process]]:
    """Start a module of this package on a free port, until it answers below `path`; end it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}{path}"

    def answers() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{url}/bench/usage", trust_env=False).is_success
        return False

    command = ["-m", f"lab.bench.{module}", str(port), *arguments]
    with running(supervisor, f"{module}-{port}", command, {}, answers) as process:
        yield url, process


@dataclass(frozen=True)
class Deployed:
    """What `chalice deploy` made of this project, and of what is compared with it."""

    supervisor: Supervisor
    aws: EmulatedAws

    def zip_bytes(self, function: str = REACT) -> int:
        """Return the size of a function's deployed zip."""
        return len(self.aws.lambdas.get_function(function).code_bytes)

    def runtime(self, function: str = REACT, *servers: Prefect | Aws) -> ExecutionEnvironment:
        """Start a runtime of a function, which reaches these servers."""
        config = FunctionConfig.of(self.aws.lambdas.get_function(function))
        environment = {**dict(config.environment), **AS_ON_LAMBDA}
        for server in servers:
            environment |= server.environment
        config = replace(config, environment=tuple(sorted(environment.items())))
        return ExecutionEnvironment(self.supervisor, self.aws, LAMBDA_PYTHON, config)

    def add_checkout(self, checkout: Path) -> str:
        """Deploy another checkout of this repository, its functions renamed; return its `react`."""
        folder = self.supervisor.folder / OTHER_NAME
        copy_project(folder, checkout)
        config = folder / ".chalice" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "app_name": OTHER_NAME}))
        deploy(self.aws, folder, STAGE, SETTINGS, TIMEOUT_SECONDS)
        return f"{OTHER_NAME}-{STAGE}-react"

    def add_function(self, name: str, source: Path) -> None:
        """Add a function of one file, with the environment that ours have; `handler` is its own."""
        functions = self.aws.client("lambda")
        ours = functions.get_function_configuration(FunctionName=REACT)
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.write(source, source.name)
        functions.create_function(
            FunctionName=name,
            Handler=f"{source.stem}.handler",
            Code={"ZipFile": code.getvalue()},
            **{key: ours[key] for key in ("Runtime", "Role", "Timeout", "Environment")},
        )


@contextmanager
def deployed(supervisor: Supervisor) -> Iterator[Deployed]:
    """Deploy this project as it is; each runtime is given the addresses of its servers."""
    with EmulatedAws() as aws:
        deploy(aws, supervisor.folder / "project", STAGE, SETTINGS, TIMEOUT_SECONDS)
        yield Deployed(supervisor, aws)


def answered(runtime: ExecutionEnvironment, event: Mapping[str, Any]) -> Outcome:
    """Have the runtime answer an event. Raises RuntimeError where it fails."""
    outcome = runtime.run(str(uuid4()), json.dumps(event).encode())
    if outcome.status != "ok":
        raise RuntimeError(f"{runtime.config.name} failed: {outcome.error}\n{outcome.logs}")
    return outcome
