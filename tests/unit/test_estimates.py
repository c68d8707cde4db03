"""What histories show: attempts, progress, restart overhead, previous runs, the rate."""

from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from chalicelib.core.model.ecs_task import FARGATE_SPOT
from chalicelib.core.model.flow_run import CompletedRun, Interruption, RunRecord, StateType, TaskRun
from chalicelib.core.money.bill import Deployment
from chalicelib.core.money.report import DRILLS, Counts, DailySum
from chalicelib.core.policies.facts import (
    Attempt,
    Missing,
    PreviousRuns,
    Progress,
    RestartOverhead,
    SpotEvidence,
    previous_runs_of,
    progress_of,
    reference_run,
    restart_overhead_of,
)
from chalicelib.functions.policy_facts import attempts_of, evidence_of
from tests.make import (
    NOW,
    RUN_ID,
    TASK_ARN,
    make_run,
    make_snapshot,
    make_state,
    make_task,
    seconds,
)

COMPLETED, RUNNING, SCHEDULED = StateType.COMPLETED, StateType.RUNNING, StateType.SCHEDULED


def at(after: float) -> datetime:
    """A moment of a run that was scheduled for 0, in seconds."""
    return NOW + seconds(after)


FIRST = Attempt(at(0), at(20), at(50), at(1050))
SECOND = Attempt(at(1050), at(1080), at(1120), at(2000))


def done(start: float, end: float, *, persisted: bool = True, cached: bool = False) -> TaskRun:
    return TaskRun(COMPLETED, at(start), persisted, at(end), cached)


def unfinished(start: float) -> TaskRun:
    return TaskRun(RUNNING, at(start), persisted=False)


def completed(seconds: float, run_count: int = 1, **changes: Any) -> CompletedRun:
    ordinary = CompletedRun(uuid4(), run_count, seconds, at(40), at(40 + seconds), at(0))
    return replace(ordinary, **changes)


def test_an_attempt_is_from_the_flows_start_to_the_containers_exit() -> None:
    kinds = (SCHEDULED, RUNNING) * 3
    moments = (-100, 50, 1055, 1120, 1500, 1600)
    states = tuple(make_state(k, timestamp=at(m)) for k, m in zip(kinds, moments, strict=True))
    before = Interruption("earlier", 1, "", FARGATE_SPOT, billed_from=at(20), exited_at=at(1050))
    snapshot = make_snapshot(
        subject=make_task(pull_started_at=at(1080), execution_stopped_at=at(2000)),
        run=make_run(state=states[-1], expected_start=at(0)),
        history=states,
        record=RunRecord(RUN_ID, {"earlier": before}),
    )
    assert attempts_of(snapshot) == (FIRST, SECOND)
    own = Interruption(TASK_ARN, 2, "", FARGATE_SPOT, billed_from=at(1080), exited_at=at(2000))
    known = replace(snapshot, record=snapshot.record.with_interruption(own))
    assert attempts_of(known) == (FIRST, SECOND)


def test_a_task_that_was_taken_before_its_flow_ran_made_no_attempt() -> None:
    scheduled = make_state(SCHEDULED, timestamp=at(-5))
    snapshot = make_snapshot(run=make_run(state=scheduled), history=(scheduled,))
    assert attempts_of(snapshot) == ()
    assert progress_of((), ()) == Progress()


def test_progress_is_checkpointed_up_to_the_earliest_task_that_is_to_be_repeated() -> None:
    tasks = [done(60, 160), done(160, 460), unfinished(460)]
    assert progress_of([FIRST], tasks) == Progress(True, 410, 1000, (100, 300, 590))
    assert progress_of([FIRST], tasks[:2]) == Progress(True, 1000, 1000, (100, 300))
    unstored = [done(60, 160), done(160, 170, persisted=False), done(170, 470)]
    assert progress_of([FIRST], unstored) == Progress(True, 110, 1000, (100, 890, 300))


def test_progress_adds_up_over_attempts_and_a_cached_task_is_no_work_unit() -> None:
    first = [done(60, 460), unfinished(460)]
    second = [done(1121, 1122, cached=True), done(1122, 1720), unfinished(1720)]
    assert progress_of([FIRST, SECOND], [*first, *second]) == Progress(
        True, 410 + 600, 1000, (400, 590, 598, 280)
    )


