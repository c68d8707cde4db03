"""The benchmark in its short form: both sides run, and each does what is said of it."""

import json
import subprocess
import sys
from typing import Any

import pytest

from bench import cold, floor, observer
from bench.comparison import OURS, THEIRS
from bench.correctness import CASES
from bench.part import PARTS
from bench.results import MEASURED, SHORT_FILE
from localcloud.deployment import PROJECT


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """What each part measured; the parts share one process, and begin with a new cloud each."""
    SHORT_FILE.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench", "--short"]
    finished = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
    measured = json.loads(SHORT_FILE.read_text())[MEASURED]
    assert list(measured) == list(PARTS)
    return {name: part["figures"] for name, part in measured.items()}


def test_a_few_interruptions_are_measured_on_both_sides_and_the_awkward_cases_judged(
    figures: dict[str, Any],
) -> None:
    observed = figures["observer"]
    [sides] = observed[observer.STANDIN].values()
    assert {side: len(samples) for side, samples in sides.items()} == {OURS: 1, THEIRS: 1}
    assert observer.targets(observed)["observer"].keys() == {"standin_1000", "cpu_per_event"}
    judged = observed[observer.CORRECTNESS]
    assert all(judged[OURS][case.name]["right"] for case in CASES), judged[OURS]
    wrong = [case.name for case in CASES if not judged[THEIRS][case.name]["right"]]
    assert wrong == [
        "exit code 0",
        "late news of an older task",
        "waiting for a retry in the process that is gone",
    ]
    assert len(observer.tables(observed)) == 2


def test_a_rescue_and_its_floor_both_make_their_runs_due(figures: dict[str, Any]) -> None:
    assert floor.targets(figures["floor"]).keys() == {"warm_vs_floor"}
    assert floor.tables(figures["floor"])[0].rows


def test_a_cold_start_answers_and_a_stop_without_a_warning_costs_one_read(
    figures: dict[str, Any],
) -> None:
    assert figures["cold"]["no_op_requests"] == {"DynamoDB GetItem": 1, "Prefect": 0}
    targets = cold.targets(figures["cold"])
    assert targets["zip_bytes"] <= 2_000_000
    assert targets["peak_rss_mib"] <= 110
