"""The benchmark's record and page, and the exact requests of what it measures."""

import json
from base64 import b64decode
from pathlib import Path

import pytest

from chalicelib.core.rescue.actions import Verdict
from chalicelib.functions.react import react
from lab.bench import report
from lab.bench.__main__ import main
from lab.bench.floor_requests import Floor
from lab.bench.in_process import InProcess
from lab.bench.interruptions import Interruption, exit_without_warning
from lab.bench.sweep import sweep_once

COLD = {"at": "2026-11-27 12:00 UTC", "seconds": 60.0, "machine": {"memory": "24 GiB"}}


def test_a_part_that_is_run_alone_leaves_the_others_as_they_were() -> None:
    both = {"zip_bytes": 5, "measured": {"cold": {"seconds": 1}, "floor": {}}}
    now = report.merge(both, "floor", {"warm_vs_floor": 1.2}, {"seconds": 2})
    assert now == {
        "zip_bytes": 5,
        "warm_vs_floor": 1.2,
        "measured": {"cold": {"seconds": 1}, "floor": {"seconds": 2}},
    }
    assert list(now)[-1] == "measured", "the promises are to stand on top"
    assert list(now["measured"]) == ["floor", "cold"], "in the order in which they are shown"


def test_the_page_shows_what_is_on_record_and_names_what_is_not(tmp_path: Path) -> None:
    rows = [{"": "a", "s": 1234.5}, {"": "b", "s": 12.34}, {"": "c", "s": 0.01234}]
    rows.append({"": "d", "s": None})
    measured = {**COLD, "figures": {"Times": rows}}
    found = report.merge({}, "cold", {"cold_vs_bare": 1.2, "peak_rss_mib": 120}, measured)
    report.save(found, tmp_path / "bench.json")
    page = tmp_path / "benchmarks.md"
    page.write_text(f"old figures\n\n{report.BY_HAND}\n\nby hand")
    report.write_page(report.load(tmp_path / "bench.json"), page)
    written = page.read_text()
    assert "old figures" not in written
    assert written.endswith(f"\n\n{report.BY_HAND}\n\nby hand")
    assert "Not measured yet: observer, floor, storm, sweep." in written
    assert "| a | 1,234 |\n| b | 12.3 |\n| c | 0.0123 |\n| d | - |" in written
    assert "| cold start ÷ that of a bare Chalice function | 1.3 | 1.2 | kept |" in written
    assert "| peak memory of a Lambda, in MiB | 110 | 120 | MISSED |" in written
    assert "- *cold*, 2026-11-27 12:00 UTC, in 60 s: memory 24 GiB." in written


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["observers"], "there is no part observers: there are observer, floor"),
        (["--against", "."], "--against is for cold alone"),
    ],
)
def test_arguments_that_name_no_measurement_are_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("on_demand", [False, True])
def test_a_warm_rescue_sends_just_the_requests_of_its_floor(on_demand: bool) -> None:
    interruption = Interruption(on_demand)
    event = Floor().event(interruption, prefect_url="http://prefect:1/api", aws_url="http://aws")
    sent = [request for stage in json.loads(json.dumps(event))["stages"] for request in stage]
    paths = [request["path"] for request in sent if request["host"] == "prefect:1"]
    assert (len(sent), len(paths)) == (14, 11)
    assert f"/api/flow_runs/{interruption.run_id}" in paths
    targets = {request["headers"].get("x-amz-target") for request in sent}
    assert targets == {None, "DynamoDB_20120810.UpdateItem"}
    [change, _labels] = [b64decode(r["body"]) for r in sent if r["method"] == "PATCH"]
    assert (b"FARGATE" in change) is on_demand


def test_an_exit_without_a_warning_costs_one_read_of_the_table() -> None:
    place = InProcess()
    assert react(place.context(), exit_without_warning()).verdict is Verdict.IGNORE
    assert place.requests == {"dynamodb": 1}


def test_a_sweep_over_a_hundred_runs_that_live_sends_so_many_requests() -> None:
    row = sweep_once(100, 0)
    assert (row["to Prefect"], row["to ECS"], row["to the table"]) == (11, 3, 5)
    assert sweep_once(20, 1)["orphaned"] == 1
