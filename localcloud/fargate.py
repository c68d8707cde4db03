"""Fargate on the laptop: a process per container, with ECS's statuses, events and Spot stops.

moto's RunTask and StopTask end here; every change of a task becomes the event EventBridge would
get. `ledger()` is what the oracle judges by.
"""

import contextlib
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from moto.ecs.models import Task, TaskDefinition

from localcloud import moto_additions
from localcloud.aws import EmulatedAws
from localcloud.containers import (
    Description,
    SecretUnavailableError,
    overridden_environment,
    plan_container,
    resolve_secrets,
    state_change_event,
)
from localcloud.ecs_services import reconcile_services
from localcloud.processes import Supervisor, end_tree, free_port
from localcloud.task_life import FLOW_RUN_ID, ContainerLife, TaskLife

TASK_MARKER = "PREFECT_SPOT_ECS_TASK"
DRILL = "prefect-spot drill"
REFUSED_CAPACITY = "EMULATED_REFUSED_CAPACITY"
"""A container's variable: RunTask has no room for this task on the capacity of that name.

"FARGATE_SPOT after 1": only once the flow run has had a task.
"""
FAILED_STARTS = "EMULATED_FAILED_STARTS"
"""A container's variable, "2 Timeout …": the flow run's first two tasks never start: why."""
PROVISIONING_SECONDS = "EMULATED_PROVISIONING_SECONDS"
"""A container's variable: how long this task's provisioning takes, instead of `Timings`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timings:
    """How long ECS takes.

    In reality: provisioning about 10 s, pending (image pull) 10 to 60 s, deprovisioning 22 to
    73 s (until the network interface is detached); services are reconciled every few seconds.
    """

    provisioning_seconds: float = 0.2
    pending_seconds: float = 0.2
    deprovisioning_seconds: float = 1.0
    stop_timeout_scale: float = 1.0
    """Factor on a container's `stopTimeout`, which is 30 s unless the task definition says so."""
    health_check_scale: float = 0.1
    """Factor on the interval between two health checks, which is 30 s unless the task says so."""
    start_period_scale: float = 1.0
    """Factor on a health check's `startPeriod`, which programs need here as they do there."""
    service_seconds: float = 1.0
    """Between two passes over the services; a dead task is replaced at the next one."""


