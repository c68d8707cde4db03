"""prefect-aws's observer runs in the worker, and hears the same news as `react`, some of it late.

It proposes Crashed when it hears of a stop, whatever task that was, and Pending when it hears of a
beginning. Where we own the worker it has no queue; whoever runs their own worker may have one.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from localcloud.bootstrap import WORK_POOL
from localcloud.cloud import wait_for
from localcloud.events import Delivery, Event, EventRouter, deliver_once
from tests.e2e.scenario import ATTEMPT_SECONDS, Run, Stage
from tests.faults.ledger import Ledger
from tests.system.clouds import GRACE_SECONDS, OBSERVED
from tests.system.plays import Play, Playbill, completes

pytestmark = pytest.mark.parametrize("options", [OBSERVED], indirect=True, ids=["observed"])

LONGER_THAN_THE_GRACE = GRACE_SECONDS * 2.0


@dataclass
class PostOffice:
    """Keeps a copy of all news, and holds back the last news of the tasks it is told to."""

    router: EventRouter
    kept: list[Event] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Event) -> Sequence[Delivery]:
        detail = event["detail"]
        with self._lock:
            self.kept.append(event)
            is_held = detail["taskArn"] in self.held and detail["lastStatus"] == "STOPPED"
        return [] if is_held else deliver_once(event)

    def hold(self, task_arn: str) -> None:
        with self._lock:
            self.held.add(task_arn)

    def has(self, task_arn: str, status: str) -> bool:
        with self._lock:
            details = [event["detail"] for event in self.kept]
        return any(d["taskArn"] == task_arn and d["lastStatus"] == status for d in details)

    def deliver(self, task_arn: str, status: str) -> None:
        """Deliver, for the first time or once more, the task's news of that status."""
        with self._lock:
            self.held.discard(task_arn)
            news = [e for e in self.kept if e["detail"]["taskArn"] == task_arn]
        self.router.put(next(e for e in news if e["detail"]["lastStatus"] == status))


def told_in_time(stage: Stage) -> Sequence[Run]:
    run = stage.start("waits", interruptions=1)
    run.interrupt_each_start(1)
    completes(run, starts=2)
    return (run,)


def told_while_the_next_task_starts(stage: Stage) -> Sequence[Run]:
    run = stage.start("waits", interruptions=1)
    old = interrupted_with_its_stop_held_back(stage, run)
    wait_for("the next task", ATTEMPT_SECONDS, lambda: len(run.containers()) == 2)
    post(stage).deliver(old, "STOPPED")
    is_crashed_by_the_observer(run)
    completes(run, starts=2)
    return (run,)


def told_while_the_next_attempt_runs(stage: Stage) -> Sequence[Run]:
    run = stage.start("waits", interruptions=1, seconds=LONGER_THAN_THE_GRACE)
    old = interrupted_with_its_stop_held_back(stage, run)
    run.wait_for_start(2)
    post(stage).deliver(old, "STOPPED")
    is_crashed_by_the_observer(run)
    completes(run, starts=2)
    return (run,)


def told_before_the_next_interruption(stage: Stage) -> Sequence[Run]:
    run = stage.start("waits", interruptions=2)
    old = interrupted_with_its_stop_held_back(stage, run)
    run.wait_for_start(2)
    post(stage).deliver(old, "STOPPED")
    is_crashed_by_the_observer(run)
    run.interrupt()
    completes(run, starts=3)
    return (run,)


def told_of_the_beginning_once_more(stage: Stage) -> Sequence[Run]:
    """Of the old task's, while the run waits for a worker: it is Pending then, and none comes."""
    prefect, office = stage.cloud.prefect, post(stage)
    run = stage.start("waits", interruptions=1, queue="late")
    run.wait_for_start(1)
    prefect.pause_queue(WORK_POOL, True, "late")
    old = run.interrupt()
    wait_for("the last news of the old task", 60, lambda: office.has(old, "STOPPED"))
    wait_for("the observer to be through", 60, lambda: observer_has_read_all(stage))
    wait_for("the rerun to be due", ATTEMPT_SECONDS, lambda: is_due(run))
    office.deliver(old, "PROVISIONING")
    run.wait_for_state("PENDING")
    prefect.pause_queue(WORK_POOL, False, "late")
    completes(run, starts=2)
    return (run,)


PLAYS = (
    Play("observer: told in time", told_in_time),
    Play("observer: an old stop, while the next task starts", told_while_the_next_task_starts),
    Play("observer: an old stop, while the next attempt runs", told_while_the_next_attempt_runs),
    Play("observer: an old stop, then an interruption", told_before_the_next_interruption),
    Play("observer: an old beginning, before the rerun", told_of_the_beginning_once_more),
)


_opening = threading.Lock()


def post(stage: Stage) -> PostOffice:
    """The cloud's office; the first play that asks for it opens it."""
    router = stage.cloud.router
    with _opening:
        if not isinstance(router.plan, PostOffice):
            router.plan = PostOffice(router)
        return router.plan


def observer_has_read_all(stage: Stage) -> bool:
    sqs = stage.cloud.aws.client("sqs")
    url = sqs.get_queue_url(QueueName=f"{WORK_POOL}-ecs-events")["QueueUrl"]
    counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=counts)["Attributes"]
    return not any(map(int, attributes.values()))


def is_due(run: Run) -> bool:
    """Whether a worker may have it now: made due, not only parked."""
    state = run.cloud.prefect.run(run.id)["state"]
    if state["type"] != "SCHEDULED":
        return False
    return datetime.fromisoformat(state["state_details"]["scheduled_time"]) <= datetime.now(UTC)


def interrupted_with_its_stop_held_back(stage: Stage, run: Run) -> str:
    run.wait_for_start(1)
    post(stage).hold(run.containers()[-1].task_arn)
    return run.interrupt()


def is_crashed_by_the_observer(run: Run) -> None:
    def crash() -> str | None:
        states = run.cloud.prefect.history(run.id)
        messages = [s["message"] for s in states if s["type"] == "CRASHED"]
        return messages[-1] if messages else None

    message = wait_for("the observer's word", ATTEMPT_SECONDS, crash)
    assert "stopped with a non-zero exit code" in message


LEDGER = Ledger("observer")


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.name)
def test_nothing_is_lost_and_nothing_run_twice(
    playbill: Playbill, play: Play[Sequence[Run]]
) -> None:
    playbill.judge(play, LEDGER)


def test_once_all_is_quiet_the_verdict_is_the_same(playbill: Playbill) -> None:
    playbill.judge_all_again(PLAYS, LEDGER)
