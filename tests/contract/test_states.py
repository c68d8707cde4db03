"""Which states Prefect lets a run take: what park, due, mark and put-back rely on."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from chalicelib.core.model.flow_run import ProposedState, StateType, StateVerdict
from chalicelib.errors import PrefectRejectedError
from tests.contract.stage import HOUR, Stage

ACCEPT, REJECT, ABORT = StateVerdict.ACCEPT, StateVerdict.REJECT, StateVerdict.ABORT


@pytest.mark.parametrize("state", ["running", "pending", "crashed", "scheduled"])
def test_a_run_can_be_parked(stage: Stage, state: str) -> None:
    run_id: UUID = getattr(stage, state)()
    transition_id = uuid4()

    answer = stage.park(run_id, transition_id)

    assert answer.verdict is ACCEPT
    run = stage.run(run_id)
    assert answer.state is not None
    assert (answer.state.id, answer.state.transition_id) == (run.state.id, transition_id)
    assert (run.state.type, run.state.name) == (StateType.SCHEDULED, "AwaitingRetry")
    assert run.state.transition_id == transition_id
    assert run.state.message == "Spot took the task"
    due_at = datetime.fromisoformat(str(run.state.details["scheduled_time"]))
    assert HOUR - timedelta(minutes=1) < due_at - datetime.now(UTC) <= HOUR


def test_the_same_transition_again_is_rejected_and_answered_with_the_state_there_is(
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


def test_the_same_transition_is_accepted_again_once_the_run_has_moved(stage: Stage) -> None:
    run_id, transition_id = stage.running(), uuid4()
    stage.park(run_id, transition_id)
    assert stage.propose(run_id, StateType.PENDING).verdict is ACCEPT

    assert stage.park(run_id, transition_id).verdict is ACCEPT

    assert [id_ for _, id_ in stage.history(run_id)].count(transition_id) == 2


def test_of_simultaneous_proposals_with_one_transition_one_is_accepted(stage: Stage) -> None:
    run_id, transition_id = stage.running(), uuid4()

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: stage.park(run_id, transition_id), range(4)))

    assert sorted(answer.verdict for answer in answers) == [ACCEPT, REJECT, REJECT, REJECT]
    assert [id_ for _, id_ in stage.history(run_id)].count(transition_id) == 1


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


def test_an_engine_left_over_cannot_start_a_parked_run(stage: Stage) -> None:
    run_id = stage.running()
    stage.park(run_id)

    answer = stage.propose(run_id, StateType.RUNNING)

    assert answer.verdict is StateVerdict.WAIT
    assert stage.run(run_id).state.name == "AwaitingRetry"


@pytest.mark.parametrize("state", ["running", "pending", "scheduled"])
def test_a_run_without_a_task_can_be_marked_crashed(stage: Stage, state: str) -> None:
    run_id: UUID = getattr(stage, state)()

    assert stage.propose(run_id, StateType.CRASHED, message="OutOfMemory").verdict is ACCEPT

    run = stage.run(run_id)
    assert (run.state.type, run.state.message) == (StateType.CRASHED, "OutOfMemory")
    assert run.state.is_final


def test_a_crashed_run_cannot_be_marked_crashed(stage: Stage) -> None:
    run_id = stage.crashed()

    assert stage.propose(run_id, StateType.CRASHED).verdict is ABORT

    assert [name for name, _ in stage.history(run_id)].count("Crashed") == 1


def test_a_cancelling_run_becomes_cancelled_and_nothing_else(stage: Stage) -> None:
    run_id = stage.cancelling()

    assert stage.propose(run_id, StateType.CRASHED).verdict is REJECT
    assert stage.park(run_id).verdict is REJECT
    assert stage.propose(run_id, StateType.CANCELLED).verdict is ACCEPT


def test_a_cancelled_run_can_be_parked_but_on_the_oldest_server_only_by_force(
    stage: Stage,
) -> None:
    run_id = stage.cancelled()

    assert stage.park(run_id).verdict is (REJECT if stage.is_oldest else ACCEPT)
    assert stage.park(run_id, force=True).verdict is ACCEPT

    assert stage.make_due(run_id).verdict is ACCEPT
    assert stage.controls.is_due(run_id)


def test_a_final_run_without_a_deployment_cannot_be_parked(stage: Stage) -> None:
    run_id = stage.running_ad_hoc()
    stage.controls.crash(run_id)

    assert stage.park(run_id).verdict is ABORT

    assert stage.run(run_id).state.type is StateType.CRASHED


def test_a_running_run_without_a_deployment_is_parked_for_ever(stage: Stage) -> None:
    """Prefect does not refuse it: whoever parks has to look at the deployment first."""
    run_id = stage.running_ad_hoc()

    assert stage.park(run_id).verdict is ACCEPT
    assert stage.make_due(run_id).verdict is ACCEPT

    assert not stage.controls.is_due(run_id)


def test_a_completed_run_with_a_persisted_result_is_left_by_force_alone(stage: Stage) -> None:
    run_id = stage.completed(persisted=True)

    assert stage.park(run_id).verdict is REJECT
    assert stage.run(run_id).state.type is StateType.COMPLETED

    assert stage.park(run_id, force=True).verdict is ACCEPT


@pytest.mark.parametrize("state", ["completed", "failed", "paused"])
def test_a_run_parked_by_mistake_is_put_back_by_force(stage: Stage, state: str) -> None:
    """Prefect does not refuse to park these, so a race may do it."""
    run_id: UUID = getattr(stage, state)()
    was = stage.run(run_id).state
    assert stage.park(run_id).verdict is ACCEPT

    assert stage.put_back(run_id, was).verdict is ACCEPT

    now = stage.run(run_id).state
    assert (now.type, now.name, now.message) == (was.type, was.name, was.message)
    kept = {"pause_key", "pause_reschedule", "pause_timeout", "transition_id"}
    for name in kept & was.details.keys():
        assert now.details[name] == was.details[name]
    assert now.transition_id == was.transition_id
    assert not stage.controls.is_due(run_id)


def test_a_state_that_is_put_back_keeps_its_reference_to_a_result(stage: Stage) -> None:
    run_id = stage.running()
    reference = {"storage_key": "exception-of-the-flow", "prefect_version": "3.4.0"}
    failed = ProposedState(StateType.FAILED, "Failed", "Boom", data=reference)
    assert stage.prefect.propose_state(run_id, failed).verdict is ACCEPT
    was = stage.run(run_id).state
    assert isinstance(was.data, Mapping)
    assert was.data["storage_key"] == "exception-of-the-flow"
    stage.park(run_id)

    stage.put_back(run_id, was)

    assert stage.run(run_id).state.data == was.data


def test_a_pause_that_was_put_back_is_resumed_like_any_other(stage: Stage) -> None:
    run_id = stage.paused()
    was = stage.run(run_id).state
    stage.park(run_id)
    stage.put_back(run_id, was)

    assert stage.controls.resume(run_id).type is StateType.RUNNING


def test_a_cancellation_is_put_back_where_there_is_infrastructure_to_end(stage: Stage) -> None:
    run_id = stage.cancelling()
    was = stage.run(run_id).state
    stage.park(run_id, force=True)

    assert stage.put_back(run_id, was).verdict is ACCEPT

    assert stage.run(run_id).state.type is StateType.CANCELLING


def test_a_person_can_cancel_a_parked_run(stage: Stage) -> None:
    run_id = stage.running()
    stage.park(run_id)

    assert stage.controls.cancel(run_id).type is StateType.CANCELLING


def test_a_parked_run_without_infrastructure_is_cancelled_at_once(stage: Stage) -> None:
    run_id = stage.scheduled()
    stage.park(run_id)

    assert stage.controls.cancel(run_id).type is StateType.CANCELLED


def test_an_unknown_run_is_none_has_no_history_and_takes_no_state(stage: Stage) -> None:
    unknown = uuid4()

    assert stage.prefect.read_run(unknown) is None
    assert stage.prefect.read_history(unknown) == ()
    with pytest.raises(PrefectRejectedError, match="not found"):
        stage.park(unknown)


def test_a_proposal_without_a_transition_id_is_taken_each_time(stage: Stage) -> None:
    run_id = stage.running()
    proposed = ProposedState(StateType.SCHEDULED, "AwaitingRetry")

    answers = [stage.prefect.propose_state(run_id, proposed) for _ in range(2)]

    assert [answer.verdict for answer in answers] == [ACCEPT, ACCEPT]
