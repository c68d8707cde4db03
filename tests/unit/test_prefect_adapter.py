"""What the Prefect adapter makes of addresses and answers, good and bad."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from chalicelib.adapters.prefect_api import MOST_RUNS
from chalicelib.core.model.flow_run import (
    ProposedState,
    RunChange,
    RunPolicy,
    StateType,
    StateVerdict,
)
from chalicelib.core.ports import RunQuery
from chalicelib.errors import PrefectRejectedError, PrefectUnavailableError
from tests.unit.prefect_bench import AT, RUN_ID, Bench, make_answer, make_state, without
from tests.unit.scripted_server import answer


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/accounts/a/workspaces/w", "/api/accounts/a/workspaces/w/"]
)
def test_the_base_url_is_joined_with_or_without_a_slash(path: str) -> None:
    with Bench([answer(200, [])], path=path) as bench:
        bench.prefect.read_history(RUN_ID)
    joined = f"{path.rstrip('/')}/flow_run_states/?flow_run_id={RUN_ID}"
    assert bench.requests == [f"GET {joined}"]


def test_a_wrong_base_url_is_not_taken_for_an_unknown_run() -> None:
    bench = Bench([answer(404, {"detail": "Not Found"})])
    with bench, pytest.raises(PrefectRejectedError, match="check PREFECT_API_URL"):
        bench.prefect.read_run(RUN_ID)


def test_a_redirect_is_not_followed_with_the_credential() -> None:
    bench = Bench([answer(307, Location="https://elsewhere.example/api")])
    with bench, pytest.raises(PrefectRejectedError, match="elsewhere"):
        bench.prefect.read_run(RUN_ID)
    assert len(bench.requests) == 1


def test_a_rejection_says_why_in_few_words_and_not_what_was_sent() -> None:
    body = {
        "exception_message": "Invalid request received.",
        "exception_detail": [
            {"loc": ["body", "tags"], "msg": "Input should be a list", "input": "s3cret"}
        ],
        "request_body": {"job_variables": {"env": {"PASSWORD": "s3cret"}}},
    }
    with Bench([answer(422, body)]) as bench, pytest.raises(PrefectRejectedError) as caught:
        bench.prefect.change_run(RUN_ID, RunChange(tags=("a",)))
    said = "Invalid request received.; body.tags: Input should be a list"
    assert caught.value.what == f"Prefect answered 422 to PATCH /flow_runs/{RUN_ID}: {said}"
    assert "s3cret" not in str(caught.value)


def test_a_long_rejection_is_cut() -> None:
    bench = Bench([answer(400, {"detail": "x" * 5000})])
    with bench, pytest.raises(PrefectRejectedError) as caught:
        bench.prefect.change_run(RUN_ID, RunChange(tags=("a",)))
    assert len(str(caught.value)) < 500


def test_a_run_is_read_with_all_that_a_patch_must_keep() -> None:
    with Bench([answer(200, make_answer())]) as bench:
        run = bench.prefect.read_run(RUN_ID)
    assert run is not None
    assert (run.deployment_id, run.infrastructure_pid, run.expected_start) == (None, None, None)
    assert run.policy == RunPolicy(2, None, {"retry_delay": 7})
    assert (run.tags, run.job_variables, run.run_count) == (("etl",), {"cpu": 512}, 1)
    assert run.state.timestamp == datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize("name", ["run_count", "name"])
def test_a_missing_optional_field_is_tolerated(name: str) -> None:
    with Bench([answer(200, without(make_answer(), name))]) as bench:
        assert bench.prefect.read_run(RUN_ID) is not None


def test_an_unknown_state_type_is_unknown() -> None:
    with Bench([answer(200, make_answer(state=make_state(type="DREAMING")))]) as bench:
        run = bench.prefect.read_run(RUN_ID)
    assert run is not None
    assert run.state.type is StateType.UNKNOWN


@pytest.mark.parametrize(
    "body",
    [
        *(
            pytest.param(without(make_answer(), name), id=f"no-{name}")
            for name in ("id", "state", "tags", "job_variables", "empirical_policy")
        ),
        *(
            pytest.param(make_answer(state=without(make_state(), name)), id=f"no-state-{name}")
            for name in ("id", "type", "timestamp")
        ),
        pytest.param(make_answer(state=None), id="null-state"),
        pytest.param(make_answer(id="otter"), id="id-no-uuid"),
        pytest.param(make_answer(run_count="many"), id="run-count-no-number"),
        pytest.param(make_answer(job_variables=[]), id="job-variables-no-object"),
        pytest.param(make_answer(tags="etl"), id="tags-no-list"),
        pytest.param(make_answer(state=make_state(timestamp="today")), id="timestamp-no-time"),
        pytest.param([], id="list"),
        pytest.param("otter", id="text"),
    ],
)
def test_an_unreadable_run_is_raised_and_never_becomes_an_empty_one(body: object) -> None:
    with Bench([answer(200, body)]) as bench, pytest.raises(PrefectUnavailableError):
        bench.prefect.read_run(RUN_ID)


def test_an_empty_answer_is_not_an_unknown_run() -> None:
    with Bench([answer(200)]) as bench, pytest.raises(PrefectUnavailableError, match="empty"):
        bench.prefect.read_run(RUN_ID)


@pytest.mark.parametrize("body", [{}, {"status": "MAYBE"}, [], {"status": "ACCEPT", "state": {}}])
def test_an_unreadable_verdict_is_raised(body: object) -> None:
    with Bench([answer(200, body)]) as bench, pytest.raises(PrefectUnavailableError):
        bench.prefect.propose_state(RUN_ID, ProposedState(StateType.CRASHED, "Crashed"))


def test_a_verdict_without_a_state_is_read() -> None:
    body = {"status": "ABORT", "state": None, "details": {"reason": "Run is already CRASHED."}}
    with Bench([answer(200, body)]) as bench:
        told = bench.prefect.propose_state(RUN_ID, ProposedState(StateType.CRASHED, "Crashed"))
    assert (told.verdict, told.state) == (StateVerdict.ABORT, None)
    assert told.reason == "Run is already CRASHED."


def test_a_history_is_oldest_first_whatever_the_order_of_the_answer() -> None:
    late = make_state(id=str(uuid4()), timestamp="2026-11-23T12:00:01Z", name="late")
    with Bench([answer(200, [late, make_state()])]) as bench:
        history = bench.prefect.read_history(RUN_ID)
    assert [state.name for state in history] == ["Running", "late"]


def test_a_policy_keeps_what_it_does_not_know() -> None:
    policy = RunPolicy(3, None, {"retry_delay": 7, "pause_keys": ["a"]})
    with Bench([answer(204)]) as bench:
        bench.prefect.change_run(RUN_ID, RunChange(policy=policy))
    sent = {"retry_delay": 7, "pause_keys": ["a"], "retries": 3, "retry_type": None}
    assert bench.server.seen[0].body == {"empirical_policy": sent}


QUERY = RunQuery("etl & co", (StateType.SCHEDULED,))


def test_runs_of_one_moment_come_in_an_order_that_pages_can_follow() -> None:
    with Bench([answer(200, [make_answer()])]) as bench:
        bench.prefect.find_runs(replace(QUERY, expected_after=AT, expected_before=AT))
        bench.prefect.find_runs(replace(QUERY, expected_after=AT))
    sorts = [seen.body["sort"] for seen in bench.server.seen]
    assert sorts == ["ID_DESC", "EXPECTED_START_TIME_ASC"]


def test_only_an_empty_first_page_costs_a_look_for_the_work_pool() -> None:
    nothing, pool = answer(200, []), answer(200, {"name": "etl & co"})
    with Bench([nothing, pool, nothing]) as bench:
        assert bench.prefect.find_runs(QUERY) == ()
        assert bench.prefect.find_runs(replace(QUERY, offset=200)) == ()
    assert bench.requests == [
        "POST /api/flow_runs/filter",
        "GET /api/work_pools/etl%20%26%20co",
        "POST /api/flow_runs/filter",
    ]


def test_children_are_asked_for_until_all_are_there() -> None:
    page = [make_answer(id=str(uuid4())) for _ in range(MOST_RUNS)]
    with Bench([answer(200, page), answer(200, [make_answer()])]) as bench:
        children = bench.prefect.find_live_children([RUN_ID])
    assert len({child.id for child in children}) == MOST_RUNS + 1
    bodies = [seen.body for seen in bench.server.seen]
    assert [(body["limit"], body["offset"]) for body in bodies] == [(200, 0), (200, 200)]
    assert {body["sort"] for body in bodies} == {"ID_DESC"}


def test_task_runs_are_asked_for_until_all_are_there() -> None:
    task_run = {"state": make_state(type="COMPLETED"), "start_time": AT.isoformat()}
    page = [task_run] * MOST_RUNS
    with Bench([answer(200, page), answer(200, [task_run])]) as bench:
        assert len(bench.prefect.read_task_runs(RUN_ID, AT, AT)) == MOST_RUNS + 1
    assert [seen.body["offset"] for seen in bench.server.seen] == [0, MOST_RUNS]


@pytest.mark.parametrize("body", [{}, "otter", [{}], [make_answer(), None]])
def test_an_unreadable_search_is_raised_and_never_becomes_fewer_runs(body: object) -> None:
    with Bench([answer(200, body)]) as bench:
        with pytest.raises(PrefectUnavailableError):
            bench.prefect.find_runs(QUERY)
        with pytest.raises(PrefectUnavailableError):
            bench.prefect.find_live_children([RUN_ID])


COMPLETED = make_answer(
    total_run_time=12.5,
    start_time="2026-11-23T12:00:00Z",
    end_time="2026-11-23T12:01:00Z",
    expected_start_time=None,
)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [None],
        [{**COMPLETED, "total_run_time": None}],
        [{**COMPLETED, "end_time": None}],
        [{**COMPLETED, "start_time": "yesterday"}],
    ],
)
def test_a_completed_run_without_its_times_is_unreadable(body: object) -> None:
    with Bench([answer(200, body)]) as bench, pytest.raises(PrefectUnavailableError):
        bench.prefect.find_completed_runs(RUN_ID, 20)


def test_an_expected_start_without_a_time_zone_is_unreadable() -> None:
    told = make_answer(expected_start_time="2026-11-23T12:00:00")
    with Bench([answer(200, told)]) as bench, pytest.raises(PrefectUnavailableError):
        bench.prefect.read_run(RUN_ID)
