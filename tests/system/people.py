"""Scenarios in which an interruption meets what users and Prefect do: cancel, pause, limit."""

import time
from collections.abc import Sequence

from localcloud.bootstrap import WORK_POOL
from localcloud.cloud import wait_for
from localcloud.fargate import PROVISIONING_SECONDS
from tests.e2e.scenario import ATTEMPT_SECONDS, Run, Stage

HELD_QUEUE = "held"


def cancelled_at_the_same_moment(stage: Stage, **job_variables: object) -> Sequence[Run]:
    run = stage.start("waits", job_variables=job_variables, interruptions=1)
    run.wait_for_start(1)
    time.sleep(1)  # an engine can lose a SIGTERM of its first moments
    cancel(run)
    run.interrupt()
    run.wait_for_state("CANCELLED")
    is_not_started_again(stage, run)
    return (run,)


def cancelled_and_crashed(stage: Stage) -> Sequence[Run]:
    """The engine is the container's main process: it reports Crashed as it dies."""
    [run] = cancelled_at_the_same_moment(stage, command="python -m prefect.engine")
    assert run.states()[-3:] == ["CANCELLING", "CRASHED", "CANCELLED"], "this shows nothing"
    return (run,)


def interrupted_and_then_cancelled(stage: Stage) -> Sequence[Run]:
    """The person comes after the rerun was made due, and before a worker does."""
    prefect = stage.cloud.prefect
    run = stage.start("waits", interruptions=1, queue="cancelled")
    run.wait_for_start(1)
    prefect.pause_queue(WORK_POOL, True, "cancelled")
    run.interrupt()
    run.wait_for_state("SCHEDULED")
    cancel(run)
    prefect.pause_queue(WORK_POOL, False, "cancelled")
    run.wait_for_state("CANCELLED")
    is_not_started_again(stage, run)
    return (run,)


def paused(stage: Stage) -> Sequence[Run]:
    """The flow blocks in its process until a person resumes it, after that process is gone."""
    return interrupted_while_paused(stage, "pauses")


def suspended(stage: Stage) -> Sequence[Run]:
    """The flow leaves of itself, and Spot takes the container while it does."""
    return interrupted_while_paused(stage, "suspends")


def interrupted_while_paused(stage: Stage, flow: str) -> Sequence[Run]:
    run = stage.start(flow)
    run.wait_for_state("PAUSED")
    run.interrupt()
    assert run.containers()[0].interrupted_at, "the container was gone before: this shows nothing"
    is_not_started_again(stage, run)
    assert run.states()[-1] == "PAUSED"
    stage.cloud.prefect.resume(run.id)
    run.completes(starts=2)
    assert run.notes() == ["start", "start", "resumed"]
    return (run,)


def interrupted_before_its_container_started(stage: Stage) -> Sequence[Run]:
    slow = {"env": {PROVISIONING_SECONDS: "5"}}
    run = stage.start("waits", job_variables=slow, interruptions=1)
    run.interrupt_each_start(1)
    wait_for("the second task", ATTEMPT_SECONDS, lambda: len(run.containers()) == 2)
    stage.cloud.fargate.interrupt(run.containers()[1].task_arn)
    run.wait_for_state("COMPLETED")
    run.wait_for_end()
    assert [bool(life.started) for life in run.containers()] == [True, False, True]
    assert run.starts() == 2
    return (run,)


def enqueued_under_a_limit(stage: Stage) -> Sequence[Run]:
    """One at a time, and the second one waits: for the first one's rerun, or before it."""
    first = stage.start("ENQUEUE", interruptions=1)
    first.wait_for_start(1)
    second = stage.start("ENQUEUE", interruptions=0)
    wait_for("the wait", ATTEMPT_SECONDS, lambda: state_name(second) == "AwaitingConcurrencySlot")
    first.interrupt()
    first.completes(starts=2)
    second.completes(starts=1)
    interrupted, *others = sorted(
        (*first.containers(), *second.containers()), key=lambda life: life.created
    )
    assert interrupted.exited
    for later in others:
        assert later.started
        assert interrupted.exited <= later.started, "two at a time"
    return first, second


def cancelled_under_a_limit(stage: Stage) -> Sequence[Run]:
    """One or none; the place of the interrupted run is taken before a worker has it again."""
    prefect = stage.cloud.prefect
    first = stage.start("CANCEL_NEW", interruptions=1, queue=HELD_QUEUE)
    first.wait_for_start(1)
    second = stage.start("CANCEL_NEW", interruptions=0)
    second.wait_for_state("CANCELLED")
    prefect.pause_queue(WORK_POOL, True, HELD_QUEUE)
    first.interrupt()
    first.wait_for_state("SCHEDULED")
    third = stage.start("CANCEL_NEW", interruptions=0, gated=True)
    third.wait_for_start(1)
    prefect.pause_queue(WORK_POOL, False, HELD_QUEUE)
    first.wait_for_state("CANCELLED")
    third.let_go_on()
    third.completes(starts=1)
    first.completes(starts=2)
    assert second.containers() == []
    return first, second, third


def cancel(run: Run) -> None:
    run.cloud.prefect.set_state(run.id, {"type": "CANCELLING", "name": "Cancelling"})


def state_name(run: Run) -> str:
    return str(run.cloud.prefect.run(run.id)["state_name"])


def is_not_started_again(stage: Stage, run: Run) -> None:
    """Give `react` and `sweep` every occasion to start the run's second task; see none."""
    stage.sweep()
    assert len(run.containers()) == 1, run.states()


SCENARIOS = {
    "cancelled by a person at the same moment": cancelled_at_the_same_moment,
    "cancelled by a person, and crashed by its engine": cancelled_and_crashed,
    "cancelled by a person before the rerun": interrupted_and_then_cancelled,
    "paused in its process": paused,
    "being suspended": suspended,
    "interrupted before its container started": interrupted_before_its_container_started,
    "under a limit of 1, ENQUEUE": enqueued_under_a_limit,
    "under a limit of 1, CANCEL_NEW": cancelled_under_a_limit,
}
