"""When a worker is given a run, and how a flow's own retries are counted."""

from dataclasses import replace
from uuid import UUID

import pytest

from chalicelib.core.model.flow_run import RunChange, RunPolicy, StateType, StateVerdict
from tests.contract.stage import Stage


def raise_retries(stage: Stage, run_id: UUID) -> None:
    """What a rerun does, so that it costs the flow none of its own retries."""
    policy = stage.run(run_id).policy
    assert policy.retries is not None
    raised = replace(policy, retries=policy.retries + 1, retry_type=None)
    stage.prefect.change_run(run_id, RunChange(policy=raised))


def rerun(stage: Stage, run_id: UUID, *, raising: bool = True) -> None:
    stage.park(run_id)
    if raising:
        raise_retries(stage, run_id)
    stage.make_due(run_id)
    stage.controls.worker_picks_up(run_id)
    stage.controls.engine_starts(run_id)


def test_a_worker_is_given_a_run_when_it_is_due_and_not_while_it_is_parked(stage: Stage) -> None:
    run_id = stage.run_in("parked")
    assert not stage.controls.is_due(run_id)
    assert stage.make_due(run_id).verdict is StateVerdict.ACCEPT
    assert stage.controls.is_due(run_id)
    assert stage.run(run_id).work_pool_name is not None


def test_the_pid_of_the_old_task_stays_until_the_worker_notes_the_new_one(stage: Stage) -> None:
    run_id = stage.running()
    old_pid = stage.run(run_id).infrastructure_pid
    rerun(stage, run_id)
    assert stage.run(run_id).infrastructure_pid == old_pid


@pytest.mark.parametrize(("state", "retry_type"), [("crashed", "reschedule"), ("running", None)])
def test_parking_a_final_run_makes_it_a_rescheduled_one_and_touches_no_other_policy(
    stage: Stage, state: str, retry_type: str | None
) -> None:
    run_id = stage.run_in(state)
    before = stage.run(run_id).policy
    stage.park(run_id)
    assert stage.run(run_id).policy == replace(before, retry_type=retry_type)


def test_an_own_retry_stays_in_the_process_and_no_worker_gets_the_run_until_its_policy_is_cleared(
    stage: Stage,
) -> None:
    run_id = stage.running(retries=1)
    state = stage.controls.engine_fails(run_id, "Boom")
    assert (state.type, state.name) == (StateType.SCHEDULED, "AwaitingRetry")
    assert state.message == "Boom"
    assert stage.run(run_id).policy.retry_type == "in_process"
    assert not stage.controls.is_due(run_id)
    stage.controls.engine_retries(run_id)
    assert stage.run(run_id).policy.retry_type == "in_process"  # though it is RUNNING again
    stage.park(run_id)
    stage.make_due(run_id)
    assert not stage.controls.is_due(run_id)
    raise_retries(stage, run_id)
    assert stage.run(run_id).policy.retry_type is None
    assert stage.controls.is_due(run_id)


def test_an_engine_that_rescheduled_itself_leaves_no_message_and_is_given_to_a_worker(
    stage: Stage,
) -> None:
    run_id = stage.running(retries=1)
    state = stage.controls.engine_reschedules(run_id)
    assert (state.name, state.message) == ("AwaitingRetry", "")
    assert stage.run(run_id).policy.retry_type is None
    assert stage.controls.is_due(run_id)


def test_a_rerun_eats_one_of_the_flows_retries_and_retries_raised_by_one_pay_for_it(
    stage: Stage,
) -> None:
    eaten, run_id = stage.running(retries=1), stage.running(retries=1)
    rerun(stage, eaten, raising=False)
    assert stage.controls.engine_fails(eaten).type is StateType.FAILED
    rerun(stage, run_id)
    assert stage.controls.engine_fails(run_id).name == "AwaitingRetry"
    assert stage.controls.engine_retries(run_id).type is StateType.RUNNING
    assert stage.controls.engine_fails(run_id).type is StateType.FAILED
    assert stage.run(run_id).run_count == 3


def test_the_policy_is_complete_once_the_flow_has_started_and_is_replaced_whole(
    stage: Stage,
) -> None:
    run_id = stage.pending()
    assert stage.run(run_id).policy.retries is None
    stage.controls.engine_starts(run_id, retries=2, retry_delay=7)
    known = stage.run(run_id).policy
    assert (known.retries, known.others["retry_delay"]) == (2, 7)
    for policy, delay in ((replace(known, retries=3), 7), (RunPolicy(retries=3), None)):
        stage.prefect.change_run(run_id, RunChange(policy=policy))
        assert stage.run(run_id).policy.others["retry_delay"] == delay


def test_a_start_after_a_blocking_pause_is_counted_and_the_next_one_is_not(stage: Stage) -> None:
    """Prefect marks the run `resuming` too late for the one and early for the other."""
    run_id = stage.run_in("paused")
    stage.controls.resume(run_id)
    assert stage.run(run_id).run_count == 2
    assert stage.run(run_id).policy.others["resuming"] is True
    rerun(stage, run_id)
    assert stage.run(run_id).run_count == 2
    assert stage.run(run_id).policy.others["resuming"] is False


@pytest.mark.parametrize(
    ("collision", "type_", "name"),
    [
        ("ENQUEUE", StateType.SCHEDULED, "AwaitingConcurrencySlot"),
        ("CANCEL_NEW", StateType.CANCELLED, "Cancelled"),
    ],
)
def test_parking_gives_the_deployments_slot_away_and_a_rerun_may_find_none(
    stage: Stage, collision: str, type_: StateType, name: str
) -> None:
    deployment = stage.controls.create_deployment(concurrency_limit=1, collision=collision)
    first = stage.running(deployment)
    second = stage.controls.create_run(deployment_id=deployment)
    stage.park(first)
    assert stage.controls.worker_picks_up(second).type is StateType.PENDING
    stage.make_due(first)
    state = stage.controls.worker_picks_up(first)
    assert (state.type, state.name) == (type_, name)
    if type_ is StateType.CANCELLED:
        assert state.message == "Deployment concurrency limit reached."
