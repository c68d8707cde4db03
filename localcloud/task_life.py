"""The life of one emulated ECS task: its statuses, versions and times, as ECS would have them.

Fargate drives it from threads of its own; every change is emitted once, with a version of
its own, and DescribeTasks and the events say the same.
"""

import copy
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from moto.ecs.models import Task

from localcloud.containers import ContainerPlan, Description, new_description

FLOW_RUN_ID = "PREFECT__FLOW_RUN_ID"


@dataclass(frozen=True)
class ContainerLife:
    """One task's container, seen from the outside; times in UTC.

    Never started: `started`, `exited` and `exit_code` are None. Alive: `exited` is None.
    """

    task_arn: str
    cluster_arn: str
    flow_run_id: str | None
    capacity: str
    created: datetime
    started: datetime | None
    exited: datetime | None
    interrupted_at: datetime | None
    exit_code: int | None
    cpu: str
    """Of the task, in CPU units."""
    memory: str
    """Of the task, in MiB."""
    environment: Mapping[str, str]
    """As given by task definition and overrides: without secrets, without the emulation's own."""
    stopped: datetime | None = None
    """When the task's status became STOPPED, some time after the container's exit."""


class TaskLife:
    """A task from PROVISIONING to STOPPED; every method may be called from any thread.

    `emit` gets the description after each change, in the order of the versions.
    """

    def __init__(
        self,
        task: Task,
        plan: ContainerPlan,
        capacity: str,
        emit: Callable[[Description], None],
    ) -> None:
        self.task = task
        self.plan = plan
        self.lock = threading.RLock()
        self.wake = threading.Event()  # a stop was requested, or the container ended
        self.ended = threading.Event()  # the container's first process did
        self.process: subprocess.Popen[bytes] | None = None
        self._capacity = capacity
        self._emit = emit
        self._interrupted_at: datetime | None = None
        self._description = new_description(task, plan, capacity, _now())
        self._container: Description = self._description["containers"][0]

    @property
    def stop_requested(self) -> bool:
        """Whether the task is to stop, or has stopped."""
        return bool(self._description["desiredStatus"] == "STOPPED")

    def place(self) -> None:
        """PROVISIONING, version 1."""
        with self.lock:
            self.task.last_status = "PROVISIONING"
            self._emit(self._description)

    def pull(self) -> None:
        """PENDING, unless a stop came first."""
        with self.lock:
            if not self.stop_requested:
                now = _now()
                self._change(
                    "PENDING", connectivity="CONNECTED", connectivityAt=now, pullStartedAt=now
                )

    def run(self, process: subprocess.Popen[bytes]) -> None:
        """RUNNING: the container is this process."""
        with self.lock:
            now = _now()
            self.process = process
            self._container["lastStatus"] = "RUNNING"
            self._change("RUNNING", pullStoppedAt=now, startedAt=now)

    def interrupt(self, stop_code: str, reason: str) -> None:
        """Request a stop that counts as an interruption, unless another came first."""
        with self.lock:
            if self.request_stop(stop_code, reason):
                self._interrupted_at = self._description["stoppingAt"]

    def request_stop(self, stop_code: str, reason: str | None) -> bool:
        """Set the desired status to STOPPED; return whether this was the first request."""
        with self.lock:
            if self.stop_requested:
                return False
            self._note_stop(stop_code, reason)
            self._change(self._description["lastStatus"])
            self.wake.set()
            return True

    def deprovision(self) -> None:
        """DEPROVISIONING: the container is no more, for the reason requested or its own."""
        with self.lock:
            self._container["lastStatus"] = "STOPPED"
            if self.process is not None:
                code = self.process.returncode
                self._container["exitCode"] = code if code >= 0 else 128 - code
                self._description["executionStoppedAt"] = _now()
                if not self.stop_requested:
                    reason = "Essential container in task exited"
                    self._note_stop("EssentialContainerExited", reason)
            self._change("DEPROVISIONING")

    def fail_to_start(self, reason: str) -> None:
        """Record why there will be no container, unless a stop came first."""
        with self.lock:
            if not self.stop_requested:
                self._note_stop("TaskFailedToStart", reason)

    def stop(self) -> None:
        """STOPPED: nothing comes after."""
        with self.lock:
            for attachment in self._description["attachments"]:
                attachment["status"] = "DELETED"
            self._change("STOPPED", stoppedAt=_now())

    def note_health(self, status: str) -> None:
        """HEALTHY or UNHEALTHY, as the container's health check says."""
        with self.lock:
            self._container["healthStatus"] = self._description["healthStatus"] = status

    def describe(self) -> Description:
        """Return what DescribeTasks says now, tags included, times as datetimes."""
        with self.lock:
            return copy.deepcopy(self._description)

    def write_down(self) -> ContainerLife:
        """Return the life so far for the ledger."""
        with self.lock:
            return ContainerLife(
                task_arn=self.task.task_arn,
                cluster_arn=self.task.cluster_arn,
                flow_run_id=self.plan.environment.get(FLOW_RUN_ID),
                capacity=self._capacity,
                created=self._description["createdAt"],
                started=self._description.get("startedAt"),
                exited=self._description.get("executionStoppedAt"),
                interrupted_at=self._interrupted_at,
                exit_code=self._container.get("exitCode"),
                cpu=self.plan.cpu,
                memory=self.plan.memory,
                environment=dict(self.plan.environment),
                stopped=self._description.get("stoppedAt"),
            )

    def _note_stop(self, stop_code: str, reason: str | None) -> None:
        self.task.desired_status = "STOPPED"
        self._description.update(desiredStatus="STOPPED", stopCode=stop_code, stoppingAt=_now())
        if reason is not None:
            self._description["stoppedReason"] = reason

    def _change(self, last_status: str, **changes: object) -> None:
        """One change of the task: one version, one telling."""
        version = self._description["version"] + 1
        self._description.update(changes, lastStatus=last_status, version=version)
        self.task.last_status = last_status
        self._emit(self._description)


def _now() -> datetime:
    return datetime.now(UTC)
