"""No run stops the others, whatever Prefect holds of it: each sweep comes to its end.

The first test counts what it did in `build/poison.json`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chalicelib.core.model.flow_run import ProposedState, RunState, StateType
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.ports import RunQuery
from chalicelib.errors import (
    PrefectForbiddenError,
    PrefectSpotError,
    PrefectUnavailableError,
    PrefectUnreadableError,
)
from chalicelib.functions.run_tasks import MOST_READS
from chalicelib.functions.sweep import PAGE, sweep
from chalicelib.functions.sweep_report import UNREAD, SweepReport
from tests.laws.test_fuzz import jsons, own_tags, texts
from tests.laws.universe import OUT_OF_MEMORY, Lines, Universe
from tests.make import LIVES, LONG, ODD_ARNS, RATES, longest_record
from tests.twin.orchestration import TwinRun
from tests.twin.prefect import InMemoryPrefect
from tests.twin.tables import StoredRun

RESULT = Path(__file__).parents[2] / "build" / "poison.json"
INPUTS = 400
NULL_LABEL: dict[str, object] = {"labels": {"team": None}}

pids = st.sampled_from(["garbage", *(f"prefect-spot-dev::{arn}" for arn in ODD_ARNS.values())])
times = st.sampled_from(["9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "2026-11-23"])
states = st.fixed_dictionaries(
    {},
    optional={
        "id": texts | jsons,
        "type": st.sampled_from(StateType).map(str) | jsons,
        "name": texts | jsons,
        "timestamp": times | jsons,
        "message": texts | jsons,
        "state_details": jsons,
        "data": jsons,
    },
)
odds = st.fixed_dictionaries(
    {},
    optional={
        "id": texts | jsons,
        "name": texts | jsons,
        "labels": st.dictionaries(texts, st.none() | texts) | jsons,
        "state": states,
        "tags": st.lists(own_tags | st.sampled_from(["spot-deadline:1m"]) | jsons) | jsons,
        "infrastructure_pid": pids | texts | jsons,
        "job_variables": st.dictionaries(texts, jsons) | jsons,
        "empirical_policy": st.dictionaries(st.sampled_from(["retries", "retry_type"]), jsons),
        "run_count": st.integers() | jsons,
        "expected_start_time": times | jsons,
        "deployment_id": texts | jsons,
        "work_pool_name": texts | jsons,
    },
)
"""Fields of Prefect's answer about a run; `state`: fields of its state."""
runs = st.tuples(st.none() | st.sampled_from(StateType), odds)
Odd = tuple[StateType | None, Mapping[str, Any]]

RUNNING = StateType.RUNNING
KNOWN: tuple[tuple[Odd, ...], ...] = (
    ((RUNNING, {"infrastructure_pid": "garbage"}),),
    ((RUNNING, NULL_LABEL), (StateType.SCHEDULED, NULL_LABEL), (StateType.CRASHED, NULL_LABEL)),
    ((RUNNING, {"tags": [f"spot-retries:{n}" for n in range(21_000)]}),),
    ((RUNNING, {"state": {"data": "x" * 18_000_000}}),),
    ((RUNNING, {"name": "x" * 500_000, "job_variables": {"x" * 500_000: None}}),),
)


def befall(universe: Universe, kind: StateType | None, odd: Mapping[str, Any]) -> TwinRun:
    """A run whose task was interrupted, and which is in such a state; None: not started."""
    if kind is None:
        run = universe.prefect.runs[universe.prefect.create_run(tags=("spot-deadline:1m",))]
        poison(universe, run, odd)
        return run
    run, task = universe.running()
    if kind is not RUNNING:
        universe.prefect._write(run, ProposedState(kind, kind.title()), before={}, after={})
    universe.stops(task)
    poison(universe, run, odd)
    return run


def poison(universe: Universe, run: TwinRun, odd: Mapping[str, Any]) -> None:
    if odd:
        state = universe.prefect._answer(run)["state"] | odd.get("state", {})
        universe.prefect.odd[run.id] = {**odd, "state": state}


