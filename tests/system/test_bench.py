"""The benchmark in its short form: both sides run, and each does what its page claims."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.bench import automation, floor, observer, sweep
from lab.bench.comparison import AUTOMATED, OURS
from lab.bench.part import PARTS
from lab.bench.report import PAGE, SHORT_FILE, write_page
from localcloud.deployment import PROJECT


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What was measured; the parts share one process, and begin with a new cloud each."""
    SHORT_FILE.unlink(missing_ok=True)
    command = [sys.executable, "-m", "lab.bench", "--short"]
    finished = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
    found: dict[str, Any] = json.loads(SHORT_FILE.read_text())
    assert list(found["measured"]) == list(PARTS)
    return found


def test_a_few_interruptions_are_measured_on_both_sides_and_the_awkward_cases_judged(
    found: dict[str, Any],
) -> None:
    figures = found["measured"]["observer"]["figures"]
    requests = {row["side"]: row["requests"] for row in figures[observer.ON_STANDIN]}
    assert 14 <= requests["prefect-spot"] <= 15, "one more where the rerun goes on demand"
    assert 5 <= requests["observer"] < 6, "its event came over the WebSocket"
    cases = figures[observer.CORRECTNESS]
    assert [case[""] for case in cases if case["prefect-spot as meant"] != "yes"] == []
    assert [case[""] for case in cases if case["observer as meant"] != "yes"] == [
        "exit code 0",
        "stale event of an older task",
        "waiting for a retry in the process that is gone",
    ]


def test_what_a_user_would_do_otherwise_also_ends_with_a_run_that_is_due_and_loses_more(
    found: dict[str, Any],
) -> None:
    figures = found["measured"]["automation"]["figures"]
    right = figures[automation.RIGHT]
    assert [row[""] for row in right if row["prefect-spot is right"] != "yes"] == []
    wrong = [row[AUTOMATED] for row in right if row[f"{AUTOMATED} is right"] != "yes"]
    assert wrong == ["a new one", "lost", "Crashed", "3", "Spot", "stays Running", "runs again"]
    assert found["automation"].keys() == {"seconds_ratio", "server_cpu_ratio"}
    assert min(found["automation"].values()) > 0
    requests = {row["side"]: row["requests"] for row in figures[automation.COMPARED]}
    sent = sum(row["times"] or 0 for row in figures[automation.SPENT] if row["side"] == OURS)
    assert requests[OURS] == sent == 14


def test_the_page_is_no_longer_than_a_page_may_be(found: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(PAGE.read_text())
    write_page(found, page)
    assert len(page.read_text().splitlines()) <= 200


def test_each_promise_has_its_figure_and_a_sweep_over_live_runs_a_fixed_number_of_requests(
    found: dict[str, Any],
) -> None:
    assert found["observer"].keys() == {"standin_1000", "cpu_per_event"}
    assert found["warm_vs_floor"] == max(
        row["rescue ÷ floor"] for row in found["measured"]["floor"]["figures"][floor.COMPARED]
    )
    assert found["cold_vs_bare"] > 0
    assert found["storm"].keys() == {"100"}
    assert found["zip_bytes"] <= 2_000_000
    assert found["peak_rss_mib"] <= 110

    undisturbed, orphaned = found["measured"]["sweep"]["figures"][sweep.SWEEPS]
    kinds = ("to Prefect", "to ECS", "to the table")
    assert [undisturbed[kind] for kind in kinds] == [8, 3, 6]
    assert orphaned["orphaned"] == 1
