"""The benchmark's record and page, and the exact requests of what it measures."""

import json
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path

import pytest
from websockets import Subprotocol
from websockets.sync.client import connect

from chalicelib.core.rescue.actions import Verdict
from chalicelib.functions.react import react
from lab.bench import report
from lab.bench.__main__ import main
from lab.bench.floor_requests import Floor
from lab.bench.http_server import ServerThread, Service
from lab.bench.in_process import InProcess
from lab.bench.interruptions import Seed, Victim, stop_of, task_arn
from lab.bench.prefect_standin import PrefectStandIn
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


def test_a_storm_is_judged_by_its_growth() -> None:
    [row] = report.judged({"storm": {"100": 1.0, "1000": 10.0, "10000": 121.0}})
    assert (row["found"], row[""]) == (12.1, "MISSED")
    assert report.judged({}) == []


def test_a_name_that_is_no_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["observers"])
    assert "there is no part observers: there are observer, floor" in capsys.readouterr().err


def test_the_stand_in_takes_events_over_a_websocket_of_any_length() -> None:
    stand_in = PrefectStandIn()
    service = Service(stand_in.handle, stand_in.on_message)
    with ServerThread(service) as server:
        url = f"{server.url.replace('http', 'ws')}/api/events/in"
        with connect(url, subprotocols=[Subprotocol("prefect")], proxy=None) as socket:
            socket.send(json.dumps({"type": "auth", "token": None}))
            assert json.loads(socket.recv()) == {"type": "auth_success"}
            for length in (1, 200, 70_000):
                socket.send(json.dumps({"event": "x" * length}))
            assert socket.ping().wait(5)
    assert stand_in.requests == {"WS connect": 1, "WS event": 3}


@pytest.mark.parametrize("on_demand", [False, True])
def test_a_warm_rescue_asks_for_just_the_requests_of_its_floor(on_demand: bool) -> None:
    victim = Victim(
        "11111111-2222-4333-8444-555555555555", task_arn(), datetime.now(UTC), on_demand
    )
    event = Floor().event(victim, prefect_url="http://prefect:1/api", aws_url="http://aws")
    sent = [request for stage in json.loads(json.dumps(event))["stages"] for request in stage]
    paths = [request["path"] for request in sent if request["host"] == "prefect:1"]
    assert (len(sent), len(paths)) == (14, 11)
    assert f"/api/flow_runs/{victim.run_id}" in paths
    targets = {request["headers"].get("x-amz-target") for request in sent}
    assert targets == {None, "DynamoDB_20120810.UpdateItem"}
    [change, _labels] = [b64decode(r["body"]) for r in sent if r["method"] == "PATCH"]
    assert (b"FARGATE" in change) is on_demand


def test_an_event_that_asks_for_nothing_of_prefect_costs_one_read_of_the_table() -> None:
    place = InProcess()
    event = stop_of(place.start(Seed(task_arn(), on_demand=False)))
    by_itself = {"stopCode": "EssentialContainerExited", "stoppedReason": "exited"}
    stop = {**event, "detail": {**event["detail"], **by_itself}}
    assert react(place.context(), stop).verdict is Verdict.IGNORE
    assert place.requests == {"dynamodb": 1}


def test_a_sweep_over_a_hundred_runs_that_live_asks_for_so_much() -> None:
    row = sweep_once(100, 0)
    assert (row["to Prefect"], row["to ECS"], row["to the table"]) == (11, 3, 5)
    assert sweep_once(20, 1)["stranded"] == 1