def test_whatever_runs_hold_every_sweep_ends_and_the_others_are_repaired() -> None:
    counted = Counter[str]()

    @settings(max_examples=INPUTS, deadline=None, suppress_health_check=list(HealthCheck))
    @given(many=st.lists(runs, min_size=1, max_size=3), child=st.none() | odds)
    def feed(many: Sequence[Odd], child: Mapping[str, Any] | None) -> None:
        universe = Universe(Policy(mode=Mode.RESCUE, rates=RATES))
        others = [befall(universe, RUNNING, {})]
        for each in many:
            befall(universe, *each)
        others.append(befall(universe, RUNNING, {}))
        if child is not None:
            born = universe.prefect.create_child(others[0].id)
            poison(universe, universe.prefect.runs[born], child)
        counted["inputs"] += 1
        for _ in range(2):
            universe.passes(600)
            counted["sweeps"] += 1
            report = sweep(universe.context(), {})
            counted["ended"] += report.finished and universe.stored.sweep.bookmark is None
        repaired = [universe.prefect.is_due(run.id) for run in others]
        counted["repaired"] += all(repaired)
        assert (counted["ended"], counted["repaired"]) == (counted["sweeps"], counted["inputs"])

    for many in KNOWN:
        feed = example(many=many, child=many[0][1])(feed)
    try:
        feed()
    finally:
        inputs, repaired = counted["inputs"], counted["repaired"]
        failed = counted["sweeps"] - counted["ended"]
        result = {"inputs": inputs, "sweeps_failed": failed}
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({**result, "others_repaired": 0 < inputs == repaired}) + "\n")
    assert counted["inputs"] >= INPUTS


def interrupted(universe: Universe, count: int) -> list[TwinRun]:
    return [befall(universe, RUNNING, {}) for _ in range(count)]


def unjudged_lines(universe: Universe) -> list[dict[str, Any]]:
    assert isinstance(universe.log, Lines)
    return [keys for line, keys in universe.log.lines if line == "could not be judged"]


def swept(universe: Universe) -> SweepReport:
    universe.passes(600)
    return sweep(universe.context(), {})


@pytest.mark.parametrize("places", [[0], [130], [249], [3, 4, 5, 180]], ids=str)
def test_the_run_that_makes_a_page_fail_is_found_named_counted_and_stepped_over(
    universe: Universe, places: list[int]
) -> None:
    many = interrupted(universe, 2 * PAGE + 50)
    universe.prefect.odd = {many[place].id: NULL_LABEL for place in places}
    found = set(universe.prefect.odd)
    report = swept(universe)
    assert report.finished
    assert report.unjudged == {UNREAD: len(places)}
    assert [keys["reason"] for keys in unjudged_lines(universe)] == [UNREAD] * len(places)
    assert {UUID(keys["flow_run_id"]) for keys in unjudged_lines(universe)} == found
    assert {*universe.stored.sweep.unjudged} == found
    assert {run.id for run in many if not universe.prefect.is_due(run.id)} == found
    assert not swept(universe).unjudged, "each counts once"
    universe.prefect.odd.clear()
    swept(universe)
    assert all(universe.prefect.is_due(run.id) for run in many)
    assert not universe.stored.sweep.unjudged


@pytest.mark.parametrize("error", [None, PrefectForbiddenError, PrefectUnreadableError])
def test_where_prefect_does_not_name_it_its_neighbours_do(
    universe: Universe, error: type[PrefectSpotError] | None
) -> None:
    """A proxy, or Prefect Cloud, may forbid what is its UI's."""
    many = sorted(interrupted(universe, 3), key=lambda run: run.id)
    universe.prefect.odd = {many[1].id: NULL_LABEL}

    def find_run_ids(_: RunQuery) -> tuple[UUID, ...]:
        if error:
            raise error("403", next_step="none")
        return ()

    universe.prefect.find_run_ids = find_run_ids  # type: ignore[method-assign,assignment]
    assert swept(universe).unjudged == {UNREAD: 1}
    [keys] = unjudged_lines(universe)
    assert keys["place"] == f"between the flow runs {many[2].id} and {many[0].id}"


@pytest.mark.parametrize("error", [PrefectUnavailableError, PrefectUnreadableError])
def test_an_outage_ends_the_sweep_and_blames_no_run(
    universe: Universe, error: type[PrefectUnavailableError]
) -> None:
    interrupted(universe, 3)
    universe.prefect.failure = error("503", next_step="none")
    with pytest.raises(PrefectUnavailableError):
        swept(universe)
    assert unjudged_lines(universe) == []


