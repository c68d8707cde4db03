"""The benchmark's parts that need servers, in short: both sides run, each does what is said of it.

In a process of their own: the AWS of each is moto's, which is one for a process, and begins anew.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import cold, floor, observer
from bench.comparison import OURS, THEIRS
from bench.correctness import CASES
from localcloud.deployment import PROJECT

PROGRAM = """
import json, sys
from bench import {part}
figures = {part}.measure(lambda line: print(line, flush=True), short=True)
open(sys.argv[1], "w").write(json.dumps(figures))
"""


def measured(part: str, folder: Path) -> Any:
    file = folder / f"{part}.json"
    command = [sys.executable, "-c", PROGRAM.format(part=part), str(file)]
    finished = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
    return json.loads(file.read_text())


def test_a_few_interruptions_are_measured_on_both_sides_and_the_awkward_cases_judged(
    tmp_path: Path,
) -> None:
    figures = measured("observer", tmp_path)
    [sides] = figures[observer.STANDIN].values()
    assert {side: len(samples) for side, samples in sides.items()} == {OURS: 1, THEIRS: 1}
    assert observer.targets(figures)["observer"].keys() == {"standin_1000", "cpu_per_event"}
    judged = figures[observer.CORRECTNESS]
    assert all(judged[OURS][case.name]["right"] for case in CASES), judged[OURS]
    wrong = [case.name for case in CASES if not judged[THEIRS][case.name]["right"]]
    assert wrong == [
        "exit code 0",
        "late news of an older task",
        "waiting for a retry in the process that is gone",
    ]
    assert all(seconds > 0 for seconds in figures[observer.COSTS].values())
    assert len(observer.tables(figures)) == 3


def test_a_rescue_and_its_floor_both_make_their_runs_due(tmp_path: Path) -> None:
    figures = measured("floor", tmp_path)
    assert floor.targets(figures).keys() == {"warm_vs_floor"}
    assert floor.tables(figures)[0].rows


def test_a_cold_start_answers_and_a_stop_without_a_warning_costs_one_read(tmp_path: Path) -> None:
    figures = measured("cold", tmp_path)
    assert figures["no_op_requests"] == {"DynamoDB GetItem": 1, "Prefect": 0}
    targets = cold.targets(figures)
    assert targets["zip_bytes"] <= 2_000_000
    assert targets["peak_rss_mib"] <= 110
