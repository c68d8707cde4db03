"""Drives one flow run through the embedded cloud: start, interrupt, wait, judge."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from localcloud.bootstrap import WORK_POOL
from localcloud.cloud import Cloud, Options, embedded_cloud, wait_for
from localcloud.oracle import Verdict, judge
from localcloud.task_life import ContainerLife

ATTEMPT_SECONDS = 90
END_SECONDS = 120
IDLE_SECONDS = 150
"""Lambda's two further tries of an event, say of a function that another test took down."""


@dataclass(frozen=True)
class Stage:
    """The cloud with the test flows deployed to it."""

    cloud: Cloud
    deployments: dict[str, str]
    folder: Path

    def start(
        self,
        flow: str,
        *,
        tags: Sequence[str] = (),
        job_variables: dict[str, Any] | None = None,
        queue: str = "default",
        **parameters: Any,
    ) -> "Run":
        """Start a run; it notes what it really does in a file of its own."""
        notes = self.folder / f"{flow}-{uuid4().hex[:8]}"
        run_id = self.cloud.prefect.start(
            self.deployments[flow],
            tags=list(tags),
            job_variables=job_variables or {},
            work_queue_name=queue,
            parameters={"file": str(notes), **parameters},
        )
        return Run(self.cloud, run_id, notes)


@contextmanager
def set_up(options: Options, folder: Path) -> Iterator[Stage]:
    """A cloud of its own, with the test flows deployed; `folder` is for their notes."""
    with embedded_cloud(options, tell=print) as cloud:
        output = cloud.run_python("-m", "tests.e2e.deploy_flows", WORK_POOL, cloud.account.bucket)
        yield Stage(cloud, json.loads(output.strip().splitlines()[-1]), folder)
        assert cloud.fargate.errors == []


@dataclass(frozen=True)
class Run:
    """One flow run, and the file in which its flow notes what it does."""

    cloud: Cloud
    id: str
    notes_file: Path

    def notes(self) -> list[str]:
        return self.notes_file.read_text().splitlines() if self.notes_file.exists() else []

    def starts(self) -> int:
        return self.notes().count("start")

    def containers(self) -> list[ContainerLife]:
        return [life for life in self.cloud.fargate.ledger() if life.flow_run_id == self.id]

    def wait_for_start(self, number: int, seconds: float = ATTEMPT_SECONDS) -> None:
        wait_for(f"start {number} of {self.id}", seconds, lambda: self.starts() >= number)

    def interrupt(self) -> str:
        """Have Spot take the run's newest task; return its ARN once the container has exited."""
        task = self.containers()[-1].task_arn
        self.cloud.fargate.interrupt(task)
        wait_for("the container's exit", ATTEMPT_SECONDS, lambda: self._life(task).exited)
        return task

    def wait_for_end(self) -> dict[str, Any]:
        """Wait until the run is over and none of its containers is left; return the run."""
        prefect = self.cloud.prefect
        wait_for(f"the end of {self.id}", END_SECONDS, lambda: prefect.is_final(self.id))
        wait_for("the last container's exit", 30, lambda: not self.cloud.fargate.running(self.id))
        self.cloud.lambdas.wait_idle(IDLE_SECONDS)
        return prefect.run(self.id)

    def verdict(self, *, budget: int | None = None, rescued: bool = True) -> Verdict:
        return judge(self.cloud.observe(self.id, budget=budget, rescued=rescued))

    def states(self) -> list[str]:
        return [state["type"] for state in self.cloud.prefect.history(self.id)]

    def _life(self, task: str) -> ContainerLife:
        return next(life for life in self.containers() if life.task_arn == task)
