"""A simulated worker, and the simulated engines of its tasks, against a real Prefect server.

For more runs at once than a laptop has room for: a task's container is a waiting shell. A run that
Prefect hands out twice is started twice, and the oracle sees both containers.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx

from localcloud.bootstrap import CLUSTER, WORK_POOL
from localcloud.cloud import Cloud, wait_for
from tests.e2e.scenario import Stage

FLOW = "simulated"
SCRIPT = "trap 'sleep 1; exit 1' TERM; until [ -e \"$DONE\" ]; do sleep 1 & wait $!; done"
"""Of each container: it exits once its engine is done, or a second after Spot's SIGTERM."""
OWN_RETRIES = 2
"""Of the flow."""
PREFETCH = timedelta(seconds=10)
START_SECONDS = 60
MOST_THREADS = 8
MOST_TRIES = 4
"""Of a request on which the server hangs up, as Prefect's own client would send it again."""

T = TypeVar("T")


@contextmanager
def simulated_worker(stage: Stage) -> Iterator[None]:
    """Run the worker, for runs of the deployment `FLOW`, which takes `seconds` as a parameter.

    A run's first attempt works until its task is interrupted; a later one completes after those
    seconds. Each start is noted in the run's file.
    """
    worker = SimulatedWorker(stage.cloud)
    stage.deployments[FLOW] = worker.deployment_id
    polling = threading.Thread(target=worker.keep_polling, daemon=True)
    polling.start()
    yield
    worker.closed.set()
    polling.join()
    worker.pool.shutdown()
    assert worker.errors == []


class SimulatedWorker:
    """`errors` keeps what its threads raised; expect it empty."""

    def __init__(self, cloud: Cloud) -> None:
        self.errors: list[Exception] = []
        self.closed = threading.Event()
        self.pool = ThreadPoolExecutor(MOST_THREADS)
        self._cloud = cloud
        self._submitting: set[str] = set()
        flow = cloud.prefect.send("POST", "/flows/", {"name": FLOW})
        deployment = {
            "name": FLOW,
            "flow_id": flow["id"],
            "work_pool_name": WORK_POOL,
            "enforce_parameter_schema": False,
        }
        self.deployment_id = str(cloud.prefect.send("POST", "/deployments/", deployment)["id"])
        definition = cloud.aws.client("ecs").register_task_definition(
            family=FLOW,
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            containerDefinitions=[
                {"name": "prefect", "image": "none", "memory": 512, "command": ["sh", "-c", SCRIPT]}
            ],
        )
        self._definition = str(definition["taskDefinition"]["taskDefinitionArn"])

    def keep_polling(self) -> None:
        path = f"/work_pools/{WORK_POOL}/get_scheduled_flow_runs"
        while not self.closed.wait(1):
            before = (datetime.now(UTC) + PREFETCH).isoformat()
            body = {"scheduled_before": before, "limit": 100}
            try:
                given = self._cloud.prefect.send("POST", path, body)
            except httpx.TransportError:
                continue  # the next poll asks again
            except httpx.HTTPError as error:
                self.errors.append(error)
                continue
            for run in (answer["flow_run"] for answer in given):
                if run["id"] not in self._submitting:
                    self._submitting.add(run["id"])
                    self.pool.submit(self._submit, run)

    def takes(self, run: dict[str, Any]) -> bool:
        """Take a run that is due, and start it; whether the server gives it."""
        due = run["state"]["state_details"]["scheduled_time"]
        if not due or datetime.fromisoformat(due) > datetime.now(UTC) + PREFETCH:
            return False
        is_ours = self._moves(run["id"], "PENDING")
        if is_ours:
            self.pool.submit(self._submit, run, taken=True)
        return is_ours

    def _submit(self, run: dict[str, Any], taken: bool = False) -> None:
        try:
            if taken or self._moves(run["id"], "PENDING"):
                self._start(run)
        except Exception as error:
            self.errors.append(error)
        finally:
            self._submitting.discard(run["id"])

    def _start(self, run: dict[str, Any]) -> None:
        """RunTask, the note of it on the run, and the engine once the container has started."""
        run_id, notes = run["id"], Path(run["parameters"]["file"])
        task_arn = self._run_task(run)
        pid = f"{task_arn.replace(':task/', ':cluster/').rpartition('/')[0]}::{task_arn}"
        self._change(run_id, infrastructure_pid=pid)
        policy = self._cloud.prefect.run(run_id)["empirical_policy"]
        if policy["retries"] is None:
            own = {"retries": OWN_RETRIES, "retry_delay": 0}
            self._change(run_id, empirical_policy={**policy, **own})
        fargate = self._cloud.fargate
        wait_for("the container", START_SECONDS, lambda: fargate.running(run_id))
        while not self._moves(run_id, "RUNNING"):
            if self.closed.wait(1):  # it is too early to run: an engine waits then
                return
        with notes.open("a") as file:
            file.write("start\n")
        if len(notes.read_text().splitlines()) > 1:
            seconds = run["parameters"]["seconds"]
            threading.Timer(seconds, self._finish, (run,)).start()

    def _finish(self, run: dict[str, Any]) -> None:
        try:
            self._moves(run["id"], "COMPLETED")
            done_file(run).touch()
        except Exception as error:
            self.errors.append(error)

    def _run_task(self, run: dict[str, Any]) -> str:
        on_demand = run["job_variables"].get("launch_type") == "FARGATE"
        spot = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
        variables = {"PREFECT__FLOW_RUN_ID": run["id"], "DONE": str(done_file(run))}
        environment = [{"name": name, "value": value} for name, value in variables.items()]
        outputs = self._cloud.outputs
        network = {
            "subnets": outputs["SubnetIds"].split(","),
            "securityGroups": outputs["SecurityGroupIds"].split(","),
        }
        answer = self._cloud.aws.client("ecs").run_task(
            cluster=CLUSTER,
            taskDefinition=self._definition,
            overrides={"containerOverrides": [{"name": "prefect", "environment": environment}]},
            networkConfiguration={"awsvpcConfiguration": network},
            tags=[{"key": "prefect.io/flow-run-id", "value": run["id"]}],
            **({"launchType": "FARGATE"} if on_demand else spot),
        )
        return str(answer["tasks"][0]["taskArn"])

    def _change(self, run_id: str, **fields: object) -> None:
        again(lambda: self._cloud.prefect.send("PATCH", f"/flow_runs/{run_id}", fields))

    def _moves(self, run_id: str, kind: str) -> bool:
        """Propose a state as Prefect's SDK does, with an id of its own; whether the run is in it.

        Sent once more after a lost answer, it is rejected as a duplicate: it was accepted before.
        """
        details = {"transition_id": str(uuid4())}
        state = {"type": kind, "name": kind.title(), "state_details": details}
        answer = again(lambda: self._cloud.prefect.set_state(run_id, state))
        now = answer["state"] or {"state_details": {}}
        is_ours = now["state_details"].get("transition_id") == details["transition_id"]
        return bool(answer["status"] == "ACCEPT" or is_ours)


def done_file(run: dict[str, Any]) -> Path:
    return Path(f"{run['parameters']['file']}.done")


def again(send: Callable[[], T]) -> T:
    """Send it, again if the server hung up: twice is as good as once."""
    for _ in range(MOST_TRIES - 1):
        with suppress(httpx.TransportError):
            return send()
    return send()
