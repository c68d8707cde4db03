"""The benchmark's frame and stand-ins: what is written has its form, what answers speaks well."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets import Subprotocol
from websockets.sync.client import connect

from bench import observer, page, results
from bench.__main__ import main
from bench.comparison import OURS, THEIRS
from bench.correctness import CASES
from bench.http_server import ServerThread
from bench.part import PARTS, Table, load_part
from bench.show import markdown_of
from bench.standin import make_stand_in, service_of

SAMPLE = {
    "seconds": 4.0,
    "settled_seconds": 5.0,
    "requests": 1200,
    "cpu_seconds": 2.0,
    "server_cpu_seconds": 1.0,
    "peak_rss_mib": 60.0,
    "processes": 10,
}
JUDGED = {case.name: {"says": "AwaitingRetry, due", "right": True} for case in CASES}


def make_sides(theirs: float = 20.0) -> dict[str, list[dict[str, Any]]]:
    other = {**SAMPLE, "seconds": theirs, "cpu_seconds": theirs}
    return {OURS: [SAMPLE, SAMPLE], THEIRS: [other]}


def make_figures() -> dict[str, Any]:
    return {
        "standin": {"1": make_sides(2.0), "1000": make_sides()},
        "server": {"1000": make_sides(5.0)},
        "stream": {"100": make_sides()},
        "correctness": {OURS: JUDGED, THEIRS: JUDGED},
    }


def test_the_targets_are_taken_at_the_largest_number_and_of_cpu_the_worse_server() -> None:
    assert observer.targets(make_figures()) == {
        "observer": {"standin_1000": 0.2, "server_1000": 0.8, "cpu_per_event": 0.4}
    }


def test_a_table_shows_both_sides_and_the_ratio() -> None:
    on_standin = observer.tables(make_figures())[0]
    assert list(on_standin.rows[3:]) == [
        (1000, OURS, 4.0, 5.0, 1.2, 0.002, 0.001, 60.0),
        (1000, THEIRS, 20.0, 5.0, 1.2, 0.02, 0.001, 60.0),
        (1000, "ratio", 0.2, 1.0, 1.0, 0.1, 1.0, 1.0),
    ]


def test_figures_survive_json(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    results.save(results.merge({}, "observer", {}, {"figures": make_figures()}), file)
    [measured] = results.load(file)[results.MEASURED].values()
    assert observer.tables(measured["figures"]) == observer.tables(make_figures())


def test_a_part_that_is_run_alone_leaves_the_others_as_they_were() -> None:
    both = {"zip_bytes": 5, "measured": {"cold": {"figures": {"a": 1}}, "floor": {}}}
    now = results.merge(both, "floor", {"warm_vs_floor": 1.2}, {"figures": {"b": 2}})
    assert now == {
        "zip_bytes": 5,
        "warm_vs_floor": 1.2,
        "measured": {"cold": {"figures": {"a": 1}}, "floor": {"figures": {"b": 2}}},
    }
    assert list(now)[-1] == "measured", "the promises are to stand on top"
    assert list(now["measured"]) == ["floor", "cold"], "in the order in which they are told"


def test_the_page_shows_what_was_measured_and_names_what_was_not(tmp_path: Path) -> None:
    measured = {
        "at": "2026-11-27 12:00 UTC",
        "seconds": 600.0,
        "machine": {"processors": "2 of a kind"},
        "figures": make_figures(),
    }
    found = results.merge({}, "observer", observer.targets(make_figures()), measured)
    (tmp_path / "benchmarks.md").write_text(f"old figures\n\n{page.BY_HAND}\n\nby hand")
    page.write(found, tmp_path / "benchmarks.md", tmp_path)
    written = (tmp_path / "benchmarks.md").read_text()
    assert "old figures" not in written
    assert written.endswith(f"\n\n{page.BY_HAND}\n\nby hand")
    assert "Not measured yet: floor, cold, storm, sweep." in written
    assert "| 1,000 interruptions on the stand-in, ours ÷ observer | 0.25 | 0.2 | kept |" in written
    assert "- *observer*, 2026-11-27 12:00 UTC, in 600 s: processors 2 of a kind." in written
    for drawing in observer.charts(make_figures()):
        assert f"(images/{drawing.file}.png)" in written
        assert (tmp_path / f"{drawing.file}.png").stat().st_size > 1000


def test_a_promise_is_judged_by_its_figure_and_a_storm_by_its_growth() -> None:
    found = {
        "observer": {"standin_1000": 0.26, "server_1000": 1.3},
        "storm": {"100": 1.0, "1000": 10.0, "10000": 119.0},
    }
    judged = {judgement.meaning: judgement.is_kept for judgement in results.judge(found)}
    assert list(judged.values()) == [False, True, True]
    assert results.judge({}) == []


def test_a_number_in_a_table_has_the_digits_that_say_something() -> None:
    table = Table("Times", ("", "s"), [("a", 1234.5), ("b", 12.34), ("c", 0.01234), ("d", None)])
    cells = [line.split("|")[2].strip() for line in markdown_of(table).splitlines()[4:]]
    assert cells == ["1,234", "12.3", "0.0123", "-"]


def test_every_part_is_there_and_a_name_that_is_none_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in PARTS:
        part = load_part(name)
        assert part.TITLE
        assert callable(part.measure)
    with pytest.raises(SystemExit):
        main(["observers"])
    assert "there is no part observers: there are observer, floor" in capsys.readouterr().err


@pytest.fixture
def events_url() -> Iterator[str]:
    stand_in = make_stand_in()
    with ServerThread(service_of(stand_in)) as server:
        yield f"{server.url.replace('http', 'ws')}/api/events/in"
        assert stand_in.requests == {"WS connect": 1, "WS event": 3}


def test_the_stand_in_takes_events_over_a_websocket_of_any_length(events_url: str) -> None:
    with connect(events_url, subprotocols=[Subprotocol("prefect")], proxy=None) as socket:
        socket.send(json.dumps({"type": "auth", "token": None}))
        assert json.loads(socket.recv()) == {"type": "auth_success"}
        for length in (1, 200, 70_000):
            socket.send(json.dumps({"event": "x" * length}))
        assert socket.ping().wait(5)
