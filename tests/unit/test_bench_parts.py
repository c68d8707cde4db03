"""Floor, cold start, storm and sweep of the benchmark: exact requests, and the form of figures."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from bench import cold, floor, storm, sweep
from bench.floor_requests import PREFECT, TABLE, as_event, stages_of
from bench.in_process import MeteredUniverse
from bench.interruptions import Victim, task_arn
from bench.part import Figures
from chalicelib.core.actions import Verdict
from chalicelib.functions.react import react


def requests_of(universe: MeteredUniverse, event: dict[str, Any]) -> tuple[Verdict, dict[str, int]]:
    universe.traffic.requests.clear()
    verdict = react(universe.metered_world(), event).verdict
    return verdict, dict(universe.traffic.requests)


def rescued(universe: MeteredUniverse, deployment_id: UUID, on_demand: bool) -> dict[str, int]:
    tags = ("spot-retries:0",) if on_demand else ()
    run_id = universe.prefect.create_run(deployment_id=deployment_id, tags=tags)
    task = universe.start(run_id)
    at = universe.now.isoformat()
    exit_ = universe.event(task, lastStatus="DEPROVISIONING", executionStoppedAt=at)
    verdict, requests = requests_of(universe, exit_)
    assert verdict is Verdict.FINISH_RERUN
    return requests


@pytest.mark.parametrize("on_demand", [False, True])
def test_a_warm_rescue_asks_for_just_the_requests_of_its_floor(on_demand: bool) -> None:
    universe = MeteredUniverse()
    victim = Victim("a-run", task_arn(), datetime.now(UTC), on_demand)
    needed = [request.to for stage in stages_of(victim) for request in stage]
    assert (needed.count(PREFECT), needed.count(TABLE)) == (11, 3)
    deployment_id = universe.prefect.create_deployment()
    first, second = (rescued(universe, deployment_id, on_demand) for _ in range(2))
    assert first == {"Prefect": 11 + 2, "DynamoDB": 3}, "the deployment's name is asked for once"
    assert second == {"Prefect": 11, "DynamoDB": 3}


def test_an_event_that_asks_for_nothing_of_prefect_costs_one_read_of_the_table() -> None:
    universe = MeteredUniverse()
    task = universe.start(universe.prefect.create_run())
    by_itself = {"stopCode": "EssentialContainerExited", "stoppedReason": "exited"}
    stop = universe.event(task, lastStatus="STOPPED", **by_itself)
    assert requests_of(universe, stop) == (Verdict.IGNORE, {"DynamoDB": 1})


def test_the_floor_gives_a_reason_for_each_request_and_is_sent_as_bytes() -> None:
    victim = Victim("a-run", task_arn(), datetime.now(UTC), on_demand=True)
    stages = stages_of(victim)
    assert all(request.why for stage in stages for request in stage)
    event = as_event(stages, prefect_url="http://prefect:1/api", aws_url="http://aws:2")
    sent = [request for stage in json.loads(json.dumps(event))["stages"] for request in stage]
    assert next(r["path"] for r in sent if r["host"] == "prefect:1") == "/api/flow_runs/a-run"
    targets = {r["headers"].get("X-Amz-Target") for r in sent if r["host"] == "aws:2"}
    assert targets == {"DynamoDB_20120810.UpdateItem"}


def test_a_storm_is_told_with_seconds_reaction_and_requests() -> None:
    assert storm._storm(8).keys() == {
        "seconds",
        "per_second",
        "reaction_p99_s",
        "lambda_seconds_per_thousand",
        "requests_per_interruption",
    }


def test_a_sweep_over_a_hundred_runs_that_live_asks_for_so_much() -> None:
    figures = sweep._sweep_once(100, 0)
    assert (figures["prefect"], figures["ecs"], figures["table"]) == (11, 3, 2)
    assert sweep._sweep_once(20, 1)["stranded"] == 1


def compared(ratio: float) -> dict[str, float]:
    return {"rescue_ms": 150.0, "floor_ms": 100.0, "ratio": ratio}


FIGURES: Mapping[str, tuple[Any, Figures, Figures]] = {
    "floor": (
        floor,
        {
            "rescues": 2,
            "needed": floor._needed(),
            "server": {"Spot": compared(1.1), "FARGATE": compared(1.2)},
            "standin": {"Spot": compared(1.3), "FARGATE": compared(1.3)},
        },
        {"warm_vs_floor": 1.2},
    ),
    "cold": (
        cold,
        {
            "starts": 1,
            "zip_bytes": 150_000,
            "ours": {"seconds": 1.2, "cpu_seconds": 0.6},
            "bare": {"seconds": 1.0, "cpu_seconds": 0.5},
            "ratio": 1.2,
            "cpu_ratio": 1.2,
            "bare_rss_mib": 50.0,
            "rescues": 1,
            "peak_rss_mib": 55.0,
            "no_op_requests": {"DynamoDB GetItem": 1, "Prefect": 0},
        },
        {"cold_vs_bare": 1.2, "zip_bytes": 150_000, "peak_rss_mib": 55.0},
    ),
    "storm": (
        storm,
        {
            "storms": {
                "100": {
                    "seconds": 1.0,
                    "per_second": 100.0,
                    "reaction_p99_s": 0.9,
                    "lambda_seconds_per_thousand": 5.0,
                    "requests_per_interruption": 29.0,
                }
            },
        },
        {"storm": {"100": 1.0}},
    ),
    "sweep": (
        sweep,
        {
            "repeats": 1,
            "rows": [
                {
                    "runs": 100,
                    "stranded": 0,
                    "prefect": 9,
                    "ecs": 3,
                    "table": 2,
                    "calls": 14,
                    "seconds": 0.01,
                }
            ],
        },
        {},
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_tables_and_targets_are_made_from_figures_alone(name: str) -> None:
    part, figures, targets = FIGURES[name]
    from_file = json.loads(json.dumps(figures))
    assert part.targets(from_file) == targets
    assert part.tables(from_file) == part.tables(figures)
    assert all(len(row) == len(t.columns) for t in part.tables(figures) for row in t.rows)
    assert part.TITLE
