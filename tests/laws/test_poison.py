"""No run stops the others, whatever Prefect holds of it: each sweep comes to its end.

The first test counts what it did in `build/poison.json`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chalicelib.core.model.flow_run import ProposedState, StateType
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.functions.sweep import PAGE, sweep
from chalicelib.functions.sweep_report import UNREAD, SweepReport
from tests.laws.test_fuzz import jsons, own_tags, texts
from tests.laws.universe import OUT_OF_MEMORY, Lines, Universe
from tests.make import ODD_ARNS, RATES
from tests.twin.orchestration import TwinRun

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
    """A run whose task was interrupted, and which now is in such a state; None: before its start."""
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
        universe.prefect.odd = {id_: o for id_, o in universe.prefect.odd.items() if len(o) > 1}
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
