"""Which states Prefect lets a run take: what park, due, mark and restore rely on."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from chalicelib.core.model.flow_run import ProposedState, StateType, StateVerdict
from chalicelib.errors import PrefectRejectedError
from tests.contract.real import HOUR
from tests.contract.stage import Stage

ACCEPT, REJECT, ABORT = StateVerdict.ACCEPT, StateVerdict.REJECT, StateVerdict.ABORT
CRASHED, CANCELLED, RUNNING = StateType.CRASHED, StateType.CANCELLED, StateType.RUNNING


@pytest.mark.parametrize("state", ["running", "pending", "crashed", "scheduled"])
def test_a_run_can_be_parked(stage: Stage, state: str) -> None:
    run_id, transition_id = stage.run_in(state), uuid4()
    answer = stage.park(run_id, transition_id)
    assert answer.verdict is ACCEPT
    now = stage.run(run_id).state
    assert answer.state is not None
    assert (answer.state.id, answer.state.transition_id) == (now.id, transition_id)
    assert (now.type, now.name) == (StateType.SCHEDULED, "AwaitingRetry")
    assert (now.transition_id, now.message) == (transition_id, "Spot took the task")
    due_at = datetime.fromisoformat(str(now.details["scheduled_time"]))
    assert HOUR - timedelta(minutes=1) < due_at - datetime.now(UTC) <= HOUR


@pytest.mark.parametrize(
    ("state", "proposed", "verdict"),
    [
        ("scheduled", CRASHED, ACCEPT),
        ("pending", CRASHED, ACCEPT),
        ("running", CRASHED, ACCEPT),
        ("crashed", CRASHED, ABORT),
        ("cancelling", CRASHED, REJECT),
        ("cancelling", CANCELLED, ACCEPT),
        ("parked", RUNNING, StateVerdict.WAIT),
    ],
)
def test_a_proposal_takes_effect_only_if_it_is_accepted(
    stage: Stage, state: str, proposed: StateType, verdict: StateVerdict
) -> None:
    """The last row is an engine that is left over: it cannot start a parked run."""
    run_id = stage.run_in(state)
    before = stage.run(run_id).state
    assert stage.propose(run_id, proposed, message="OutOfMemory").verdict is verdict
    now = stage.run(run_id).state
    if verdict is ACCEPT:
        assert (now.type, now.message, now.is_final) == (proposed, "OutOfMemory", True)
    else:
        assert now == before


def test_the_same_transition_is_rejected_and_answered_with_the_state_there_is_until_the_run_moves(
    stage: Stage,
) -> None:
    run_id, transition_id = stage.running(), uuid4()
    first = stage.park(run_id, transition_id)
    second = stage.park(run_id, transition_id)
    assert second.verdict is REJECT
    assert "already made this state transition" in second.reason
    assert first.state is not None
    assert second.state is not None
    assert (second.state.id, second.state.transition_id) == (first.state.id, transition_id)
    assert [id_ for _, id_ in stage.history(run_id)].count(transition_id) == 1

    assert stage.propose(run_id, StateType.PENDING).verdict is ACCEPT
    assert stage.park(run_id, transition_id).verdict is ACCEPT
    assert [id_ for _, id_ in stage.history(run_id)].count(transition_id) == 2


def test_of_simultaneous_proposals_with_one_transition_one_is_accepted_and_each_without_any(
    stage: Stage,
) -> None:
    run_id, transition_id = stage.running(), uuid4()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: stage.park(run_id, transition_id), range(4)))
    assert sorted(answer.verdict for answer in answers) == [ACCEPT, REJECT, REJECT, REJECT]
    assert [id_ for _, id_ in stage.history(run_id)].count(transition_id) == 1
    without_id = ProposedState(StateType.SCHEDULED, "AwaitingRetry")
    answers = [stage.prefect.propose_state(run_id, without_id) for _ in range(2)]
    assert [answer.verdict for answer in answers] == [ACCEPT, ACCEPT]


def test_the_history_keeps_every_state_in_order_with_its_transition(stage: Stage) -> None:
    run_id, park_id, due_id = stage.running(), uuid4(), uuid4()
    stage.park(run_id, park_id)
    stage.make_due(run_id, due_id)
    stage.controls.worker_picks_up(run_id)
    history = stage.history(run_id)
    names = ["Scheduled", "Pending", "Running", "AwaitingRetry", "AwaitingRetry", "Pending"]
    assert [name for name, _ in history] == names
    assert [id_ for _, id_ in history][3:5] == [park_id, due_id]
    assert stage.prefect.read_history(run_id)[-1].id == stage.run(run_id).state.id


def test_a_cancelling_run_cannot_be_parked_and_a_cancelled_one_on_the_oldest_server_by_force(
    stage: Stage,
) -> None:
    assert stage.park(stage.run_in("cancelling")).verdict is REJECT
    run_id = stage.run_in("cancelled")
    assert stage.park(run_id).verdict is (REJECT if stage.is_oldest else ACCEPT)
    assert stage.park(run_id, force=True).verdict is ACCEPT
    assert stage.make_due(run_id).verdict is ACCEPT
    assert stage.controls.is_due(run_id)


def test_without_a_deployment_a_final_run_cannot_be_parked_and_a_running_one_is_for_ever(
    stage: Stage,
) -> None:
    """Prefect does not refuse the latter: look at the deployment before you park."""
    crashed, running = stage.running_ad_hoc(), stage.running_ad_hoc()
    stage.controls.crash(crashed)
    assert stage.park(crashed).verdict is ABORT
    assert stage.run(crashed).state.type is CRASHED
    assert stage.park(running).verdict is ACCEPT
    assert stage.make_due(running).verdict is ACCEPT
    assert not stage.controls.is_due(running)


def test_a_completed_run_with_a_persisted_result_is_left_by_force_alone(stage: Stage) -> None:
    run_id = stage.running()
    stage.controls.engine_finishes(run_id, persisted=True)
    assert stage.park(run_id).verdict is REJECT
    assert stage.run(run_id).state.type is StateType.COMPLETED
    assert stage.park(run_id, force=True).verdict is ACCEPT


@pytest.mark.parametrize("state", ["completed", "failed", "paused", "cancelling"])
def test_a_run_parked_by_mistake_is_restored_by_force(stage: Stage, state: str) -> None:
    """Prefect does not refuse to park the first three, so a race may do it."""
    run_id = stage.run_in(state)
    was = stage.run(run_id).state
    assert stage.park(run_id, force=state == "cancelling").verdict is ACCEPT
    assert stage.restore(run_id, was).verdict is ACCEPT
    now = stage.run(run_id).state
    assert (now.type, now.name, now.message) == (was.type, was.name, was.message)
    kept = {"pause_key", "pause_reschedule", "pause_timeout", "transition_id"}
    for name in kept & was.details.keys():
        assert now.details[name] == was.details[name]
    assert now.transition_id == was.transition_id
    assert not stage.controls.is_due(run_id)
    if state == "paused":
        assert stage.controls.resume(run_id).type is RUNNING


def test_a_restored_state_keeps_its_reference_to_a_result(stage: Stage) -> None:
    run_id = stage.running()
    reference = {"storage_key": "exception-of-the-flow", "prefect_version": "3.4.0"}
    failed = ProposedState(StateType.FAILED, "Failed", "Boom", data=reference)
    assert stage.prefect.propose_state(run_id, failed).verdict is ACCEPT
    was = stage.run(run_id).state
    assert isinstance(was.data, Mapping)
    assert was.data["storage_key"] == "exception-of-the-flow"
    stage.park(run_id)
    stage.restore(run_id, was)
    assert stage.run(run_id).state.data == was.data


def test_completed_that_an_engine_crashed_over_is_restored_with_its_result(stage: Stage) -> None:
    run_id = stage.running()
    stage.controls.engine_finishes(run_id, persisted=True)
    was = stage.run(run_id).state
    crashed = ProposedState(StateType.CRASHED, "Crashed", "aborted by a termination signal")
    assert stage.prefect.propose_state(run_id, crashed, force=True).verdict is ACCEPT
    assert stage.restore(run_id, was).verdict is ACCEPT
    now = stage.run(run_id).state
    assert (now.type, now.data) == (StateType.COMPLETED, was.data)


@pytest.mark.parametrize(
    ("state", "becomes"), [("running", StateType.CANCELLING), ("scheduled", CANCELLED)]
)
def test_a_person_can_cancel_a_parked_run_at_once_if_it_never_had_infrastructure(
    stage: Stage, state: str, becomes: StateType
) -> None:
    run_id = stage.run_in(state)
    stage.park(run_id)
    assert stage.controls.cancel(run_id).type is becomes


def test_an_unknown_run_is_none_has_no_history_and_takes_no_state(stage: Stage) -> None:
    unknown = uuid4()
    assert stage.prefect.read_run(unknown) is None
    assert stage.prefect.read_history(unknown) == ()
    with pytest.raises(PrefectRejectedError, match=r"not found|404"):
        stage.park(unknown)
