"""A worker, its tasks and their engines on paper: all that ECS and Prefect see of them, no process.

For more runs than a laptop has room for. Whoever is handed out twice is started twice here as well,
and both containers stand in the ledger that the oracle judges by.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import httpx
from moto.ecs.models import Task, TaskDefinition

from localcloud.bootstrap import CLUSTER, WORK_POOL
from localcloud.cloud import Cloud
from localcloud.containers import Description, plan_container, state_change_event
from localcloud.events import Event
from localcloud.moto_additions import EcsHooks, connect_ecs
from localcloud.task_life import ContainerLife, TaskLife

CLIENTS = 8
"""Of Prefect's, at once; a worker has as many threads as it likes."""

MOST_TRIES = 4
"""Of a request on which the server hangs up, as Prefect's own client would send it again."""

PREFETCH = timedelta(seconds=10)
OWN_RETRIES = 2
CPU, MEMORY = 256, 512


class PaperFargate:
    """Keeps the tasks that moto's RunTask places: each runs at once, until its test ends it.

    `on_event` receives all news of the tasks: at first the event bus.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.on_event: Callable[[Event], object] = cloud.router.put
        self._aws = cloud.aws
        self._before = cloud.fargate
        self._lives: dict[str, TaskLife] = {}
        connect_ecs(
            EcsHooks(
                has_capacity=lambda *_: True,
                place=self._place,
                stop=lambda _task, _reason: None,
                describe=self._describe,
            )
        )

    def interrupt(self, task_arn: str) -> None:
        """Spot's warning; the container works on."""
        self._lives[task_arn].interrupt("SpotInterruption", "Your Spot Task was interrupted.")

    def end(self, task_arn: str, *, detach_seconds: float = 0) -> None:
        """The container exits, of itself if nobody asked it to; then the task stops."""
        self._lives[task_arn].deprovision()
        time.sleep(detach_seconds)
        self._lives[task_arn].stop()

    def ledger(self) -> list[ContainerLife]:
        return [life.write_down() for life in list(self._lives.values())]

    def _describe(self, task: Task) -> Description:
        """Of a task of ours, or of one from before: the worker that was sent away."""
        life = self._lives.get(task.task_arn)
        return life.describe() if life else self._before.describe(task)

    def _place(self, task: Task, definition: TaskDefinition, capacity: str) -> None:
        life = TaskLife(task, plan_container(definition, task.overrides), capacity, self._tell)
        self._lives[task.task_arn] = life
        life.place()
        life.pull()
        life.run(cast("Any", SimpleNamespace(returncode=1)))

    def _tell(self, description: Description) -> None:
        self.on_event(state_change_event(description, self._aws))


