"""What is printed for CloudWatch: names, dimensions, limits; and what a rescue counts for."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.adapters.aws import EmfMetrics
from chalicelib.core.metrics import Measured, Metric, values_of_bill, values_of_rescue
from chalicelib.core.model.ecs_task import Cause
from chalicelib.core.model.flow_run import Interruption, RunRecord, StateType
from chalicelib.core.money.bill import cause_of
from chalicelib.core.rescue.actions import Decision, Verdict
from chalicelib.core.rescue.decide import decide
from chalicelib.core.rescue.failed_start import record_failed_start
from chalicelib.core.rescue.rerun_state import due_id, park_id_of_task
from chalicelib.errors import PrefectUnavailableError
from chalicelib.functions.react import react
from tests.make import NOW, RUN_ID, TASK_ARN, make_run, make_snapshot, make_state
from tests.unit.emf import data_of, printed_data
from tests.unit.test_bill import bill, stopped
from tests.unit.test_react import NO_INTERRUPTION, Scene, scene

__all__ = ["scene"]  # the fixture

BY_POOL = ("Stage", "WorkPool")
BY_DEPLOYMENT = ("Stage", "WorkPool", "Deployment")
METRICS = EmfMetrics("dev", ("fargate-spot-dev",), by_deployment=True)
ALL = {metric: Decimal("0.00000001") for metric in Metric}


def dimensions_of(output: str) -> set[tuple[str, ...]]:
    return {tuple(name for name, _ in datum.dimensions) for datum in printed_data(output)}


def test_what_a_sweep_could_not_judge_is_counted_by_reason_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    why = "its record cannot be read: KeyError"
    METRICS.measure(Measured("", {Metric.SWEEP_UNJUDGED: Decimal(2)}, why))
    stage = (("Stage", "dev"), ("WorkPool", "fargate-spot-dev"))
    assert {datum.dimensions for datum in data_of(capsys.readouterr().out)} == {
        stage,
        (*stage, ("Reason", why)),
    }


def test_every_metric_fits_into_one_line_whatever_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "another's")
    METRICS.measure(Measured("etl/nightly", ALL))
    output = capsys.readouterr().out
    data = data_of(output)
    stage = (("Stage", "dev"), ("WorkPool", "fargate-spot-dev"))
    assert {(datum.namespace, datum.dimensions) for datum in data} == {
        ("PrefectSpot", stage),
        ("PrefectSpot", (*stage, ("Deployment", "etl/nightly"))),
    }
    assert {datum.metric for datum in data} == {
        *("SpotInterruptions", "SpotReruns", "OnDemandReruns", "NotRerun", "FailedStarts"),
        *("TaskCost", "OnDemandEquivalentCost", "Savings", "WastedCost", "NetSavings"),
        *("ReactionSeconds", "WastedSeconds", "SweepUnjudged", "PausedSeconds"),
    }
    units = {datum.metric: datum.unit for datum in data}
    assert (units["SpotReruns"], units["ReactionSeconds"]) == ("Count", "Seconds")
    assert units["TaskCost"] == "None"
    assert {datum.value for datum in data} == {0.00000001}


def test_of_several_pools_each_has_its_series_and_alarms_read_that_of_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """CloudWatch takes no search in an alarm. The series of all pools counts everything once."""
    several = EmfMetrics("dev", ("etl", "ml"), by_deployment=True)
    one = {Metric.TASK_COST: Decimal(1)}
    for deployment, pool in (("etl/x", "etl"), ("ml/x", "ml"), ("", "ml"), ("", "gone"), ("", "")):
        several.measure(Measured(deployment, one, work_pool=pool))
    data = [dict(datum.dimensions) for datum in printed_data(capsys.readouterr().out)]
    by_pool = [each["WorkPool"] for each in data if "Deployment" not in each]
    assert {pool: by_pool.count(pool) for pool in by_pool} == {"etl": 1, "ml": 2, "<all>": 5}
    by_deployment = [tuple(each.values())[1:] for each in data if "Deployment" in each]
    assert by_deployment == [("etl", "etl/x"), ("ml", "ml/x")]


def test_one_measurement_leaves_nothing_to_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    METRICS.measure(Measured("first", {Metric.SPOT_RERUNS: Decimal(1)}))
    METRICS.measure(Measured("none", {}))
    METRICS.measure(Measured("", {Metric.TASK_COST: Decimal(1)}))
    _, second = capsys.readouterr().out.splitlines()
    assert {d.metric for d in data_of(second)} == {"TaskCost"}
    assert dimensions_of(second) == {BY_POOL}, "a task of no deployment"


HOSTILE = (
    '", "Customer": "x',
    '"]], "Metrics": []}',
    '\n{"_aws": {"CloudWatchMetrics": []}}',
    ":colon",
    ": :",
    *("\x00\x1b[31m", "\u202enighthly", "💸" * 300, "nächtlich", "x" * 5000, "   ", "\ud800"),
    *("Deployment", "_aws"),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.text(min_size=1) | st.sampled_from(HOSTILE))
def test_whatever_a_deployment_is_called_it_is_one_value_of_one_dimension(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    EmfMetrics(name, (name,), by_deployment=True).measure(Measured(name, ALL))
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    data = data_of(output)
    assert dimensions_of(output) == {BY_POOL, BY_DEPLOYMENT}
    assert len({d.dimensions for d in data}) == 2
    assert len(data) == 2 * len(Metric)


def test_names_that_differ_stay_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("nächtlich", "nichtlich", "n?chtlich"):
        METRICS.measure(Measured(name, {Metric.TASK_COST: Decimal(1)}))
    series = {d.dimensions[-1] for d in printed_data(capsys.readouterr().out)}
    assert len({value for name, value in series if name == "Deployment"}) == 3


# What a rescue counts for.


def rescued(scene: Scene, detail: dict[str, Any] | None = None) -> list[Measured]:
    react(scene.context, scene.event(detail))
    measured = [measured for measured in scene.universe.measured if measured.values]
    scene.universe.measured.clear()
    return measured


def test_an_interruption_its_rerun_and_the_time_between_are_counted_once(scene: Scene) -> None:
    [measured] = rescued(scene)
    assert measured.values == {
        Metric.SPOT_INTERRUPTIONS: 1,
        Metric.SPOT_RERUNS: 1,
        Metric.REACTION_SECONDS: 1,
    }
    run = scene.prefect.runs[scene.run_id]
    assert run.deployment is not None
    assert measured.deployment == f"etl/deployment-{run.deployment.id}"
    assert measured.work_pool == scene.prefect.work_pool_name
    assert rescued(scene, {"lastStatus": "STOPPED"}) == []
    assert rescued(scene, NO_INTERRUPTION) == []


def test_the_warning_counts_the_interruption_and_the_exit_the_rerun(scene: Scene) -> None:
    running = [{"name": "prefect", "lastStatus": "RUNNING"}]
    warning = {"lastStatus": "RUNNING", "containers": running, "executionStoppedAt": None}
    scene.universe.tasks[scene.task.arn] = scene.task
    assert [m.values for m in rescued(scene, warning)] == [{Metric.SPOT_INTERRUPTIONS: 1}]
    assert rescued(scene, warning) == []
    [measured] = rescued(scene)
    assert set(measured.values) == {Metric.SPOT_RERUNS, Metric.REACTION_SECONDS}


def test_a_deployment_whose_name_cannot_be_read_is_counted_without_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(_: object) -> str:
        raise PrefectUnavailableError("not now", next_step="none")

    monkeypatch.setattr(scene.prefect, "read_deployment_name", unavailable)
    [measured] = rescued(scene)
    assert measured.deployment == ""
    assert Metric.SPOT_RERUNS in measured.values


def handled(decision: Decision, before: RunRecord, after: RunRecord) -> dict[str, Decimal]:
    values = values_of_rescue(TASK_ARN, before, after, decision)
    return {metric.value: value for metric, value in values.items()}


def record_of(cause: Cause = Cause.SPOT_INTERRUPTION, **changes: Any) -> RunRecord:
    interruption = Interruption(TASK_ARN, 1, cause.value, "FARGATE_SPOT", exited_at=NOW)
    return RunRecord(RUN_ID, {TASK_ARN: replace(interruption, **changes)}, next_capacity="FARGATE")


def annotated(record: RunRecord) -> RunRecord:
    for noted in record.interruptions.values():
        record = record.with_interruption(replace(noted, outcome_annotated=True))
    for failed in record.failed_starts.values():
        record = record.with_failed_start(replace(failed, annotated=True))
    return record


def finishing(at: timedelta = timedelta()) -> Decision:
    """The decision on a run that is seen due, `at` after the container's exit."""
    park_id = park_id_of_task(TASK_ARN)
    parked = make_state(StateType.SCHEDULED, transition_id=park_id)
    when = {"scheduled_time": (NOW + at).isoformat()}
    due = make_state(StateType.SCHEDULED, transition_id=due_id(park_id), details=when)
    record = record_of(rerun_on="FARGATE")
    decision = decide(
        make_snapshot(run=make_run(state=due), record=record, history=(make_state(), parked, due))
    )
    assert decision.verdict is Verdict.FINISH_RERUN
    return decision


