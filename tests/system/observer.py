"""Scenarios with prefect-aws's observer in the worker: it gets the same events, some of them late.

On a stop event it proposes Crashed, whichever task stopped, and on a start event Pending. The
product's worker has no queue for it; a worker of the user's own may have one.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from localcloud.bootstrap import WORK_POOL
from localcloud.cloud import wait_for
from localcloud.events import Delivery, Event, EventRouter, deliver_once
from tests.e2e.scenario import ATTEMPT_SECONDS, Run, Stage
from tests.system.clouds import GRACE_SECONDS

LONGER_THAN_THE_GRACE = GRACE_SECONDS * 2.0
LATE_QUEUE = "late"


class FirstTasksEvents:
    """Keeps the events of a run's first task; the one of status `held_back` waits for `deliver`."""

    def __init__(self, router: EventRouter, held_back: str = "") -> None:
        self.by_status: dict[str, Event] = {}
        self._router = router
        self._held_back = held_back
        self._task_arn = ""

    def __call__(self, event: Event) -> Sequence[Delivery]:
        task_arn, status = event["detail"]["taskArn"], event["detail"]["lastStatus"]
        self._task_arn = self._task_arn or task_arn
        if task_arn != self._task_arn:
            return deliver_once(event)
        self.by_status[status] = event
        return [] if status == self._held_back else deliver_once(event)

    def deliver(self, status: str) -> None:
        """Deliver the task's event of that status, for the first time or once more."""
        wait_for(f"{status} of the first", ATTEMPT_SECONDS, lambda: status in self.by_status)
        self._held_back = ""
        self._router.put(self.by_status[status])


def stop_in_time(stage: Stage) -> Sequence[Run]:
    run = stage.start("waits", interruptions=1)
    run.interrupt_each_start(1)
    run.completes(starts=2)
    return (run,)


def stop_while_the_next_task_starts(stage: Stage) -> Sequence[Run]:
    run, events = interrupted_without_a_stop(stage, seconds=LONGER_THAN_THE_GRACE)
    wait_for("the next task", ATTEMPT_SECONDS, lambda: len(run.containers()) == 2)
    is_crashed_by_the_observer(run, events)
    run.completes(starts=2)
    return (run,)


def stop_while_the_next_attempt_runs(stage: Stage) -> Sequence[Run]:
    run, events = interrupted_without_a_stop(stage, seconds=LONGER_THAN_THE_GRACE)
    run.wait_for_start(2)
    is_crashed_by_the_observer(run, events)
    run.completes(starts=2)
    return (run,)


def stop_before_the_next_interruption(stage: Stage) -> Sequence[Run]:
    run, events = interrupted_without_a_stop(stage, interruptions=2)
    run.wait_for_start(2)
    is_crashed_by_the_observer(run, events)
    run.interrupt()
    run.completes(starts=3)
    return (run,)


def start_once_more_before_the_rerun(stage: Stage) -> Sequence[Run]:
    """While the run waits for a worker: it is Pending then, and no worker comes."""
    prefect, events = stage.cloud.prefect, FirstTasksEvents(stage.cloud.router)
    run = stage.start("waits", event_faults=events, interruptions=1, queue=LATE_QUEUE)
    run.wait_for_start(1)
    prefect.pause_queue(WORK_POOL, True, LATE_QUEUE)
    run.interrupt()
    wait_for("the stop event", ATTEMPT_SECONDS, lambda: "STOPPED" in events.by_status)
    wait_for("the observer to be through", ATTEMPT_SECONDS, lambda: observer_has_read_all(stage))
    wait_for("the rerun to be due", ATTEMPT_SECONDS, lambda: is_due(run))
    events.deliver("PROVISIONING")
    run.wait_for_state("PENDING")
    prefect.pause_queue(WORK_POOL, False, LATE_QUEUE)
    run.completes(starts=2)
    return (run,)


def interrupted_without_a_stop(
    stage: Stage, interruptions: int = 1, seconds: float = 1
) -> tuple[Run, FirstTasksEvents]:
    """A run whose first task was interrupted, and whose STOPPED event is held back."""
    events = FirstTasksEvents(stage.cloud.router, held_back="STOPPED")
    run = stage.start("waits", event_faults=events, interruptions=interruptions, seconds=seconds)
    run.interrupt_each_start(1)
    return run, events


def is_crashed_by_the_observer(run: Run, events: FirstTasksEvents) -> None:
    events.deliver("STOPPED")

    def crash() -> str | None:
        states = run.cloud.prefect.history(run.id)
        messages = [s["message"] for s in states if s["type"] == "CRASHED"]
        return messages[-1] if messages else None

    message = wait_for("the observer's Crashed", ATTEMPT_SECONDS, crash)
    assert "stopped with a non-zero exit code" in message


def observer_has_read_all(stage: Stage) -> bool:
    sqs = stage.cloud.aws.client("sqs")
    url = sqs.get_queue_url(QueueName=f"{WORK_POOL}-ecs-events")["QueueUrl"]
    counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=counts)["Attributes"]
    return not any(map(int, attributes.values()))


def is_due(run: Run) -> bool:
    """Whether a worker may have it now: made due, not only parked."""
    state = run.fields()["state"]
    if state["type"] != "SCHEDULED":
        return False
    return datetime.fromisoformat(state["state_details"]["scheduled_time"]) <= datetime.now(UTC)


SCENARIOS = {
    "a stop in time": stop_in_time,
    "an old stop, while the next task starts": stop_while_the_next_task_starts,
    "an old stop, while the next attempt runs": stop_while_the_next_attempt_runs,
    "an old stop, then an interruption": stop_before_the_next_interruption,
    "an old start, before the rerun": start_once_more_before_the_rerun,
}
