"""The story of a run: what it says with all sources or with some, and how it is shown."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import boto3
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from chalicelib.adapters.bills import BillTable
from chalicelib.adapters.records import RunTable
from chalicelib.core.model.ecs_task import Cause, Task
from chalicelib.core.model.flow_run import (
    FailedStart,
    FlowRun,
    Interruption,
    Moved,
    RunRecord,
    RunState,
    StateType,
)
from chalicelib.core.model.policy import Mode, Pause, Policy
from chalicelib.core.model.pricing import with_assumed
from chalicelib.core.money.bill import Bill, Deployment, RerunOutcome, bill_of, bill_of_nothing
from chalicelib.core.money.report import sum_of
from chalicelib.core.rescue.rerun_state import due_id, park_id_of_task
from spotctl import context
from spotctl.errors import RefusedError
from spotctl.explain.chart import MOST_ROWS, draw
from spotctl.explain.model import Child, Evidence, Story
from spotctl.explain.obstacles import Surroundings, obstacles_of
from spotctl.explain.read import id_in
from spotctl.explain.show import as_mapping, as_text, lasted
from spotctl.explain.story import story_of
from spotctl.explain.work import Fate, Work
from spotctl.output import as_json
from tests.make import (
    ACCOUNT,
    CLUSTER_ARN,
    NOW,
    RATES,
    RUN_ID,
    TASK_ARN,
    make_run,
    make_state,
    make_table,
    make_task,
    seconds,
)
from tests.unit.prefect_bench import make_answer
from tests.unit.prefect_bench import make_state as state_answer
from tests.unit.spotctl_bench import POOL, STACK, Bench, stage

__all__ = ["stage"]  # the fixture

ETL = Deployment("99999999-2222-4333-8444-555555555555", "etl/daily")
SPOT, FARGATE = "FARGATE_SPOT", "FARGATE"
ON_SPOT = "interruptions on Spot (SPOT_RETRIES=1)"
SPENT = "the 1 interruption allowed on Spot is spent (SPOT_RETRIES=1)"
NO_NETWORK = "Timeout waiting for network interface provisioning to complete."


def arn(number: int) -> str:
    return f"{TASK_ARN[:-3]}{number:03}"


def task(number: int, begin: float, end: float, **changes: Any) -> Task:
    """Task `number`, charged from `begin` to `end`; its container runs from 20 s later, to 1 s
    before the end."""
    ordinary: dict[str, Any] = {
        "arn": arn(number),
        "last_status": "STOPPED",
        "created_at": NOW + seconds(begin - 5),
        "pull_started_at": NOW + seconds(begin),
        "started_at": NOW + seconds(begin + 20),
        "execution_stopped_at": NOW + seconds(end - 1),
        "stopped_at": NOW + seconds(end),
        "updated_at": NOW + seconds(end),
        "exit_code": 1,
    }
    return make_task(**{**ordinary, **changes})


ENDED_BY_ITSELF: dict[str, Any] = {
    "capacity_provider": "",
    "stop_code": "EssentialContainerExited",
    "stopped_reason": "Essential container in task exited",
    "exit_code": 0,
}
LIVE: dict[str, Any] = {
    "last_status": "RUNNING",
    "flow_container_stopped": False,
    "stop_code": "",
    "stopped_reason": "",
    "execution_stopped_at": None,
    "stopped_at": None,
    "exit_code": None,
}


def bill(
    billed: Task, cause: Cause = Cause.SPOT_INTERRUPTION, wasted: int = 0, **more: Any
) -> Bill:
    return replace(
        bill_of(
            billed, more.pop("rates", RATES), deployment=ETL, cause=cause,
            wasted_seconds=Decimal(wasted), now=NOW,
        ),
        **more,
    )  # fmt: skip


def interruption(ended: Task, number: int, rerun_on: str, **changes: Any) -> Interruption:
    assert ended.stopped_at is not None
    why = SPENT if rerun_on == FARGATE else f"{number} of 1 {ON_SPOT}"
    ordinary: dict[str, Any] = {
        "stop_code": ended.stop_code,
        "reason": ended.stopped_reason,
        "availability_zone": "us-east-1b",
        "recorded_at": ended.stopped_at - seconds(100),
        "warned_at": ended.stopped_at - seconds(100),
        "exited_at": ended.execution_stopped_at,
        "billed_from": ended.pull_started_at,
        "rerun_on": rerun_on,
        "decided_at": ended.stopped_at - seconds(0.5),
        "why": f"rerun on {rerun_on}: {why}",
        "run_state": "RUNNING",
        "outcome_annotated": True,
    }
    return Interruption(
        ended.arn, number, "Spot interruption", ended.capacity, **{**ordinary, **changes}
    )


def state(type: StateType, at: float, **changes: Any) -> RunState:  # noqa: A002  # as RunState has it
    return make_state(type, timestamp=NOW + seconds(at), **changes)


def rescheduled(number: int, at: float) -> tuple[RunState, ...]:
    """Our two states after task `number`, of which the second makes the run due at `at`."""
    park = park_id_of_task(arn(number))
    return tuple(
        state(
            StateType.SCHEDULED, when, name="AwaitingRetry", transition_id=id_,
            message=f"Spot interruption {number} of 1 in us-east-1b: rerun on Spot",
        )
        for when, id_ in ((at - 0.2, park), (at, due_id(park)))
    )  # fmt: skip


def work(name: str, at: float, lasts: float | None = 10, **changes: Any) -> Work:
    ordinary: dict[str, Any] = {
        "state": StateType.RUNNING if lasts is None else StateType.COMPLETED,
        "ended_at": None if lasts is None else NOW + seconds(at + lasts),
        "persisted": lasts is not None,
    }
    return Work(name, began_at=NOW + seconds(at), **{**ordinary, **changes})


FIRST, SECOND = task(1, 0, 600), task(2, 660, 1200)
LAST = task(3, 1260, 1800, **ENDED_BY_ITSELF)
RECORD = RunRecord(
    RUN_ID,
    {
        arn(1): interruption(FIRST, 1, SPOT),
        arn(2): interruption(SECOND, 2, FARGATE),
    },
    own_retries=0,
    next_capacity=FARGATE,
)
HISTORY = (
    state(StateType.PENDING, -10),
    state(StateType.RUNNING, 30),
    *rescheduled(1, 599.8),
    state(StateType.RUNNING, 690),
    *rescheduled(2, 1199.5),
    state(StateType.RUNNING, 1290),
    state(StateType.COMPLETED, 1798),
)
WORK = (
    work("load", 40),
    work("load", 300, None),
    work("load", 700, 0.1, cached=True),
    work("load", 701),
    work("send", 800, None),
    work("load", 1300, 0.1, cached=True),
    work("load", 1301, 0.1, cached=True),
    work("send", 1302, 5, persisted=False),
)
COMPLETED = Evidence(
    RUN_ID,
    NOW + timedelta(hours=1),
    Policy(rates=RATES),
    RECORD,
    (bill(FIRST, wasted=300), bill(SECOND, wasted=400), bill(LAST, Cause.OTHER)),
    (FIRST, SECOND, LAST),
    make_run(state=HISTORY[-1], infrastructure_pid=f"{CLUSTER_ARN}::{arn(3)}"),
    HISTORY,
    "etl/daily",
    WORK,
    (Child(UUID(int=7), "quiet-hare", "Completed"),),
)


def shown(story: Story) -> str:
    """The text, as one line, so that it does not matter where it is wrapped."""
    return " ".join(as_text(story).split())


def test_a_run_that_was_interrupted_and_moved_is_told_from_beginning_to_end() -> None:
    story = story_of(COMPLETED)
    assert story.headline == "Completed on FARGATE after 2 Spot interruptions, in 3 ECS tasks"
    assert [a.capacity for a in story.attempts] == [SPOT, SPOT, FARGATE]
    assert [a.again_seconds for a in story.attempts] == [91.0, 91.0, None]
    assert [a.decided and a.decided.due_seconds for a in story.attempts] == [0.8, 0.5, None]
    assert story.attempts[0].decided is not None
    assert story.attempts[0].decided.at == NOW + seconds(599.5)
    fates = [
        [(each.name, each.fate.value, each.repeats) for each in a.work] for a in story.attempts
    ]
    assert fates == [
        [("load", "kept", False), ("load", "lost", False)],
        [("load", "skipped", False), ("load", "kept", True), ("send", "lost", False)],
        [("load", "skipped", False), ("load", "skipped", False), ("send", "done", True)],
    ]
    paid = sum((b.amounts.cost_usd for b in COMPLETED.bills if b.amounts), Decimal(0))
    assert story.money.cost_usd == paid
    assert (story.seconds, story.waiting_seconds) == (1800.0, 182.0)
    assert (story.untouched, story.notes, story.missing) == ((), (), ())
    text = shown(story)
    for told in (
        "Flow run brave-otter (11111111-2222-4333-8444-555555555555) of etl/daily",
        "23 Nov 2026 12:00:00 to 12:30:00 UTC: 30 min, 3 min 02 s of that not running (from each"
        " exit to running again).",
        "task runs: 1 done, 1 lost (load)",
        "task runs: 1 skipped, 1 repeated, 1 lost (send)",
        "→ 12:09:59 rerun on FARGATE_SPOT: 1 of 1 interruptions on Spot (SPOT_RETRIES=1) due 0.8 s"
        " after the exit, running again after 1 min 31 s",
        "exit code 0 task runs: 2 skipped, 1 repeated",
        "money 0.003267 on demand without repeats \N{MINUS SIGN} 0.002956 paid = 0.000311 USD net"
        " saving, estimated; 0.000710 of what was paid was wasted",
    ):
        assert told in text


def test_in_a_narrow_terminal_lines_keep_their_indentation_and_commands_stay_whole() -> None:
    lines = as_text(story_of(COMPLETED), 80).splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for told in (
        "spent\n       (SPOT_RETRIES=1)\n",
        "USD\n             net saving",
        f"\n{' ' * 13}sums:\n{' ' * 13}spotctl explain {UUID(int=7)}",
    ):
        assert told in text


FORGOTTEN = replace(
    COMPLETED, tasks=(), run=None, history=(), deployment="", work=(), children=(),
    missing=("Prefect (run): connection refused",),
)  # fmt: skip


def test_record_and_bills_are_enough_for_attempts_decisions_and_money() -> None:
    story, whole = story_of(FORGOTTEN), story_of(COMPLETED)
    assert story.deployment == "etl/daily"
    assert story.headline == (
        "State unknown, last on FARGATE after 2 Spot interruptions, in 3 ECS tasks"
    )
    assert [a.availability_zone for a in story.attempts] == ["us-east-1b"] * 3
    assert [a.ended_at for a in story.attempts] == [a.ended_at for a in whole.attempts]
    assert [a.ended_by for a in story.attempts][-1].startswith(
        "EssentialContainerExited, exit code 0"
    )
    told = [a.decided and (a.decided.what, a.decided.why, a.decided.at) for a in story.attempts]
    assert told == [
        a.decided and (a.decided.what, a.decided.why, a.decided.at) for a in whole.attempts
    ]
    assert story.money == whole.money
    assert story.attempts[0].again_seconds == 61.0, "until the next task was charged"
    assert "missing Prefect (run): connection refused" in shown(story)
    assert "ECS shows 3 of 3 tasks no more" in shown(story)


GONE: dict[str, Any] = {
    "record": None, "bills": (), "tasks": (), "history": (), "work": (),
    "run": make_run(state=HISTORY[-1], infrastructure_pid=None),
}  # fmt: skip


def of_older_release(noted: Interruption) -> Interruption:
    return replace(noted, why="", decided_at=None)


def odd(**changes: Any) -> Evidence:
    return replace(COMPLETED, **changes)


OLDER = replace(
    RECORD, interruptions={k: of_older_release(i) for k, i in RECORD.interruptions.items()}
)
RUNNING = make_run(
    state=state(StateType.RUNNING, 690), infrastructure_pid=f"{CLUSTER_ARN}::{arn(2)}"
)
ONCE = replace(RECORD, interruptions={arn(1): RECORD.interruptions[arn(1)]})
ASSUMED = with_assumed({k: r for k, r in RATES.items() if k[2] == FARGATE}, Decimal("0.68"))
HOST_DIED = FailedStart(
    arn(1), 1, 1, "passing", SPOT, "the host failed", NOW + seconds(600), lost_start=1,
    retry_on=SPOT, why="started again on FARGATE_SPOT: its host died",
)  # fmt: skip
NO_START: dict[str, Any] = {
    "pull_started_at": None, "started_at": None, "stop_code": "TaskFailedToStart",
    "stopped_reason": NO_NETWORK, "exit_code": None,
}  # fmt: skip
PENDING: dict[str, Any] = {
    **LIVE, "last_status": "PROVISIONING", "pull_started_at": None, "started_at": None,
    "created_at": NOW + seconds(1300),
}  # fmt: skip
WARNED = replace(
    RECORD,
    interruptions={
        arn(1): RECORD.interruptions[arn(1)],
        arn(2): interruption(SECOND, 2, "", exited_at=None, decided_at=None, why=""),
    },
)
HALFWAY: dict[str, Any] = {
    "bills": COMPLETED.bills[:1],
    "run": RUNNING,
    "history": HISTORY[:5],
    "tasks": (task(2, 660, 0, **LIVE),),
    "now": NOW + seconds(1110),
}
PICKED_UP = replace(RUNNING, state=state(StateType.PENDING, 690))
AT_PREFECTS = [replace(s, timestamp=s.timestamp - seconds(120)) for s in HISTORY]
REFUSED = FailedStart(
    "prefect-spot:state:1", 1, 1, "refusal", SPOT, "Capacity is unavailable at this time.",
    NOW + seconds(620), retry_on=FARGATE, why="rerun on FARGATE: no Spot capacity",
)  # fmt: skip
LASTING = FailedStart(
    arn(9), 2, 1, "lasting", SPOT, NO_NETWORK, NOW + seconds(640),
    why="the run stays Crashed: this was failed start 2; retries allowed: 1 (START_RETRIES=1)",
)  # fmt: skip


@pytest.mark.parametrize(
    ("evidence", "told"),
    [
        pytest.param(
            odd(record=OLDER),
            ["12:09:59 rerun on FARGATE_SPOT: Spot interruption 1 of 1 in us-east-1b"],
            id="a record of an older release: what Prefect says",
        ),
        pytest.param(
            odd(**HALFWAY, record=ONCE),
            [
                "Running on FARGATE_SPOT after 1 Spot interruption, in 2 ECS tasks",
                "to now:",
                "under way",
                "~0.0",
                "what has no bill yet is estimated up to now",
                "1 running (send)",
            ],
            id="under way",
        ),
        pytest.param(
            odd(**HALFWAY, record=WARNED),
            ["under way", "12:18:20 Spot warning: the container has its stop timeout left to exit"],
            id="warned, and still running",
        ),
        pytest.param(
            odd(history=tuple(AT_PREFECTS)),
            ["the clocks of AWS and Prefect differ by 110 s or more"],
            id="two clocks",
        ),
        pytest.param(
            odd(bills=COMPLETED.bills[1:], tasks=()),
            ["1 task of 3 without a price: not in the sums", "unknown Spot interruption 1"],
            id="a missing bill",
        ),
        pytest.param(
            odd(bills=(bill(FIRST, rates=ASSUMED),)),
            ["* made with an assumed Spot rate", "* paid = ", "* USD net saving"],
            id="an assumed rate",
        ),
        pytest.param(
            odd(
                record=replace(RECORD, failed_starts={LASTING.key: LASTING, REFUSED.key: REFUSED}),
                bills=(*COMPLETED.bills, bill_of_nothing(REFUSED.key, RUN_ID, ETL, NOW, SPOT)),
            ),
            [
                "after 2 Spot interruptions and 2 failed starts, in 3 ECS tasks",
                "12:10:20 failed start 1 on FARGATE_SPOT: refusal: Capacity is unavailable at this"
                " time. → 12:10:20 rerun on FARGATE: no Spot capacity",
                "stays Crashed: this was failed start 2; retries allowed: 1 (START_RETRIES=1)",
            ],
            id="failed starts",
        ),
        pytest.param(
            odd(record=replace(RECORD, moved=Moved("deadline", "3 h of work are left"))),
            ["started on FARGATE, by deadline: 3 h of work are left"],
            id="moved before its start",
        ),
        pytest.param(
            odd(
                **HALFWAY
                | {"tasks": (SECOND, task(3, 0, 0, **PENDING), task(4, 1210, 1220, **NO_START))},
                record=replace(RECORD, failed_starts={arn(1): HOST_DIED}),
            ),
            [
                "3 FARGATE_SPOT us-east-1b not yet under way",
                f"failed start 1 on FARGATE_SPOT: TaskFailedToStart, {NO_NETWORK} → not on record",
            ],
            id="a new task that has not started, and a start that has just failed",
        ),
        pytest.param(
            odd(
                record=RunRecord(RUN_ID, failed_starts={arn(1): HOST_DIED}),
                bills=(bill(FIRST, Cause.FAILED_START, wasted=600), *COMPLETED.bills[1:]),
            ),
            ["1 lost (load) → 12:09:59 started again on FARGATE_SPOT: its host died"],
            id="a host that died",
        ),
        pytest.param(
            odd(record=None),
            ["2 interruptions of it are not on record: react had no event of them, or failed"],
            id="interrupted, and not on record",
        ),
        pytest.param(
            odd(policy=Policy(mode=Mode.OBSERVE), record=OLDER),
            ["would be rerun on FARGATE_SPOT"],
            id="observe mode",
        ),
        pytest.param(
            odd(
                record=replace(
                    RECORD,
                    interruptions={
                        arn(1): replace(
                            RECORD.interruptions[arn(1)],
                            rerun_on="",
                            why="the run stays Crashed: it is tagged spot:never-rerun",
                        )
                    },
                ),
                bills=COMPLETED.bills[:1],
                tasks=(),
                run=make_run(
                    state=state(StateType.CRASHED, 601, message="not rerun"),
                    infrastructure_pid=None,
                ),
            ),
            [
                "Crashed after 1 Spot interruption, in 1 ECS task",
                "Crashed: not rerun",
                "the run stays Crashed: it is tagged spot:never-rerun",
            ],
            id="not rerun",
        ),
        pytest.param(
            odd(record=replace(RECORD, interruptions={arn(2): RECORD.interruptions[arn(2)]})),
            ["the first 1 interruptions are no longer on record"],
            id="a record that was cut",
        ),
        pytest.param(
            odd(
                record=None,
                bills=(bill(replace(FIRST, **ENDED_BY_ITSELF), Cause.OTHER),),
                tasks=(),
                history=(
                    HISTORY[1],
                    state(
                        StateType.SCHEDULED,
                        640,
                        name="AwaitingRetry",
                        message="a person retried it",
                    ),
                    *HISTORY[-2:],
                ),
            ),
            ["→ 12:10:40 Prefect: AwaitingRetry: a person retried it", "on record: none came note"],
            id="an own retry, and never interrupted",
        ),
        pytest.param(
            odd(record=None, bills=COMPLETED.bills[2:], tasks=(), now=NOW + timedelta(days=91)),
            ["on record: none came, or it is over 90 days ago"],
            id="so old that its record is gone",
        ),
        pytest.param(
            odd(**GONE, now=NOW + timedelta(days=91)),
            ["none came, or it is over 90 days ago"],
            id="so old that Prefect alone knows it",
        ),
        pytest.param(
            odd(
                record=None,
                bills=(),
                tasks=(),
                history=HISTORY[:2],
                work=WORK[:2],
                run=replace(RUNNING, state=HISTORY[1]),
            ),
            ["Running", "in 1 ECS task", "2 times on Spot (tag spot-retries:2), then on FARGATE"],
            id="known to Prefect alone",
        ),
        pytest.param(
            odd(
                **{**HALFWAY, "record": ONCE, "run": None, "history": ()},
                missing=("Prefect (run): no answer",),
            ),
            ["to now: 18 min 30 s", " 7 min 30 s", "under way", "ECS shows 1 of 2 tasks no more"],
            id="under way, and Prefect does not answer",
        ),
        pytest.param(
            odd(
                **{**HALFWAY, "record": ONCE, "tasks": (), "run": PICKED_UP},
                missing=("tasks of ECS: refused",),
            ),
            ["under way", "missing tasks of ECS: refused"],
            id="picked up, and ECS does not answer",
        ),
        pytest.param(
            odd(
                record=None,
                bills=(),
                tasks=(task(2, 660, 0, **LIVE),),
                now=NOW + seconds(1110),
                run=replace(RUNNING, state=state(StateType.COMPLETED, 1105)),
            ),
            ["Completed", "to 12:18:30 UTC: 18 min.", "7 min 30 s ~", "under way"],
            id="completed, and its task is about to stop",
        ),
    ],
)
def test_what_is_odd_is_told_too(evidence: Evidence, told: list[str]) -> None:
    if evidence.run is not None:
        evidence = replace(evidence, run=replace(evidence.run, tags=("spot-retries:2",)))
    text = shown(story_of(evidence))
    for each in told:
        assert each in text


def with_many(interruptions: int) -> Evidence:
    """So many tasks of ten minutes, each interrupted, then one that ended by itself."""
    tasks = [task(n, 660 * n, 660 * n + 600) for n in range(interruptions)]
    ended = task(interruptions, 660 * interruptions, 660 * interruptions + 600, **ENDED_BY_ITSELF)
    noted = {t.arn: interruption(t, n, SPOT) for n, t in enumerate(tasks, start=1)}
    bills = (*map(bill, tasks), bill(ended, Cause.OTHER))
    return Evidence(RUN_ID, NOW + timedelta(days=9), record=RunRecord(RUN_ID, noted), bills=bills)


@pytest.mark.parametrize(
    "evidence",
    [
        pytest.param(COMPLETED, id="all of it"),
        pytest.param(FORGOTTEN, id="record and bills alone"),
        pytest.param(odd(**HALFWAY, record=WARNED), id="under way"),
        pytest.param(
            odd(record=replace(RECORD, failed_starts={LASTING.key: LASTING, REFUSED.key: REFUSED})),
            id="failed starts",
        ),
        pytest.param(odd(history=tuple(AT_PREFECTS)), id="two clocks"),
        pytest.param(with_many(40), id="more tasks than are drawn"),
        pytest.param(Evidence(RUN_ID, NOW, run=make_run(infrastructure_pid=None)), id="no task"),
        pytest.param(
            Evidence(RUN_ID, NOW, record=RunRecord(RUN_ID, {"": Interruption("", 1, "drill", "")})),
            id="no time of anything",
        ),
    ],
)  # fmt: skip
def test_every_story_can_be_drawn_on_a_background_of_its_own(
    evidence: Evidence, tmp_path: Path
) -> None:
    story, png, svg = story_of(evidence), tmp_path / "t.png", tmp_path / "t.svg"
    draw(story, png, svg)
    picture = Image.open(png)
    assert picture.width == 1400
    assert picture.height < 200 * (MOST_ROWS + 3)
    assert picture.convert("RGBA").getpixel((3, 3)) == (255, 255, 255, 255)
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")  # noqa: S314  # ours
    assert as_json(as_mapping(story)).isascii()


def short(*spans: tuple[float, float]) -> Evidence:
    """A run with tasks of seconds, all interrupted but the last one, each with two task runs."""
    last = len(spans)
    tasks = [
        task(
            n,
            begin,
            end,
            started_at=NOW + seconds(begin + 1),
            **(ENDED_BY_ITSELF if n == last else {}),
        )
        for n, (begin, end) in enumerate(spans, start=1)
    ]
    noted, history, done = {}, [], []
    for n, (begin, end) in enumerate(spans, start=1):
        history.append(state(StateType.RUNNING, begin + 2))
        done += [work("load", begin + at, 1) for at in (2, 3.5)]
        if n < last:
            history += rescheduled(n, end - 0.8)
            rerun_on, warned_at = FARGATE if n == last - 1 else SPOT, NOW + seconds(end - 3)
            noted[arn(n)] = interruption(tasks[n - 1], n, rerun_on, warned_at=warned_at)
    return replace(
        COMPLETED,
        record=RunRecord(RUN_ID, noted),
        bills=(*map(bill, tasks[:-1]), bill(tasks[-1], Cause.OTHER)),
        tasks=tuple(tasks),
        run=make_run(state=HISTORY[-1], infrastructure_pid=f"{CLUSTER_ARN}::{arn(last)}"),
        history=tuple(history),
        work=tuple(done),
    )


@pytest.mark.parametrize(
    "evidence",
    [
        pytest.param(COMPLETED, id="long attempts"),
        pytest.param(odd(**HALFWAY, record=WARNED), id="under way"),
        pytest.param(short((0, 9), (10, 25), (26, 39), (40, 52)), id="short attempts"),
        pytest.param(short((0, 8), (9, 90)), id="a short attempt, then a long one"),
        pytest.param(short(*((n, n + 8) for n in range(0, 90, 9))), id="many short attempts"),
        pytest.param(with_many(2), id="no task runs"),
    ],
)
def test_no_text_covers_another_or_a_bar_and_what_ended_one_stands_above_it(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    draw(story_of(evidence), tmp_path / "t.png", tmp_path / "t.svg")
    figure, [axes] = drawn[0], drawn[0].axes
    figure.draw_without_rendering()
    labels = [*axes.get_yticklabels(), *axes.child_axes[0].get_yticklabels()]
    texts = [(t.get_text(), t.get_window_extent()) for t in (*axes.texts, *labels)]
    bars = [bar.get_window_extent() for bar in axes.patches]
    for (text, box), (other, its) in combinations(texts, 2):
        assert not box.overlaps(its), (text, other)
    for text, box in texts:
        assert not any(box.overlaps(bar) for bar in bars), text
        assert box.x0 >= figure.bbox.x0, text
        assert box.x1 <= figure.bbox.x1, text
        if text.startswith("Spot interruption"):
            below = [bar.x0 for bar in bars if 0 < box.y0 - bar.y1 < bar.height]
            assert box.x0 >= min(below) - 1, text


def test_the_picture_says_which_of_how_many_and_why_the_run_left_spot(
    tmp_path: Path,
) -> None:
    with rc_context({"svg.fonttype": "none"}):
        draw(story_of(COMPLETED), tmp_path / "t.png", tmp_path / "t.svg")
    texts = ElementTree.parse(tmp_path / "t.svg").getroot().itertext()  # noqa: S314  # ours
    said = " ".join(" ".join(texts).split())
    for told in (
        "Spot interruption 1 of 1 → FARGATE_SPOT",
        "Spot interruption 2 → FARGATE: the 1 interruption allowed on Spot is spent",
        "running again after 1 min 31 s",
        "0.000608 USD 0.000304 wasted",
        "3 min 02 s of that not running",
        "not drawn, nor in the sum: child run quiet-hare",
        "paid = 0.000311 USD net saving",
        "completed",
    ):
        assert told in said


EVIL = "bad\x1b]0;own\x07\u202e 時\U0001f525 $\\frac{1}{0}$ -->\n[red]name[/]"


def test_names_with_control_characters_or_dollar_signs_are_shown_as_they_are(
    tmp_path: Path,
) -> None:
    noted = interruption(FIRST, 1, SPOT, reason=EVIL, why=EVIL, availability_zone=EVIL)
    story = story_of(
        odd(
            run=make_run(name=EVIL, state=state(StateType.CRASHED, 9, name=EVIL, message=EVIL)),
            deployment=EVIL,
            work=(work(EVIL, 40, None),),
            record=RunRecord(RUN_ID, {arn(1): noted}),
            children=(Child(UUID(int=7), EVIL, EVIL),),
            missing=(EVIL,),
        )
    )
    text = as_text(story)
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    assert "$\\frac{1}{0}$ --> [red]name[/]" in text
    draw(story, tmp_path / "t.png", tmp_path / "t.svg")
    assert "\x1b" not in (tmp_path / "t.svg").read_text()
    ElementTree.parse(tmp_path / "t.svg")  # noqa: S314  # ours


@pytest.mark.parametrize(
    ("seconds_", "words"),
    [(0.04, "0.0 s"), (7.46, "7.5 s"), (9.96, "10 s"), (59.6, "1 min"), (3599.6, "1 h 00 min"),
     (7500, "2 h 05 min"), (200000, "2 d 7 h")],
)  # fmt: skip
def test_durations_read_as_people_say_them(seconds_: float, words: str) -> None:
    assert lasted(seconds_) == words


ID = str(RUN_ID)
WORKSPACE = (
    "account/99999999-2222-4333-8444-555555555555/workspace/88888888-2222-4333-8444-555555555555"
)


@pytest.mark.parametrize(
    "run",
    [
        ID,
        f" {ID.upper()} ",
        f"http://127.0.0.1:4200/runs/flow-run/{ID}",
        f"http://127.0.0.1:4200/flow-runs/flow-run/{ID}",
        f"https://prefect.example/base/runs/flow-run/{ID}/?tab=Artifacts#x",
        f"https://app.prefect.cloud/{WORKSPACE}/runs/flow-run/{ID}?g_range=%7B%7D&tab=Logs",
        f"https://app.prefect.cloud/{WORKSPACE}/flow-runs/flow-run/{ID}",
        f"http://127.0.0.1:4200/api/flow_runs/{ID}",
    ],
)
def test_a_run_is_named_by_its_id_or_by_an_address_of_its_page(run: str) -> None:
    assert id_in(run) == RUN_ID


def test_a_name_is_no_id_and_another_page_is_refused() -> None:
    assert id_in("brave-otter") is None
    assert id_in(ID[:8]) is None
    pages = (f"https://app.prefect.cloud/{WORKSPACE}/runs", f"http://x/runs/task-run/{ID}")
    for page in (*pages, f"http://[::1/runs/flow-run/{ID}"):
        with pytest.raises(RefusedError, match="not the address of a flow run"):
            id_in(page)


AROUND = Surroundings(
    Policy(work_pools=("spot",)), ("prefect-spot-dev",), ACCOUNT, "us-east-1", "ecs",
    {"launch_type": SPOT, "cluster": "prefect-spot-dev"},
)  # fmt: skip
OURS = make_run(work_pool_name="spot")


@pytest.mark.parametrize(
    ("run", "tasks", "around", "told"),
    [
        (OURS, [FIRST], {}, ""),
        (make_run(work_pool_name="other"), [], {}, "another work pool, other; WORK_POOL is spot"),
        (make_run(work_pool_name=None), [], {}, "no work pool: no worker started it"),
        (replace(OURS, deployment_id=None), [], {}, "it has no deployment"),
        (replace(OURS, tags=("spot:never-rerun",)), [], {}, "tagged spot:never-rerun"),
        (OURS, [], {"policy": Policy(Mode.OPT_IN)}, "opt-in and it is not tagged spot:rerun"),
        (OURS, [], {"policy": Policy(Mode.OBSERVE)}, "MODE is observe"),
        (OURS, [], {"pool_type": "process"}, "its work pool is of type process, not ecs"),
        (OURS, [], {"variables": {"launch_type": "EC2"}}, "place it on EC2: only Fargate tasks"),
        (OURS, [], {"variables": {}}, "place it on FARGATE: on demand, Spot takes no task"),
        (OURS, [], {"variables": {"launch_type": SPOT, "cluster": "x"}}, "name the cluster x"),
        (OURS, [replace(FIRST, launch_type="EC2")], {}, "the task is not on Fargate"),
        (None, [], {"pause": Pause(NOW, "arn:me", "a storm")}, "paused since 2026-11-23 12:00 UTC"),
    ],
)  # fmt: skip
def test_an_untouched_run_says_why(
    run: FlowRun | None, tasks: list[Task], around: dict[str, Any], told: str
) -> None:
    obstacles = tuple(obstacles_of(run, tasks, replace(AROUND, **around)))
    assert told in "; ".join(obstacles)
    assert bool(obstacles) is bool(told)
    story = story_of(Evidence(RUN_ID, NOW, run=run, obstacles=obstacles))
    assert story.untouched == (obstacles or story.untouched)
    assert "not touched" in as_text(story)


Keep = Callable[[], None]


@pytest.fixture
def keep(stage: Bench) -> Keep:
    """Store the run's record and bills in the stage's table, as the Lambdas do."""

    def stored() -> None:
        client = stage.client("dynamodb")
        make_table(client, STACK)
        runs = RunTable(client, STACK, "react")
        runs.acquire(RUN_ID, NOW, seconds(30))
        runs.release(RECORD)
        for each in (*COMPLETED.bills, bill(task(8, 0, 60, flow_run_id=UUID(int=1)))):
            daily = sum_of(each, RerunOutcome.NONE, first_of_its_run=False)
            assert BillTable(client, STACK).write(each, daily, daily)

    return stored


def test_the_command_tells_what_the_table_has_when_all_else_is_gone(
    stage: Bench, keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep()
    monkeypatch.setattr(context, "_PREFECT_SECONDS", 0.5)
    stage.configure(PREFECT_API_URL="http://127.0.0.1:1/api")
    result = stage.run("explain", ID, "--chart", str(tmp_path / "t.png"))
    assert result.code == 0, result.err
    answer = result.answer
    assert [a["interruption"] for a in answer["attempts"]] == [1, 2, 0]
    assert answer["money"]["cost_usd"] == f"{story_of(COMPLETED).money.cost_usd:f}"
    assert answer["attempts"][0]["decided"]["at"] == "2026-11-23T12:09:59.500000+00:00"
    assert [each.partition(":")[0] for each in answer["missing"]] == [
        "Prefect (run)", "tasks of ECS",
    ]  # fmt: skip
    assert "drawn:" in result.err
    assert (tmp_path / "t.svg").exists()
    monkeypatch.setenv("COLUMNS", "80")
    lines = stage.run("explain", ID, "--format", "table").out.splitlines()
    assert 70 < max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("key", "values", "part"),
    [
        (f"run#{ID}", {"interruptions": {arn(1): {"number": "one"}}}, "record"),
        (f"run#{ID}", {"failed_starts": "x"}, "record"),
        (f"bill#{arn(1)}", {"cause": "unheard of"}, "bills"),
        ("pause", {"paused_at": "yesterday"}, "pause"),
    ],
)
def test_what_is_odd_in_the_table_is_named_and_the_rest_told(
    stage: Bench, keep: Keep, key: str, values: dict[str, Any], part: str
) -> None:
    keep()
    table: Any = boto3.resource("dynamodb", region_name="us-east-1").Table(STACK)
    table.put_item(Item={**table.get_item(Key={"pk": key}).get("Item", {"pk": key}), **values})
    answer = stage.run("explain", ID).answer
    odd = [each for each in answer["missing"] if "not of a known form" in each]
    assert [each.partition(":")[0] for each in odd] == [f"the stage's table ({part})"]
    assert len(answer["attempts"]) > 1


def test_the_command_asks_prefect_for_what_only_prefect_has(stage: Bench, keep: Keep) -> None:
    keep()
    path = f"/flow_runs/{ID}"
    running = {"type": "RUNNING", "timestamp": (NOW + seconds(30)).isoformat()}
    run = make_answer(state=state_answer(**running), work_pool_name=POOL, deployment_id=ETL.key)
    begin = (NOW + seconds(40)).isoformat()
    load = {"id": ID, "name": "load-0a1", "dynamic_key": "0a1b2c", "start_time": begin}
    done = state_answer(type="COMPLETED", data={"storage_key": "x"})
    stage.answers |= {
        f"GET {path}": run,
        f"GET /flow_run_states/?flow_run_id={ID}": [state_answer(**running)],
        "POST /task_runs/filter": [{**load, "state": done}],
        "POST /flow_runs/filter": [],
        f"GET /work_pools/{POOL}": {"name": POOL, "type": "ecs", "base_job_template": {}},
        f"GET /deployments/{ETL.key}": {"name": "daily", "flow_id": ID, "job_variables": {}},
        f"GET /flows/{ID}": {"name": "etl"},
    }
    answer = stage.run("explain", f"http://x/runs/flow-run/{ID}").answer
    assert (answer["name"], answer["deployment"]) == ("brave-otter", "etl/daily")
    assert [(each["name"], each["fate"]) for each in answer["attempts"][0]["work"]] == [
        ("load", Fate.KEPT)
    ]
    stage.answers["POST /work_pools/filter"] = []
    del stage.answers[f"GET {path}"]
    gone = stage.run("explain", ID).answer
    assert "it knows no run of that id; it was deleted, perhaps" in gone["missing"][0]


def test_a_name_that_none_or_several_runs_have_is_refused(stage: Bench) -> None:
    two = [make_answer(id=str(UUID(int=n)), name="x") for n in (1, 2)]
    stage.answers["POST /flow_runs/filter"] = two
    result = stage.run("explain", "x")
    assert (result.code, result.out) == (2, "")
    for told in (*(str(UUID(int=n)) for n in (1, 2)), "2 flow runs are named 'x'", "pass the id"):
        assert told in result.err
    stage.answers["POST /flow_runs/filter"] = []
    assert stage.run("explain", "x").is_refused("no flow run named 'x'", "pass its id")
    del stage.answers["POST /flow_runs/filter"]
    assert stage.run("explain", "x").is_refused("404", "pass the run's id")
    assert stage.run("explain", ID).is_refused(f"nothing is known of flow run {ID}", "--stage")