@pytest.mark.parametrize(("after", "reaction"), [(3, 3), (-3, 0)], ids=["later", "clock behind"])
def test_a_rerun_on_demand_is_counted_as_one(after: int, reaction: int) -> None:
    warned = record_of(warning_annotated=True)
    values = handled(finishing(timedelta(seconds=after)), warned, annotated(warned))
    assert values == {"OnDemandReruns": 1, "ReactionSeconds": reaction}
    assert handled(replace(finishing(), actions=()), record_of(), record_of()) == {}


NO_ROOM = "Capacity is unavailable at this time."


@pytest.mark.parametrize(
    ("reason", "provider", "retried_on", "counted"),
    [
        (NO_ROOM, "FARGATE_SPOT", "FARGATE", {"OnDemandReruns": 1}),
        (NO_ROOM, "FARGATE", "", {"FailedStarts": 1, "NotRerun": 1}),
        (NO_ROOM, "", "", {"FailedStarts": 1, "NotRerun": 1}),
        ("no network interface", "FARGATE_SPOT", "FARGATE", {"FailedStarts": 1}),
    ],
)
def test_a_start_that_failed_is_counted_once_and_as_its_bill_counts_it(
    reason: str, provider: str, retried_on: str, counted: dict[str, int]
) -> None:
    task = stopped(
        stop_code="TaskFailedToStart",
        stopped_reason=reason,
        capacity_provider=provider,
        started_at=None,
    )
    pending = make_run(state=make_state(StateType.PENDING))
    noted = record_failed_start(make_snapshot(subject=task, run=pending))
    after = replace(noted.record, next_capacity=retried_on)
    decision = finishing() if retried_on else decide(noted)
    assert handled(decision, RunRecord(RUN_ID), annotated(after)) == counted
    assert (cause_of(task) is Cause.FAILED_START) is ("FailedStarts" in counted)
    assert handled(decision, annotated(after), annotated(after)) == {}


def test_a_run_that_is_not_to_be_rerun_is_counted_with_its_annotation() -> None:
    snapshot = make_snapshot(run=make_run(deployment_id=None))
    decision = decide(snapshot)
    assert decision.verdict is Verdict.MARK_CRASHED
    assert handled(decision, RunRecord(RUN_ID), annotated(record_of())) == {
        "SpotInterruptions": 1,
        "NotRerun": 1,
    }
    again = replace(decision, actions=())
    assert handled(again, record_of(), record_of()) == {}


def test_a_drill_is_counted_nowhere() -> None:
    drill = record_of(Cause.DRILL)
    assert handled(finishing(), RunRecord(RUN_ID), drill) == {}
    assert values_of_bill(bill(stopped(), cause=Cause.DRILL)) == {}


def test_a_bill_without_amounts_counts_no_money() -> None:
    assert set(values_of_bill(bill(stopped(cpu_units=None)))) == {Metric.WASTED_SECONDS}
