"""The steps of a drill: which are done, since when, and what failed. No I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import Interruption, RunState, StateType
from chalicelib.core.rescue.rerun_state import due_id, park_ids_of


class Progress(StrEnum):
    """The state of a step."""

    DONE = "done"
    WAITING = "waiting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `at` is when it was done, in UTC; None before, or where unrecorded."""

    name: str
    progress: Progress
    at: datetime | None = None
    found: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known at one moment of the drill. Times are UTC.

    `asked_at`: when StopTask was called. `task`: the interrupted one. `stopping_at`: when ECS sent
    its container SIGTERM. `interruption`: its entry in the run record. `history`: the run's states,
    oldest first. `newer`: the run's next task. `is_observing`: MODE is observe.
    """

    asked_at: datetime
    task: Task
    stopping_at: datetime | None = None
    interruption: Interruption | None = None
    history: tuple[RunState, ...] = field(default=(), hash=False)
    newer: Task | None = None
    is_observing: bool = False


NEXT_STEPS: Final = {
    "SIGTERM": "ECS has not stopped the task: check it in the ECS console",
    "container exit": "the flow ignores SIGTERM: ECS kills it after its stopTimeout",
    "event": "no event reached react: run spotctl status, and read react's log",
    "decision": "read react's log; sweep repairs what react could not, within ten minutes",
    "parked": "Prefect did not accept the state: read react's log",
    "due": "read react's log; sweep finishes a parked run within ten minutes",
    "picked up": "the worker (of a push pool: Prefect Cloud) starts no runs: run spotctl status",
    "running": "the new task does not start: check its stopped reason, and the worker's log",
    "capacity": "ECS does not know the run's new task: check the run in Prefect",
}
"""What to do when a drill fails or times out at a step."""


def timeline(seen: Seen) -> tuple[Step, ...]:
    """Return all steps of the drill, in order.

    In observe mode a drill ends with the decision, which no handler carries out.
    """
    event = seen.interruption
    steps = (
        Step("stop asked", Progress.DONE, seen.asked_at, f"StopTask {seen.task.arn}"),
        _step("SIGTERM", seen.stopping_at),
        _exit(seen),
        _step("event", event.recorded_at, f"react has recorded a {event.cause}")
        if event
        else _step("event", None),
        _decision(seen),
    )
    if seen.is_observing:
        return steps
    due, after = _due_and_after(seen)
    return (
        *steps,
        _of_state("parked", _parked(seen)),
        _due(seen, due),
        _of_state("picked up", _first(after, StateType.PENDING, StateType.RUNNING)),
        _running(seen, after),
        _capacity(seen),
    )


def by_time(steps: Iterable[Step]) -> list[Step]:
    """Return the steps in the order in which they were done; last those without a time."""
    never = datetime.max.replace(tzinfo=UTC)
    return sorted(steps, key=lambda step: step.at or never)


def is_passed(steps: Sequence[Step]) -> bool:
    """Whether all steps are done."""
    return all(step.progress is Progress.DONE for step in steps)


def failure(steps: Sequence[Step]) -> Step | None:
    """Return the first failed step, None where none failed."""
    return next((step for step in steps if step.progress is Progress.FAILED), None)


def reaction_seconds(seen: Seen) -> float | None:
    """Return the seconds from the container's exit until the run was due again, None before.

    By two clocks: ECS's and Prefect's.
    """
    (due, _), exited_at = _due_and_after(seen), seen.task.exited_at
    return max(0.0, (due.timestamp - exited_at).total_seconds()) if due and exited_at else None


def _step(name: str, at: datetime | None, found: str = "") -> Step:
    return Step(name, Progress.WAITING if at is None else Progress.DONE, at, found if at else "")


def _exit(seen: Seen) -> Step:
    exited_at = seen.task.exited_at
    code = "no exit code" if seen.task.exit_code is None else f"exit code {seen.task.exit_code}"
    if exited_at is None or seen.stopping_at is None:
        return _step("container exit", exited_at, code)
    seconds = max(0.0, (exited_at - seen.stopping_at).total_seconds())
    return _step("container exit", exited_at, f"{code}, {seconds:.1f} s after SIGTERM")


def _decision(seen: Seen) -> Step:
    interruption = seen.interruption
    if interruption is not None and interruption.rerun_on:
        would = "would be rerun" if seen.is_observing else "rerun"
        found = f"{would} on {interruption.rerun_on}: interruption {interruption.number} of the run"
        parked = _parked(seen)  # the upper bound, where `react` is of an older release
        at = interruption.decided_at or (parked.timestamp if parked else None)
        return Step("decision", Progress.DONE, at, found)
    state = seen.history[-1] if seen.history else None
    if interruption is not None and interruption.outcome_annotated and state is not None:
        return Step("decision", Progress.FAILED, None, f"not rerun: {state.message or state.name}")
    if state is not None and state.is_over and state.timestamp >= seen.asked_at:
        found = f"the run was {state.name} before it could be interrupted: drill a longer one"
        return Step("decision", Progress.FAILED, state.timestamp, found)
    return Step("decision", Progress.WAITING)


def _parked(seen: Seen) -> RunState | None:
    ids = park_ids_of(seen.task.arn, seen.history)
    return next((state for state in seen.history if state.transition_id in ids), None)


def _due_and_after(seen: Seen) -> tuple[RunState | None, Sequence[RunState]]:
    dues = set(map(due_id, park_ids_of(seen.task.arn, seen.history)))
    for place, state in enumerate(seen.history):
        if state.transition_id in dues:
            return state, seen.history[place + 1 :]
    return None, ()


def _due(seen: Seen, due: RunState | None) -> Step:
    reaction = reaction_seconds(seen)
    found = f"{reaction:.2f} s after the container's exit" if reaction is not None else ""
    return _step("due", due.timestamp if due else None, found)


def _of_state(name: str, state: RunState | None) -> Step:
    return _step(name, state.timestamp if state else None, state.name if state else "")


def _first(states: Sequence[RunState], *types: StateType) -> RunState | None:
    return next((state for state in states if state.type in types), None)


def _running(seen: Seen, after: Sequence[RunState]) -> Step:
    state = _first(after, StateType.RUNNING)
    started_at, exited_at = seen.newer.started_at if seen.newer else None, seen.task.exited_at
    if started_at is not None and exited_at is not None and started_at < exited_at:
        found = "the new container started before the old one had exited: the flow ran twice"
        return Step("running", Progress.FAILED, started_at, found)
    return _of_state("running", state)


def _capacity(seen: Seen) -> Step:
    newer, decided = seen.newer, seen.interruption.rerun_on if seen.interruption else ""
    if newer is None or not decided:
        return Step("capacity", Progress.WAITING)
    found = f"{newer.capacity}, task {newer.arn.rpartition('/')[2]}"
    if newer.capacity != decided:
        return Step("capacity", Progress.FAILED, newer.created_at, f"{found}, not {decided}")
    return Step("capacity", Progress.DONE, newer.created_at, found)
