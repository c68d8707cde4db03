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

from bench.deployed import TIMEOUT_SECONDS, Deployed, answered, deployed
from bench.handlers import FreshAws, fresh_aws
from bench.interruptions import Seed, Victim, exit_of, task_arn
from bench.part import Figures, Log, Table, ratio
from bench.servers import FreshPrefect, StandIns
from bench.usage import cpu_seconds, peak_rss_mib
from localcloud.bootstrap import STAGE
from localcloud.cloud import REACT
from localcloud.deployment import deploy_folder
from localcloud.processes import Household

TITLE: Final = "Cold start, memory, and an event that asks for nothing"

STARTS: Final = 15
BARE: Final = f"bare-{STAGE}-bare"
BARE_PROJECT: Final = Path(__file__).parent / "bare" / "chalice_app"
RESCUES: Final = 20
"""After a cold start, until peak memory is looked at."""


def measure(log: Log, *, short: bool = False) -> Figures:
    """Start both in turn; then let a runtime rescue, and count what a no-op asks for."""
    starts, rescues = (1, 1) if short else (STARTS, RESCUES)
    seeds = [Seed(task_arn(), on_demand=n % 4 == 3) for n in range(rescues)]
    with (
        Household.open() as household,
        StandIns(household, seeds).fresh(rescues) as prefect,
        fresh_aws(household, []) as aws,
        deployed(household) as stage,
    ):
        settings = {"PREFECT_API_URL": prefect.api_url, **aws.environment()}
        _deploy_bare(stage, household.folder / "bare")
        figures = {
            "starts": starts,
            "zip_bytes": stage.zip_bytes,
            **_in_turn(stage, settings, starts, log),
            **_memory(stage, settings, prefect.victims),
            "no_op_requests": _count_requests(stage, settings, aws, prefect),
        }
    log(f"peak memory {figures['peak_rss_mib']:.0f} MiB, zip {figures['zip_bytes']} bytes")
    return figures


def tables(figures: Figures) -> Sequence[Table]:
    """Return the comparison, and what there is to say of size."""
    compared = [
        (name, figures[side]["seconds"], figures[side]["cpu_seconds"])
        for name, side in (("react, deployed", "ours"), ("bare Chalice function", "bare"))
    ]
    asked = ", ".join(f"{n} to {name}" for name, n in figures["no_op_requests"].items())
    sizes = [
        ("zip, bytes", figures["zip_bytes"]),
        (
            f"peak memory over a cold start and {figures['rescues']} rescues, MiB",
            figures["peak_rss_mib"],
        ),
        ("peak memory of the bare function, MiB", figures["bare_rss_mib"]),
        ("requests for an event that asks for nothing of Prefect", asked),
    ]
    return [
        Table(
            "From a process's start to its first answer",
            ("function", "seconds", "CPU seconds"),
            [*compared, ("ratio", figures["ratio"], figures["cpu_ratio"])],
            f"Medians of {figures['starts']} starts each, in turn. The event is the stop of a Spot"
            " task that had no warning. The bare function makes the client that react makes for it,"
            " DynamoDB's, and does not use it; its zip brings no bytecode, ours does: each as it is"
            " deployed.",
        ),
        Table("Size, and an event that asks for nothing", ("what", "figure"), sizes),
    ]


def targets(figures: Figures) -> Figures:
    """Cold start in multiples of the bare function's, zip and memory."""
    return {
        "cold_vs_bare": figures["ratio"],
        "zip_bytes": figures["zip_bytes"],
        "peak_rss_mib": figures["peak_rss_mib"],
    }


def _deploy_bare(stage: Deployed, folder: Path) -> None:
    shutil.copytree(BARE_PROJECT, folder)
    deploy_folder(stage.aws, folder, STAGE, {}, TIMEOUT_SECONDS)


def _in_turn(stage: Deployed, settings: Mapping[str, str], starts: int, log: Log) -> Figures:
    seconds: dict[str, list[float]] = {REACT: [], BARE: []}
    cpu: dict[str, list[float]] = {REACT: [], BARE: []}
    rss: list[float] = []
    for number in range(starts):
        for function in seconds:
            event = stop_without_warning()
            began = time.perf_counter()
            runtime = stage.runtime(function, **settings)
            answered(runtime, number, event)
            seconds[function].append(time.perf_counter() - began)
            process = psutil.Process(runtime.pid)
            cpu[function].append(cpu_seconds([process]))
            if function == BARE:
                rss.append(peak_rss_mib(process))
            runtime.end()
    ours, bare = median(seconds[REACT]), median(seconds[BARE])
    ours_cpu, bare_cpu = median(cpu[REACT]), median(cpu[BARE])
    log(f"react {ours:.2f} s, bare {bare:.2f} s")
    return {
        "ours": {"seconds": round(ours, 3), "cpu_seconds": round(ours_cpu, 3)},
        "bare": {"seconds": round(bare, 3), "cpu_seconds": round(bare_cpu, 3)},
        "ratio": ratio(ours, bare),
        "cpu_ratio": ratio(ours_cpu, bare_cpu),
        "bare_rss_mib": round(median(rss), 1),
    }


def _memory(stage: Deployed, settings: Mapping[str, str], victims: Sequence[Victim]) -> Figures:
    """Peak memory of one runtime over its cold start and these rescues."""
    runtime = stage.runtime(**settings)
    for number, victim in enumerate(victims):
        answer = answered(runtime, number, exit_of(victim)).answer
        if answer["decision"] != "finish-rerun":
            raise RuntimeError(f"a run was not rescued: {answer}")
    peak = peak_rss_mib(psutil.Process(runtime.pid))
    runtime.end()
    return {"rescues": len(victims), "peak_rss_mib": round(peak, 1)}


def _count_requests(
    stage: Deployed, settings: Mapping[str, str], aws: FreshAws, prefect: FreshPrefect
) -> Mapping[str, int]:
    """What a new runtime asks of anybody for an event that asks for nothing of Prefect."""
    before, of_prefect = Counter(aws.usage()["requests"]), prefect.requests()
    runtime = stage.runtime(**settings)
    answered(runtime, 0, stop_without_warning())
    runtime.end()
    asked = Counter(aws.usage()["requests"]) - before
    return {
        **{f"DynamoDB {name}": number for name, number in sorted(asked.items())},
        "Prefect": prefect.requests() - of_prefect,
    }


def stop_without_warning() -> Mapping[str, Any]:
    """The stop of a Spot task that left by itself: what wakes react most."""
    victim = Victim(str(uuid4()), task_arn(), datetime.now(UTC), on_demand=False)
    event = exit_of(victim)
    by_itself = {"stopCode": "EssentialContainerExited", "stoppedReason": "exited"}
    return {**event, "detail": {**event["detail"], **by_itself}}