def test_a_result_that_is_not_stored_or_that_a_rerun_did_not_find_is_not_checkpointed() -> None:
    tasks = [done(60, 460), unfinished(460), done(1122, 1500)]
    assert progress_of([FIRST, SECOND], tasks) == Progress(False, longest_seconds=1000)
    assert progress_of([FIRST], [done(60, 460, persisted=False)]).checkpointed is False


def test_without_a_finished_task_it_is_not_known_whether_results_are_stored() -> None:
    assert progress_of([FIRST], [unfinished(60)]).checkpointed is None
    assert progress_of([FIRST], []).checkpointed is None


def test_the_restart_overhead_is_measured_on_reruns_and_on_the_first_start_without_one() -> None:
    none_yet = Missing("runs", "none")
    assert restart_overhead_of([FIRST], none_yet) == RestartOverhead(50, 30)
    assert restart_overhead_of([FIRST, SECOND], none_yet) == RestartOverhead(70, 40)
    unpaid = replace(FIRST, charged_from=None)
    assert restart_overhead_of([unpaid], none_yet) == RestartOverhead(50, 50)


def test_without_an_attempt_it_is_the_median_of_previous_runs_or_missing() -> None:
    past = PreviousRuns((1000.0,), start_seconds=(40, 50, 9000))
    assert restart_overhead_of([], past) == RestartOverhead(50, 50)
    assert isinstance(restart_overhead_of([], PreviousRuns((1000.0,))), Missing)
    assert isinstance(restart_overhead_of([], Missing("runs", "none")), Missing)


def test_without_completed_runs_the_past_is_missing() -> None:
    assert previous_runs_of((), ()) == Missing(
        "the deployment's completed runs", "there are none yet"
    )


def test_the_work_of_a_run_is_how_long_it_ran_uninterrupted() -> None:
    five = [completed(300), *[completed(100)] * 4]
    runs = [completed(500, run_count=2), *five]
    assert previous_runs_of(runs, ()) == PreviousRuns(
        (300, *[100] * 4), (), (40,) * 6, whole_seconds=(500, 300, *[100] * 4), undisturbed=5
    )
    assert reference_run(runs) is runs[1]


def test_an_interrupted_run_counts_where_it_was_longer_or_where_there_is_no_other() -> None:
    runs = [completed(900, run_count=2), completed(300)]
    assert previous_runs_of(runs, ()) == PreviousRuns(
        (300, 450), (), (40, 40), whole_seconds=(900, 300), undisturbed=1
    )
    assert previous_runs_of(runs[:1], ()) == PreviousRuns((900,), (), (40,), whole_seconds=(900,))


def test_work_units_are_those_of_the_newest_uninterrupted_run_if_it_stores_results() -> None:
    run = completed(300)
    assert previous_runs_of([run], [done(50, 150), done(150, 340)]) == PreviousRuns(
        (300,), (100, 190), (40,), (300,), 1
    )
    unstored = [done(50, 150, persisted=False)]
    assert previous_runs_of([run], unstored) == PreviousRuns((300,), (), (40,), (300,), 1)


def test_what_an_interruption_left_undone_in_a_previous_run_is_no_work_unit() -> None:
    run = completed(300, run_count=2)
    cut = TaskRun(StateType.RUNNING, at(50), persisted=False)
    again = [done(50, 150), done(150, 340)]
    assert previous_runs_of([run], [cut, *again]) == PreviousRuns((300,), (100, 190), (40,), (300,))


def test_a_previous_run_without_a_scheduled_start_shows_no_start() -> None:
    past = previous_runs_of([completed(300, expected_start=None)], ())
    assert past == PreviousRuns((300,), (), (), (300,), 1)


def daily(hours: float, interruptions: int, deployment: Deployment) -> DailySum:
    counts = Counts(
        spot_us=int(2 * hours * 3.6e9),
        interruptions=3 * interruptions,
        first_spot_us=int(hours * 3.6e9),
        first_interruptions=interruptions,
    )
    return DailySum(date(2026, 11, 23), deployment, counts)


def test_the_rate_is_of_first_attempts_of_all_deployments_and_of_no_drill() -> None:
    sums = [
        daily(1.5, 2, Deployment(str(UUID(int=1)))),
        daily(2.5, 1, Deployment(str(UUID(int=2)))),
        daily(9, 9, DRILLS),
    ]
    assert evidence_of(sums, None) == SpotEvidence(4, 3)
    task = make_task(pull_started_at=at(0), execution_stopped_at=at(1800))
    assert evidence_of(sums, task) == SpotEvidence(4.5, 4)
    assert sums[0].counts.first_spot_hours == Decimal("1.5")