@dataclass
class PaperWorker:
    """Takes the pool's runs as Prefect's worker does, and plays the engine in each one's task.

    A run's first attempt works until its test ends the task; each later one completes after the
    seconds that `create_runs` was given. `errors` keeps what its threads raised; expect it empty.
    """

    cloud: Cloud
    fargate: PaperFargate
    errors: list[Exception] = field(default_factory=list)
    running: dict[str, str] = field(default_factory=dict)
    """The first attempts at work: task ARN by flow run id."""
    starts: Counter[str] = field(default_factory=Counter)
    """How often the engine of a run has set it Running, by flow run id."""

    def __post_init__(self) -> None:
        environment = self.cloud.environment
        user, _, password = environment["PREFECT_API_AUTH_STRING"].partition(":")
        self._http = httpx.Client(
            base_url=environment["PREFECT_API_URL"],
            auth=(user, password),
            timeout=60,
            trust_env=False,
        )
        self._closed = threading.Event()
        self._submitting: set[str] = set()
        self._seconds: dict[str, float] = {}
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._definition = self._register()
        self._deployment = self._deploy()
        self._poll = threading.Thread(target=self._keep_polling, daemon=True)

    def __enter__(self) -> "PaperWorker":
        self._poll.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._poll.join()
        self._pool.shutdown()
        self._http.close()

    def are_at_work(self, runs: Sequence[str]) -> bool:
        """Whether these runs' first attempts are. Raises the first of the threads' errors."""
        if self.errors:
            raise self.errors[0]
        return self.running.keys() >= set(runs)

    def create_runs(
        self, number: int, tags_of: Callable[[int], list[str]], *, seconds: float
    ) -> list[str]:
        """Create so many runs, due now; return their ids.

        `seconds`: from the start of the second or a later attempt to its good end.
        """
        path = f"/deployments/{self._deployment}/create_flow_run"
        scheduled = {"type": "SCHEDULED", "name": "Scheduled"}
        bodies = [
            {"state": scheduled, "tags": tags_of(n), "idempotency_key": str(uuid4())}
            for n in range(number)
        ]
        with ThreadPoolExecutor(CLIENTS) as pool:
            created = list(pool.map(lambda body: self._send("POST", path, body), bodies))
        runs = [str(run["id"]) for run in created]
        self._seconds |= dict.fromkeys(runs, seconds)
        return runs

    def _deploy(self) -> str:
        flow = self._send("POST", "/flows/", {"name": "on paper"})
        body = {"name": "storm", "flow_id": flow["id"], "work_pool_name": WORK_POOL}
        return str(self._send("POST", "/deployments/", body)["id"])

    def _register(self) -> str:
        container = {"name": "prefect", "image": "none", "memory": MEMORY}
        answer = self.cloud.aws.client("ecs").register_task_definition(
            family="on-paper",
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu=str(CPU),
            memory=str(MEMORY),
            containerDefinitions=[container],
        )
        return str(answer["taskDefinition"]["taskDefinitionArn"])

    def _keep_polling(self) -> None:
        while not self._closed.wait(1):
            before = (datetime.now(UTC) + PREFETCH).isoformat()
            path = f"/work_pools/{WORK_POOL}/get_scheduled_flow_runs"
            try:
                given = self._send("POST", path, {"scheduled_before": before, "limit": 100})
            except httpx.HTTPError as error:
                self.errors.append(error)
                continue
            for run in (answer["flow_run"] for answer in given):
                if run["id"] not in self._submitting:
                    self._submitting.add(run["id"])
                    self._pool.submit(self._submit, run)

    def _submit(self, run: dict[str, Any]) -> None:
        try:
            if self._moves(run["id"], "PENDING"):
                self._start(run)
        except Exception as error:
            self.errors.append(error)
        finally:
            self._submitting.discard(run["id"])

    def _start(self, run: dict[str, Any]) -> None:
        """RunTask, the note of it on the run, and the engine's first words."""
        run_id = run["id"]
        task_arn = self._run_task(run)
        pid = f"{task_arn.replace(':task/', ':cluster/').rpartition('/')[0]}::{task_arn}"
        self._send("PATCH", f"/flow_runs/{run_id}", {"infrastructure_pid": pid})
        fresh = self._send("GET", f"/flow_runs/{run_id}")
        policy = fresh["empirical_policy"]
        if policy["retries"] is None:
            policy |= {"retries": OWN_RETRIES, "retry_delay": 0}
            self._send("PATCH", f"/flow_runs/{run_id}", {"empirical_policy": policy})
        while not self._moves(run_id, "RUNNING"):
            time.sleep(1)  # as an engine does when it is told that it is too early
        self.starts[run_id] += 1
        if self.starts[run_id] == 1:
            self.running[run_id] = task_arn
        else:
            seconds = self._seconds[run_id]
            threading.Timer(seconds, self._pool.submit, (self._finish, run_id, task_arn)).start()

    def _finish(self, run_id: str, task_arn: str) -> None:
        try:
            self._moves(run_id, "COMPLETED")
            self.fargate.end(task_arn)
        except Exception as error:
            self.errors.append(error)

    def _run_task(self, run: dict[str, Any]) -> str:
        on_demand = run["job_variables"].get("launch_type") == "FARGATE"
        spot = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
        environment = [{"name": "PREFECT__FLOW_RUN_ID", "value": run["id"]}]
        outputs = self.cloud.outputs
        network = {
            "subnets": outputs["SubnetIds"].split(","),
            "securityGroups": outputs["SecurityGroupIds"].split(","),
        }
        answer = self.cloud.aws.client("ecs").run_task(
            cluster=CLUSTER,
            taskDefinition=self._definition,
            overrides={"containerOverrides": [{"name": "prefect", "environment": environment}]},
            networkConfiguration={"awsvpcConfiguration": network},
            tags=[{"key": "prefect.io/flow-run-id", "value": run["id"]}],
            **({"launchType": "FARGATE"} if on_demand else spot),
        )
        return str(answer["tasks"][0]["taskArn"])

    def _moves(self, run_id: str, kind: str) -> bool:
        """Propose a state as Prefect's SDK does, with an id of its own; whether the run is in it.

        Sent once more after a lost answer, it is rejected as a duplicate: it was accepted before.
        """
        details = {"transition_id": str(uuid4())}
        state = {"type": kind, "name": kind.title(), "state_details": details}
        answer = self._send("POST", f"/flow_runs/{run_id}/set_state", {"state": state})
        now = answer["state"] or {"state_details": {}}
        is_ours = now["state_details"].get("transition_id") == details["transition_id"]
        return bool(answer["status"] == "ACCEPT" or is_ours)

    def _send(self, method: str, path: str, body: object = None) -> Any:
        """Send it, again if the server hung up: whatever is sent here may come twice."""
        for _ in range(MOST_TRIES - 1):
            with suppress(httpx.TransportError):
                return self._once(method, path, body)
        return self._once(method, path, body)

    def _once(self, method: str, path: str, body: object) -> Any:
        answer = self._http.request(method, path, json=body).raise_for_status()
        return answer.json() if answer.content else None