def test_a_sweep_that_fails_leaves_its_bookmark_behind_what_is_done(universe: Universe) -> None:
    for _ in range(PAGE + 20):
        befall(universe, RUNNING, {})
        universe.passes(1)
    real, calls = universe.prefect.find_runs, Counter[str]()

    def fails_late(query: RunQuery) -> Any:
        calls["live"] += StateType.RUNNING in query.state_types
        if calls["live"] == 2:
            raise PrefectUnavailableError("503", next_step="none")
        return real(query)

    universe.prefect.find_runs = fails_late  # type: ignore[method-assign]
    with pytest.raises(PrefectUnavailableError):
        swept(universe)
    assert (bookmark := universe.stored.sweep.bookmark) is not None
    assert bookmark.after is not None
    assert swept(universe).finished
    assert all(map(universe.prefect.is_due, universe.prefect.runs))


def test_a_failed_submission_whose_history_takes_long_leaves_time_for_the_others(
    universe: Universe,
) -> None:
    """The light look meets it each minute, before all others."""
    slow, *others = interrupted(universe, 3)
    message = "Flow run could not be submitted to infrastructure: Rate exceeded"
    universe.prefect.crash(slow.id, message)
    universe.passes(300)
    real, ends = universe.prefect.read_history, universe.now + timedelta(seconds=117)

    def prefect(seconds: float) -> InMemoryPrefect:
        def read_history(run_id: UUID) -> tuple[RunState, ...]:
            if run_id != slow.id:
                return real(run_id)
            universe.passes(seconds)
            raise PrefectUnavailableError("503", next_step="none")

        shown = copy(universe.prefect)
        shown.read_history = read_history  # type: ignore[method-assign,assignment]
        return shown

    context = replace(
        universe.context(),
        prefect=prefect(95),
        with_timeout=prefect,
        seconds_left=lambda: (ends - universe.now).total_seconds(),
    )
    report = sweep(context, {"detail-type": "Scheduled Event"})
    assert report.failed == 1
    assert [universe.prefect.is_due(run.id) for run in others] == [True, True]


def test_what_is_noted_on_runs_makes_no_metric_each(universe: Universe) -> None:
    for n in range(3):
        run = befall(universe, RUNNING, {})
        noted = ODD_ARNS["another region"].replace("eu-west-1", f"eu-west-{n}")
        run.infrastructure_pid = f"prefect-spot-dev::{noted}"
    swept(universe)
    assert len({measured.reason for measured in universe.measured if measured.reason}) == 1


def test_a_run_that_prefect_shows_as_its_own_subflow_is_met_once(universe: Universe) -> None:
    run, task = universe.running()
    child = universe.prefect.create_child(run.id)
    shown = universe.prefect.read_run(child)
    assert shown is not None
    universe.prefect.find_live_children = lambda _: (shown,)  # type: ignore[method-assign,assignment]
    universe.stops(task, **OUT_OF_MEMORY)
    for _ in range(2):
        assert swept(universe).finished
    assert universe.prefect.runs[child].state.type is StateType.CRASHED


def test_subflows_that_call_subflows_without_end_are_followed_fifty_deep(
    universe: Universe,
) -> None:
    run, task = universe.running()
    inner = run.id
    for _ in range(MOST_READS + 10):
        inner = universe.prefect.create_child(inner)
    universe.stops(task)
    universe.deliver(universe.exits(task)[1])
    assert universe.prefect.is_due(run.id)
    assert universe.calls.count("prefect.find_live_children") == MOST_READS


def test_a_run_of_many_tags_and_interruptions_is_rerun_and_its_record_fits_the_table(
    universe: Universe,
) -> None:
    """Its lost starts stay counted, or the flow would lose own retries."""
    run, task = universe.running(tags=[f"spot-retries:{n}" for n in range(999_999, 978_999, -1)])
    universe.stored.runs[run.id] = StoredRun(longest_record(run.id))
    run.run_count = LIVES
    universe.stops(task, stopped_reason=f"Your Spot Task was interrupted {LONG}")
    universe.deliver(universe.exits(task)[2])
    assert universe.prefect.is_due(run.id)
    record = universe.records().read(run.id)
    assert (record.interrupted, record.lost_starts) == (LIVES, LIVES)
    assert run.policy["retries"] == LIVES
    assert universe.prefect.labels_of(run.id)["prefect-spot.interruptions"] == LIVES
