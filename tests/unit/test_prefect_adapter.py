"""What the Prefect adapter makes of addresses and answers, good and bad."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from chalicelib.adapters.prefect_api import MOST_RUNS
from chalicelib.adapters.prefect_work_pools import PrefectWorkPools
from chalicelib.core.model.flow_run import FlowRun, ProposedState, RunChange, RunPolicy, StateType
from chalicelib.core.ports import RunQuery
from chalicelib.errors import PrefectUnavailableError
from tests.unit.prefect_bench import AT, RUN_ID, Bench, make_answer, make_state, without
from tests.unit.scripted_server import answer, answer_raw


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/accounts/a/workspaces/w", "/api/accounts/a/workspaces/w/"]
)
def test_the_base_url_is_joined_with_or_without_a_slash(path: str) -> None:
    with Bench([answer(200, [])], path=path) as bench:
        bench.prefect.read_history(RUN_ID)
    joined = f"{path.rstrip('/')}/flow_run_states/?flow_run_id={RUN_ID}"
    assert bench.requests == [f"GET {joined}"]


def test_a_run_is_read_with_all_that_a_patch_must_keep() -> None:
    with Bench([answer(200, make_answer())]) as bench:
        run = bench.prefect.read_run(RUN_ID)
    assert run is not None
    assert (run.deployment_id, run.infrastructure_pid, run.expected_start) == (None, None, None)
    assert run.policy == RunPolicy(2, None, {"retry_delay": 7})
    assert (run.tags, run.job_variables, run.run_count) == (("etl",), {"cpu": 512}, 1)
    assert run.state.timestamp == datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)


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


QUERY = RunQuery(("etl & co",), (StateType.SCHEDULED,))


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


def test_thousands_of_task_runs_that_wait_to_start_cost_a_rescue_one_page() -> None:
    pages = [
        [{"id": str(uuid4()), "state": make_state(type=kind)} for _ in range(number)]
        for kind, number in (("PENDING", MOST_RUNS), ("RUNNING", 3), ("RUNNING", 2))
    ]
    with Bench([answer(200, page) for page in pages]) as bench:
        ids, may_have_subflows = bench.prefect.find_task_runs_left([RUN_ID])
        assert (len(ids), may_have_subflows, len(bench.requests)) == (3, True, 2)
        ids, may_have_subflows = bench.prefect.find_task_runs_left([RUN_ID])
    assert (len(ids), may_have_subflows, len(bench.requests)) == (2, False, 3)
    states = [seen.body["task_runs"]["state"]["type"]["any_"] for seen in bench.server.seen]
    assert [len(types) for types in states] == [3, 1, 3]


@pytest.mark.parametrize("field", ["job_variables", "empirical_policy", "state"])
def test_of_many_children_nothing_is_kept_that_may_be_long(field: str) -> None:
    """Ten pages of 200 runs: all of it would take 75 MB."""
    long: dict[str, object] = {"long": [{}] * 500}
    child = make_answer(**{field: make_state(data=long) if field == "state" else long})
    page = answer_raw(json.dumps([child] * MOST_RUNS).encode())
    with Bench([page] * 10 + [answer(200, [])]) as bench:
        tracemalloc.start()
        children = bench.prefect.find_live_children([RUN_ID])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(children) == 10 * MOST_RUNS
    assert peak < 40_000_000


def test_what_prefect_may_leave_out_or_invent_is_tolerated() -> None:
    state = make_state(type="DREAMING")
    with Bench([answer(200, without(make_answer(state=state), "run_count", "name"))]) as bench:
        run = bench.prefect.read_run(RUN_ID)
    assert run is not None
    assert run.state.type is StateType.UNKNOWN


COMPLETED = make_answer(
    total_run_time=12.5, start_time="2026-11-23T12:00:00Z", end_time="2026-11-23T12:01:00Z"
)
CRASHED = ProposedState(StateType.CRASHED, "Crashed")
FIELDS = ("id", "state", "tags", "job_variables", "empirical_policy")
NO_RUNS: list[object] = [{}, "otter", [{}], [make_answer(), None]]
TEMPLATE: dict[str, object] = {"job_configuration": {}, "variables": {}}

UNREADABLE: dict[str, tuple[Callable[[Bench], object], list[object]]] = {
    "run": (
        lambda bench: bench.prefect.read_run(RUN_ID),
        [
            *(without(make_answer(), name) for name in FIELDS),
            *(make_answer(state=without(make_state(), n)) for n in ("id", "type", "timestamp")),
            make_answer(state=None),
            make_answer(id="otter"),
            make_answer(run_count="many"),
            make_answer(job_variables=[]),
            make_answer(tags="etl"),
            make_answer(state=make_state(timestamp="today")),
            make_answer(expected_start_time="2026-11-23T12:00:00"),  # no time zone
            [],
            "otter",
        ],
    ),
    "out of range": (
        lambda bench: bench.prefect.read_run(RUN_ID),
        [
            make_answer(run_count=2**31),
            make_answer(tags=["etl", None]),
            make_answer(name=["brave-otter"]),
            make_answer(empirical_policy={"retries": 10**300}),
            make_answer(infrastructure_pid=["arn"]),
            make_answer(expected_start_time="9999-12-31T23:59:59Z"),
            make_answer(expected_start_time="0001-01-01T00:00:00+23:59"),
            make_answer(state=make_state(message={"a": 1})),
        ],
    ),
    "verdict": (
        lambda bench: bench.prefect.propose_state(RUN_ID, CRASHED),
        [{}, {"status": "MAYBE"}, [], {"status": "ACCEPT", "state": {}}],
    ),
    "search": (lambda bench: bench.prefect.find_runs(QUERY), NO_RUNS[:2]),
    "children": (lambda bench: bench.prefect.find_live_children([RUN_ID]), NO_RUNS),
    "completed runs": (
        lambda bench: bench.prefect.find_completed_runs(RUN_ID, 20),
        [
            {},
            [None],
            [{**COMPLETED, "total_run_time": None}],
            [{**COMPLETED, "end_time": None}],
            [{**COMPLETED, "start_time": "yesterday"}],
        ],
    ),
    "work pool": (
        lambda bench: PrefectWorkPools(bench.http).read("etl"),
        [
            [],
            {"name": "etl"},
            {"type": None, "base_job_template": TEMPLATE},
            {"type": "ecs"},
            {"type": "ecs", "base_job_template": None},
        ],
    ),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_an_unreadable_answer_is_raised_and_never_becomes_an_empty_value(what: str) -> None:
    call, bodies = UNREADABLE[what]
    for body in bodies:
        with Bench([answer(200, body)]) as bench, pytest.raises(PrefectUnavailableError):
            call(bench)


def test_a_run_that_cannot_be_read_stands_in_its_place_and_the_others_are_read() -> None:
    odd: list[object] = [make_answer(tags=7), {**make_answer(), "id": "x"}, {"id": 7}, 7, None]
    with Bench([answer(200, [make_answer(), *odd, make_answer()])]) as bench:
        found = bench.prefect.find_runs(QUERY)
    assert [isinstance(each, FlowRun) for each in found] == [True, *(False for _ in odd), True]
    assert [each.id for each in found] == [RUN_ID, RUN_ID, None, None, None, None, RUN_ID]


@pytest.mark.parametrize(
    ("read", "body"),
    [
        ("read_run", make_answer(tags=7)),
        ("read_run", make_answer(empirical_policy={"retries": "x"})),
        ("read_history", [make_state(id=7)]),
        ("read_run", None),
    ],
)
def test_an_error_about_one_run_names_it(read: str, body: object) -> None:
    """Of an event about it, that is all that Lambda's log says."""
    step = answer(200, body) if body else answer(500)
    with Bench([step]) as bench, pytest.raises(PrefectUnavailableError, match=str(RUN_ID)):
        getattr(bench.prefect, read)(RUN_ID)
