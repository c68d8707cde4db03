"""What becomes of an interrupted run, played on a real server: each side gets the same events.

The bench plays worker and engine: it lets the run that is due be RUNNING in a new task, fails it,
or completes it. Every answer is read from Prefect, or from a parent that waits in a process.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lab.bench.comparison import AUTOMATED, OURS, THEIRS, Comparison, Side
from lab.bench.interruptions import Interruption, Json, out_of_memory, stop_of, task_of
from lab.bench.servers import Aws, Prefect, fresh_aws
from lab.tables import Row
from localcloud.cloud import wait_for
from localcloud.processes import Supervisor

PREFETCH: Final = timedelta(seconds=10)
"""How far ahead Prefect's worker asks for runs."""

SECONDS: Final = 60.0
"""In which a run that is to start again is due."""

SECONDS_WITHOUT: Final = 5.0
"""After which no other is expected any more."""

RUNTIMES: Final = 2
ALLOWED: Final = 2
"""Reruns on Spot, by a tag of the deployment."""

PARENT: Final = """
import sys
from uuid import UUID
from prefect.deployments import run_deployment

run = run_deployment(UUID(sys.argv[1]), timeout=None, poll_interval=1, as_subflow=False)
print("ended:", run.state.name)
"""
PARENT_SECONDS: Final = 60.0

Outcome = tuple[str, str, bool]
"""What is asked, what was observed, and whether that is right."""


@dataclass(frozen=True)
class Stage:
    """A side, and the deployment whose runs are interrupted."""

    supervisor: Supervisor
    prefect: Prefect
    aws: Aws
    side: Side
    automated: bool = False
    """Prefect's own automation reruns each run that is Crashed, by and by."""

    def begin(self, **fields: Any) -> Interruption:
        """Let a run be RUNNING in a task that ECS has."""
        return self._known_to_ecs(self.prefect.begin(Interruption(), **fields))

    def take(self, run: Mapping[str, Any]) -> Interruption:
        """Let a run that is due be RUNNING in a new task."""
        return self._known_to_ecs(self.prefect.take(run["id"], Interruption(run_id=run["id"])))

    def ends(self, event: Json) -> None:
        """Deliver the event of a task's end, and wait until it is handled."""
        self.side.deliver([event])
        self.side.wait()

    def due(self, seconds: float = SECONDS) -> Mapping[str, Any] | None:
        """Return the run that a worker gets by then; None for none."""

        def ask() -> Mapping[str, Any] | None:
            return self.prefect.due_run(datetime.now(UTC) + PREFETCH)

        with suppress(TimeoutError):
            return wait_for("a run that is due", seconds, ask, 0.5)
        return None

    def rerun(self, of: Interruption) -> Mapping[str, Any]:
        """Interrupt it, and return the run that is due then. Raises RuntimeError for none."""
        self.ends(stop_of(of))
        if (run := self.due()) is None:
            raise RuntimeError(f"no run is due after the interruption of {of}")
        return run

    def _known_to_ecs(self, began: Interruption) -> Interruption:
        self.aws.add("tasks", [task_of(began)])
        return began


def same_run(stage: Stage) -> Iterator[Outcome]:
    """Whether it is the run that was interrupted, with what it was started with."""
    of = stage.begin(parameters={"day": "Monday"}, job_variables={"cpu": 2048})
    run = stage.rerun(of)
    is_same = run["id"] == of.run_id
    yield "the run that is due", "the same" if is_same else "a new one", is_same
    inputs = (run["parameters"].get("day"), (run["job_variables"] or {}).get("cpu"))
    kept = inputs == ("Monday", 2048)
    yield "its parameters, and the cpu it was given", "kept" if kept else "lost", kept


def waiting_parent(stage: Stage) -> Iterator[Outcome]:
    """Whether a parent in `run_deployment` waits for the rerun of its child."""
    home = stage.supervisor.folder / "parent"
    log = home / f"{stage.prefect.deployment_id}.log"
    stage.supervisor.spawn(
        [sys.executable, "-c", PARENT, stage.prefect.deployment_id],
        env={**stage.prefect.environment, "PATH": "/usr/bin:/bin", "HOME": str(home)},
        cwd=stage.supervisor.folder,
        log=log,
    )
    child = wait_for("the child", PARENT_SECONDS, stage.due)
    again = stage.take(stage.rerun(stage.take(child)))
    stage.prefect.move(again.run_id, "COMPLETED")
    wait_for("the parent's answer", PARENT_SECONDS, lambda: "ended: " in log.read_text())
    got = log.read_text().rpartition("ended: ")[2].strip()
    yield "what a parent that waits for it gets", got, got == "Completed"


