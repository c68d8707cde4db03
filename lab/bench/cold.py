"""Cold start of the deployed zip, against a function that imports boto3 and does nothing.

Both are deployed by Chalice and started under AWS's own runtime client, in turn, each time in a new
process: from the process's start to its first answer. Bytecode is not written, since on Lambda the
zip's folder cannot be: what neither the zip nor Python brings is compiled each time. Our zip brings
it, as `spotctl deploy` makes it; the bare one does not, as Chalice makes it.
"""

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final
from uuid import uuid4

import psutil

from lab.bench.deployed import TIMEOUT_SECONDS, Deployed, answered, deployed
from lab.bench.interruptions import Seed, Victim, exit_of, task_arn
from lab.bench.part import Log, Measured, Row, ratio
from lab.bench.servers import FreshAws, FreshPrefect, StandIns, fresh_aws
from lab.bench.usage import cpu_seconds, peak_rss_mib
from localcloud.bootstrap import STAGE
from localcloud.cloud import REACT
from localcloud.deployment import deploy_folder
from localcloud.processes import Supervisor

TITLE: Final = "Cold start, memory, and an event that asks for nothing"
COMPARED: Final = "From a process's start to its first answer"
SIZES: Final = "Size, and an event that asks for nothing"

STARTS: Final = 15
BARE: Final = f"bare-{STAGE}-bare"
BARE_PROJECT: Final = Path(__file__).parent / "bare" / "chalice_app"
RESCUES: Final = 20
"""After a cold start, until peak memory is looked at."""

NOTES: Final = {
    COMPARED: (
        f"Medians of {STARTS} starts each, in turn. The event is the stop of a Spot task that had"
        " no warning. The bare function makes the client that react makes for it, DynamoDB's, and"
        " does not use it; its zip brings no bytecode, ours does: each as it is deployed."
    )
}


def measure(log: Log, *, short: bool = False) -> Measured:
    """Start both in turn; then let a runtime rescue, and count what a no-op asks for.

    Targets: cold start in multiples of the bare function's, bytes of the zip, and peak memory.
    """
    starts, rescues = (1, 1) if short else (STARTS, RESCUES)
    seeds = [Seed(task_arn(), on_demand=n % 4 == 3) for n in range(rescues)]
    with (
        Supervisor.open() as supervisor,
        StandIns(supervisor, seeds).fresh(rescues) as prefect,
        fresh_aws(supervisor) as aws,
        deployed(supervisor) as stage,
    ):
        settings = {"PREFECT_API_URL": prefect.api_url, **aws.environment}
        shutil.copytree(BARE_PROJECT, supervisor.folder / "bare")
        deploy_folder(stage.aws, supervisor.folder / "bare", STAGE, {}, TIMEOUT_SECONDS)
        ours, bare = _in_turn(stage, settings, starts)
        log(f"react {ours['seconds']:.2f} s, bare {bare['seconds']:.2f} s")
        peak = round(_peak_mib(stage, settings, prefect.victims), 1)
        asked = _count_requests(stage, settings, aws, prefect)
        zip_bytes = stage.zip_bytes
    ratios = {name: ratio(ours[name], bare[name]) for name in ("seconds", "CPU seconds")}
    compared = [
        {"function": "react, deployed", **ours},
        {"function": "bare Chalice function", **bare},
        {"function": "ratio", **ratios, "peak MiB": None},
    ]
    sizes = [
        {"what": "zip, bytes", "figure": f"{zip_bytes:,}"},
        {"what": f"peak memory over a cold start and {rescues} rescues, MiB", "figure": f"{peak}"},
        {"what": "requests for an event that asks for nothing of Prefect", "figure": asked},
    ]
    targets = {"cold_vs_bare": ratios["seconds"], "zip_bytes": zip_bytes, "peak_rss_mib": peak}
    return Measured(targets, {COMPARED: compared, SIZES: sizes})


def _in_turn(stage: Deployed, settings: Mapping[str, str], starts: int) -> Sequence[Row]:
    """Start `react` and the bare function so often; return the medians of both.

    The first start of each finds nothing in the machine's caches, and is not counted.
    """
    samples: dict[str, list[Row]] = {REACT: [], BARE: []}
    for number in range(starts + 1):
        for function, found in samples.items():
            event = stop_without_warning()
            began = time.perf_counter()
            runtime = stage.runtime(function, **settings)
            answered(runtime, number, event)
            seconds = time.perf_counter() - began
            process = psutil.Process(runtime.pid)
            cpu, mib = cpu_seconds([process]), peak_rss_mib(process)
            found.append({"seconds": seconds, "CPU seconds": cpu, "peak MiB": mib})
            runtime.end()
    return [
        {name: round(median(each[name] for each in found[1:]), 3) for name in found[0]}
        for found in samples.values()
    ]


def _peak_mib(stage: Deployed, settings: Mapping[str, str], victims: Sequence[Victim]) -> float:
    """Peak memory of one runtime over its cold start and these rescues."""
    runtime = stage.runtime(**settings)
    for number, victim in enumerate(victims):
        answer = answered(runtime, number, exit_of(victim)).answer
        if answer["decision"] != "finish-rerun":
            raise RuntimeError(f"a run was not rescued: {answer}")
    peak = peak_rss_mib(psutil.Process(runtime.pid))
    runtime.end()
    return peak


def _count_requests(
    stage: Deployed, settings: Mapping[str, str], aws: FreshAws, prefect: FreshPrefect
) -> str:
    """What a new runtime asks of anybody for an event that asks for nothing of Prefect."""
    before, of_prefect = Counter(aws.usage()["requests"]), prefect.requests()
    runtime = stage.runtime(**settings)
    answered(runtime, 0, stop_without_warning())
    runtime.end()
    asked = Counter(aws.usage()["requests"]) - before
    of_aws = [f"{number} to DynamoDB {name}" for name, number in sorted(asked.items())]
    return ", ".join([*of_aws, f"{prefect.requests() - of_prefect} to Prefect"])


def stop_without_warning() -> Mapping[str, Any]:
    """The stop of a Spot task that left by itself: what wakes react most."""
    victim = Victim(str(uuid4()), task_arn(), datetime.now(UTC), on_demand=False)
    event = exit_of(victim)
    by_itself = {"stopCode": "EssentialContainerExited", "stoppedReason": "exited"}
    return {**event, "detail": {**event["detail"], **by_itself}}