class Fargate:
    """Runs the first container of every task ECS places, as long as the `with` block lasts.

    A container's variables `REFUSED_CAPACITY`, `FAILED_STARTS` and `PROVISIONING_SECONDS` change
    what happens to its task. `errors` keeps what `on_event` and the emulation's own threads raised;
    expect it empty.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        aws: EmulatedAws,
        on_event: Callable[[dict[str, Any]], object],
        *,
        path_prefix: Path,
        extra_environment: dict[str, str],
        timings: Timings,
    ) -> None:
        self.errors: list[Exception] = []
        self._supervisor = supervisor
        self._aws = aws
        self._on_event = on_event
        self._path_prefix = path_prefix
        self._extra_environment = extra_environment
        self.timings = timings
        self._lives: dict[str, TaskLife] = {}  # by task ARN, in the order of placing
        self._closed = threading.Event()
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Run ECS's tasks, and keep `desiredCount` tasks of every service running.

        CloudFormation waits from now on until a service it makes or changes is steady.
        """
        self._start_thread(self._pass_on_events)
        self._start_thread(self._keep_services)
        moto_additions.connect_ecs(
            moto_additions.EcsHooks(
                has_capacity=self._has_capacity,
                place=self._place,
                stop=self._stop_by_user,
                describe=self.describe,
            )
        )
        self._aws.cloudformation.services_are_kept = True
        return self

    def __exit__(self, *_: object) -> None:
        """End all containers; no event is sent any more."""
        self._closed.set()
        self._aws.cloudformation.services_are_kept = False
        moto_additions.connect_ecs(None)
        for life in list(self._lives.values()):
            with life.lock:  # no container starts from here on
                life.wake.set()
            if life.process and not life.ended.is_set():
                end_tree(life.process, (TASK_MARKER, life.task.task_arn))
        self._events.put(None)
        for thread in self._threads:
            thread.join(timeout=10)

    def interrupt(
        self,
        task_arn: str,
        stop_code: str = "SpotInterruption",
        reason: str = "Your Spot Task was interrupted.",
    ) -> None:
        """Take the task as Spot does: warning, SIGTERM to the group, SIGKILL after `stopTimeout`.

        Without effect on a task that is stopping already. Raises KeyError for an unknown one.
        """
        self._lives[task_arn].interrupt(stop_code, reason)

    def log_of(self, task_arn: str) -> Path:
        """Return the file with the container's output; it is there once the container was."""
        return self._supervisor.folder / "tasks" / f"{task_arn.split('/')[-1]}.log"

    def ledger(self) -> list[ContainerLife]:
        """Return every task's container so far, in the order RunTask placed them."""
        return [life.write_down() for life in list(self._lives.values())]

    def describe(self, task: Task) -> Description:
        """Return a task as DescribeTasks does. Raises KeyError unless it was placed here."""
        return self._lives[task.task_arn].describe()

    def running(self, flow_run_id: str) -> list[str]:
        """Return the ARNs of the flow run's tasks whose container is alive."""
        return [
            life.task_arn
            for life in self.ledger()
            if life.flow_run_id == flow_run_id and life.started and not life.exited
        ]

    def _keep_services(self) -> None:
        def stop(task_arn: str, reason: str) -> None:
            self._lives[task_arn].request_stop("ServiceSchedulerInitiated", reason)

        while not self._closed.wait(self.timings.service_seconds):
            try:
                reconcile_services(self._aws.ecs, stop, self.describe)
            except Exception as error:  # the next pass may succeed
                self._note(error)

    def _has_capacity(self, capacity: str, overrides: Mapping[str, Any]) -> bool:
        variables = overridden_environment(overrides)
        refused, _, after = variables.get(REFUSED_CAPACITY, "").partition(" after ")
        before = len(self._tasks_of(variables.get(FLOW_RUN_ID))) if after else 0
        return refused != capacity or before < int(after or 0)

    def _tasks_of(self, flow_run_id: str | None) -> list[str]:
        """ARNs of the flow run's tasks, in the order RunTask placed them."""
        lives = list(self._lives.values())
        return [
            life.task.task_arn
            for life in lives
            if life.plan.environment.get(FLOW_RUN_ID) == flow_run_id
        ]

    def _place(self, task: Task, definition: TaskDefinition, capacity: str) -> None:
        life = TaskLife(task, plan_container(definition, task.overrides), capacity, self._emit)
        self._lives[task.task_arn] = life
        life.place()
        self._start_thread(lambda: self._live(life))

    def _live(self, life: TaskLife) -> None:
        """One task from PROVISIONING to STOPPED, in a thread of its own."""
        try:
            own_seconds = life.plan.environment.get(PROVISIONING_SECONDS)
            life.wake.wait(float(own_seconds or self.timings.provisioning_seconds))
            if why := self._why_it_fails(life):  # a network interface fails before any pull
                life.fail_to_start(why)
            else:
                life.pull()
                life.wake.wait(self.timings.pending_seconds)
                self._start_container(life)
            if life.process is not None:
                life.wake.wait()
                self._end_container(life, life.process)
                self._keep_log(life)
            life.deprovision()
            self._closed.wait(self.timings.deprovisioning_seconds)
            life.stop()
        except Exception as error:
            self._note(error)

    def _why_it_fails(self, life: TaskLife) -> str:
        variables = life.plan.environment
        times, _, why = variables.get(FAILED_STARTS, "0").partition(" ")
        number = self._tasks_of(variables.get(FLOW_RUN_ID)).index(life.task.task_arn)
        return why if number < int(times) else ""

    def _start_container(self, life: TaskLife) -> None:
        try:
            secrets = resolve_secrets(self._aws, life.plan.secrets)
            with life.lock:  # a stop comes before the start, or finds the process
                if not life.stop_requested and not self._closed.is_set():
                    life.run(self._spawn(life, secrets))
        except SecretUnavailableError as error:
            life.fail_to_start(str(error))
        except OSError as error:
            life.fail_to_start(f"CannotStartContainerError: {error}")

    def _spawn(self, life: TaskLife, secrets: dict[str, str]) -> subprocess.Popen[bytes]:
        arn = life.task.task_arn
        if not life.plan.command:
            raise OSError("an image's own command is not emulated: give the container a command")
        home = self._supervisor.folder / "tasks" / life.task.id
        (home / "tmp").mkdir(parents=True)
        environment = {
            "PATH": f"{self._path_prefix}{os.pathsep}/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "LANG": "C.UTF-8",
            **self._aws.environment(),
            # By this, `EmulatedAws.calls` names the caller.
            **({"AWS_ACCESS_KEY_ID": life.plan.role} if life.plan.role else {}),
            # A container has ports of its own; here, two workers would want the same one.
            "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
            **self._extra_environment,
            **life.plan.environment,
            **secrets,
        }
        process = self._supervisor.spawn(
            life.plan.command,
            env=environment,
            cwd=home,
            log=self.log_of(arn),
            extra_marker={TASK_MARKER: arn},
        )

        def notice_the_end() -> None:
            process.wait()
            life.ended.set()
            life.wake.set()

        self._start_thread(notice_the_end)
        if check := life.plan.health_check:
            self._start_thread(lambda: self._watch_health(life, check, environment))
        return process

    def _watch_health(
        self, life: TaskLife, check: Mapping[str, Any], environment: dict[str, str]
    ) -> None:
        """Run the health check at its intervals until it passes, or `retries` failed in a row.

        Those within `startPeriod` count for nothing. What comes after the first verdict is not
        emulated: one check takes a process.
        """
        failed, ends = (
            0,
            time.monotonic() + (check.get("startPeriod", 0) * self.timings.start_period_scale),
        )
        while not life.wake.wait(check["interval"] * self.timings.health_check_scale):
            if _passes(check, environment):
                return life.note_health("HEALTHY")
            failed += time.monotonic() >= ends
            if failed >= check["retries"]:
                return life.note_health("UNHEALTHY")
        return None

    def _end_container(self, life: TaskLife, process: subprocess.Popen[bytes]) -> None:
        """End the container, which a stop or its own end woke: no process of it stays."""
        if not life.ended.is_set() and not self._closed.is_set():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGTERM)  # as Prefect's `tini -g` does
            life.ended.wait(life.plan.stop_timeout_seconds * self.timings.stop_timeout_scale)
        # Also after a good end: the end of a container is the end of all that runs in it.
        end_tree(process, (TASK_MARKER, life.task.task_arn))
        life.ended.wait()

    def _keep_log(self, life: TaskLife) -> None:
        """Give the container's last lines to CloudWatch Logs, as its awslogs driver does.

        On AWS they arrive while it runs. Lost are those of a log group that is gone.
        """
        lines = self.log_of(life.task.task_arn).read_text(errors="replace").splitlines()
        stream, options = life.plan.log_stream_of(life.task.id), life.plan.log_options
        if not lines or not stream:
            return
        logs, now = self._aws.client("logs"), time.time_ns() // 1_000_000
        place = {"logGroupName": options["awslogs-group"], "logStreamName": stream}
        events = [{"timestamp": now, "message": line} for line in lines[-1000:] if line]
        with contextlib.suppress(logs.exceptions.ResourceNotFoundException):
            logs.create_log_stream(**place)
            logs.put_log_events(**place, logEvents=events)

    def _stop_by_user(self, task: Task, reason: str | None) -> None:
        life = self._lives[task.task_arn]
        if (reason or "").startswith(DRILL):  # meant as an interruption, and judged as one
            life.interrupt("UserInitiated", str(reason))
        else:
            life.request_stop("UserInitiated", reason)

    def _emit(self, description: Description) -> None:
        if not self._closed.is_set():
            self._events.put(state_change_event(description, self._aws))

    def _pass_on_events(self) -> None:
        """Keep the events' order, and let their receiver call ECS while no task is locked."""
        while (event := self._events.get()) is not None:
            try:
                self._on_event(event)
            except Exception as error:  # a receiver's failure is not the task's
                self._note(error)

    def _note(self, error: Exception) -> None:
        self.errors.append(error)
        _log.error("embedded Fargate: %s", error, exc_info=error)

    def _start_thread(self, work: Callable[[], object]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()


def _passes(check: Mapping[str, Any], environment: dict[str, str]) -> bool:
    """Run the command where the container runs."""
    how, *command = check["command"]
    if how != "CMD":
        raise NotImplementedError(f"only health checks by CMD are emulated, not {how}")
    try:
        finished = subprocess.run(
            command,
            env=environment,
            cwd=environment["HOME"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=check["timeout"],
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return finished.returncode == 0
