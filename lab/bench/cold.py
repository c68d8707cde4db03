"""Cold start, memory and size of the deployed zip, against a function that does nothing.

All functions are deployed by Chalice and started under AWS's own runtime client, in turn, each time
in a new process: from the process's start to its first answer. Python writes no bytecode, since on
Lambda the zip's folder is read-only. Our zip brings its bytecode, as `spotctl deploy` packs it; the
bare function's does not, as Chalice makes it.

With `--against DIR`, the `react` of another checkout of this repository takes its turns too, and
nothing is written.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil

from lab.bench.interruptions import Interruption, exit_of, exit_without_warning, interruptions
from lab.bench.part import Log, Measured, cpu_seconds, medians, peak_rss_mib, ratio
from lab.bench.servers import TIMEOUT_SECONDS, answered, deployed, fresh_aws, stand_in
from lab.tables import Row
from localcloud.bootstrap import STAGE
from localcloud.cloud import REACT
from localcloud.deployment import deploy_folder
from localcloud.lambda_environment import ExecutionEnvironment
from localcloud.processes import Supervisor

TITLE: Final = "How heavy is a Lambda?"
COMPARED: Final = "From a process's start to its first answer"

STARTS: Final = 15
RESCUES: Final = 20
"""After a cold start, before peak memory is read."""

OURS: Final = "react, deployed"
BARE: Final = "bare Chalice function"
BARE_NAME: Final = f"bare-{STAGE}-bare"
BARE_PROJECT: Final = Path(__file__).parent / "bare" / "chalice_app"

ZIP_BYTES: Final = "zip, bytes"
PEAK_MIB: Final = "peak MiB"
RESCUING_MIB: Final = "peak MiB over rescues"

NOTES: Final = {
    COMPARED: (
        f"Medians of {STARTS} starts each, in turn. The event is the stop of a Spot task that had"
        " no warning. The bare function makes the client that react makes for it, DynamoDB's, and"
        " does not use it. Each is as it is deployed: its zip has no bytecode, prefect-spot's has."
        f" Memory over rescues: over the cold start and {RESCUES} of them."
    ),
}

NO_SIZES: Final[Row] = {ZIP_BYTES: None, RESCUING_MIB: None}

Start = Callable[[], ExecutionEnvironment]


def answer(found: Mapping[str, Any]) -> str:
    """Return the sentence for the page."""
    return (
        f"A cold start takes {found['cold_vs_bare']} times as long as that of a bare Chalice"
        f" function, the zip has {found['zip_bytes'] / 1e6:.2f} MB, and a rescue takes"
        f" {found['peak_rss_mib']} MiB at most."
    )


def measure(log: Log, *, short: bool = False, against: Path | None = None) -> Measured:
    """Start all functions in turn; then measure the sizes of `react`, here and in `against`.

    Targets: cold start as a multiple of the bare function's, bytes of the zip, and peak MiB.
    """
    starts, rescues = (1, 1) if short else (STARTS, RESCUES)
    with Supervisor.open() as supervisor, deployed(supervisor) as stage:
        names = {OURS: REACT}
        if against is not None:
            names[f"react of {against}"] = stage.add_checkout(against)
        shutil.copytree(BARE_PROJECT, supervisor.folder / "bare")
        deploy_folder(stage.aws, supervisor.folder / "bare", STAGE, {}, TIMEOUT_SECONDS)
        with stand_in(supervisor) as prefect, fresh_aws(supervisor) as aws:
            starts_of: dict[str, Start] = {
                title: partial(stage.runtime, name, prefect, aws)
                for title, name in {**names, BARE: BARE_NAME}.items()
            }
            compared = _in_turn(starts_of, starts)
            sizes = {}
            for title, name in names.items():
                began = prefect.begin_all(interruptions(rescues))
                peak = _peak_mib(starts_of[title], began)
                sizes[title] = {ZIP_BYTES: stage.zip_bytes(name), RESCUING_MIB: peak}
    rows = {title: {**row, **sizes.get(title, NO_SIZES)} for title, row in compared.items()}
    ours, bare = compared[OURS]["seconds"], compared[BARE]["seconds"]
    log(f"react {ours} s, bare {bare} s")
    targets = {
        "cold_vs_bare": ratio(ours, bare),
        "zip_bytes": sizes[OURS][ZIP_BYTES],
        "peak_rss_mib": sizes[OURS][RESCUING_MIB],
    }
    return Measured(targets, {COMPARED: _with_ratios(rows)})


def _in_turn(starts_of: Mapping[str, Start], starts: int) -> Mapping[str, Row]:
    """Start each function so often; return the medians by function.

    The first start of each finds nothing in the machine's caches, and is not counted.
    """
    samples: dict[str, list[Row]] = {title: [] for title in starts_of}
    for _ in range(starts + 1):
        for title, start in starts_of.items():
            event, began = exit_without_warning(), time.perf_counter()
            runtime = start()
            answered(runtime, event)
            seconds = time.perf_counter() - began
            process = psutil.Process(runtime.pid)
            cpu, mib = cpu_seconds([process]), peak_rss_mib(process)
            samples[title].append({"seconds": seconds, "CPU seconds": cpu, PEAK_MIB: mib})
            runtime.end()
    return {
        title: {key: round(value, 3) for key, value in medians(found[1:]).items()}
        for title, found in samples.items()
    }


def _with_ratios(figures: Mapping[str, Row]) -> list[Row]:
    """Return a row for each function, and one with ours ÷ its for each of the others."""
    rows: list[Row] = [{"function": title, **row} for title, row in figures.items()]
    for title, row in list(figures.items())[1:]:
        pairs = {key: (ours, row[key]) for key, ours in figures[OURS].items()}
        ratios = {key: ratio(*both) if all(both) else None for key, both in pairs.items()}
        rows.append({"function": f"{OURS} ÷ {title}", **ratios})
    return rows


def _peak_mib(start: Start, of: Sequence[Interruption]) -> float:
    """Return the peak memory of one runtime over its cold start and these rescues, in MiB."""
    runtime = start()
    for each in of:
        answer = answered(runtime, exit_of(each)).answer
        if answer["decision"] != "finish-rerun":
            raise RuntimeError(f"a run was not rescued: {answer}")
    peak = peak_rss_mib(psutil.Process(runtime.pid))
    runtime.end()
    return round(peak, 1)
