"""The benchmark in its short form: both sides run, and each does what its page claims."""

import json
import subprocess
import sys
from typing import Any

import pytest

from lab.bench import floor, observer, sweep
from lab.bench.part import PARTS
from lab.bench.report import SHORT_FILE
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
    assert 16 <= requests["prefect-spot"] <= 17, "one more where the rerun goes on demand"
    assert 5 <= requests["observer"] < 6, "its event came over the WebSocket"
    cases = figures[observer.CORRECTNESS]
    assert [case[""] for case in cases if case["prefect-spot as meant"] != "yes"] == []
    assert [case[""] for case in cases if case["observer as meant"] != "yes"] == [
        "exit code 0",
        "stale event of an older task",
        "waiting for a retry in the process that is gone",
    ]


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