def budget(stage: Stage) -> Iterator[Outcome]:
    """Whether reruns on Spot have an end, and what comes then."""
    stage.prefect.renew_deployment([f"spot-retries:{ALLOWED}"])
    of = stage.begin(tags=[])
    went = []
    for _ in range(ALLOWED + 1):
        run = stage.rerun(of)
        on_demand = (run["job_variables"] or {}).get("launch_type") == "FARGATE"
        went.append("FARGATE" if on_demand else "Spot")
        of = stage.take(run)
    on_spot = went.count("Spot")
    asked = f"reruns on Spot, of {ALLOWED} allowed, after {len(went)} interruptions"
    yield asked, str(on_spot), on_spot == ALLOWED
    yield "where it goes after the last of these", went[-1], went[-1] == "FARGATE"


def own_retries(stage: Stage) -> Iterator[Outcome]:
    """Whether Prefect retries a failure after the interruption, as the flow asks."""
    run = stage.rerun(stage.begin(retries=1))
    again = stage.take(run)
    if run["empirical_policy"]["retries"] is None:  # the engine writes it when a run starts
        policy = {"empirical_policy": {"retries": 1, "retry_delay": 0}}
        stage.prefect.send("PATCH", f"/flow_runs/{again.run_id}", policy)
    answer = stage.prefect.set_state(again.run_id, {"type": "FAILED"})
    is_left = answer["status"] == "REJECT" and answer["state"]["name"] == "AwaitingRetry"
    yield "the flow's own retry, afterwards", "left" if is_left else "used up", is_left


def exits_with_0(stage: Stage) -> Iterator[Outcome]:
    """Whether a flow that ended cleanly at SIGTERM runs again."""
    of = stage.begin()
    stage.ends(stop_of(of, 0))
    run = stage.due(SECONDS_WITHOUT)
    stays = f"stays {stage.prefect.run(of.run_id)['state']['name']}"
    yield "interrupted, and its container exits with 0", "due" if run else stays, run is not None


def other_death(stage: Stage) -> Iterator[Outcome]:
    """Whether a run that Spot did not interrupt is left alone."""
    stage.ends(out_of_memory(stage.begin()))
    run = stage.due(SECONDS if stage.automated else SECONDS_WITHOUT)
    yield "out of memory: no interruption", "runs again" if run else "not rerun", run is None


PLAYS: Final[tuple[Callable[[Stage], Iterator[Outcome]], ...]] = (
    same_run,
    waiting_parent,
    budget,
    own_retries,
    exits_with_0,
    other_death,
)


def observed(comparison: Comparison, prefect: Prefect) -> list[Row]:
    """Play everything on either side; return what was observed, and whether it is right."""
    found: dict[str, list[Outcome]] = {OURS: [], AUTOMATED: []}
    supervisor = comparison.stage.supervisor
    for name, outcomes in found.items():
        with fresh_aws(supervisor) as aws:
            if name == OURS:
                with comparison.side(OURS, prefect, aws, RUNTIMES) as side:
                    outcomes += _played(Stage(supervisor, prefect, aws, side))
            else:
                with prefect.automation(), comparison.side(THEIRS, prefect, aws, 1) as side:
                    outcomes += _played(Stage(supervisor, prefect, aws, side, automated=True))
        for asked, answer, _ in outcomes:
            comparison.log(f"{asked}, {name}: {answer}")
    rows: list[Row] = []
    for outcomes_of_one in zip(*found.values(), strict=True):
        rows.append({"": outcomes_of_one[0][0]})
        for name, (_, answer, is_right) in zip(found, outcomes_of_one, strict=True):
            rows[-1][name] = answer
            rows[-1][f"{name} is right"] = "yes" if is_right else "NO"
    return rows


def _played(stage: Stage) -> Iterator[Outcome]:
    for play in PLAYS:
        stage.prefect.renew_deployment()
        yield from play(stage)
