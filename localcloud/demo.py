"""`make demo`: one flow run, interrupted until it is moved to FARGATE, on a laptop, without AWS.

Deploys for real, interrupts for real (a process, not a container), and tells the story from what
ECS and Prefect say. Writes `build/demo.json`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from localcloud.bootstrap import CLUSTER, STACK, WORK_POOL
from localcloud.cloud import SWEEP, Cloud, Options, embedded_cloud, wait_for
from localcloud.deployment import PROJECT
from localcloud.oracle import Fault, Verdict, judge
from localcloud.postgres import tail
from localcloud.prefect_api import deployment_id_in

BUDGET = 2
INTERRUPTIONS = BUDGET + 1
EXAMPLES = PROJECT / "examples"
RESULT = PROJECT / "build" / "demo.json"
CHART = PROJECT / "build" / "savings"
FAILURE = PROJECT / "build" / "demo-failure.txt"
NEXT_STEP = (
    "run make demo again, with less load on the machine; if it fails twice, report it with"
    f" build/{FAILURE.name}"
)


@dataclass(frozen=True)
class Attempt:
    """One ECS task of the run, as ECS describes it; times are ISO 8601, reactions seconds."""

    task: str
    capacity: str
    pull_started: str | None
    started: str | None
    stopped: str | None
    stop_code: str | None
    reaction_seconds: float | None


class Story:
    """Tells what happens, with the seconds since the beginning."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def tell(self, text: str) -> None:
        """Print a line, at once, also into a pipe."""
        self._console.print(f"[dim]{self.seconds():6.1f} s[/]  {text}", highlight=False)

    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began


def main() -> int:
    """Run the demo; 0 when it ended as it should."""
    console = Console(soft_wrap=True, width=110)
    story = Story(console)
    for end in (signal.SIGINT, signal.SIGTERM):  # also where a shell started it with SIGINT ignored
        signal.signal(end, signal.default_int_handler)
    try:
        # Sweep bills what no event told, once the fast path had its time: here within the demo's.
        options = Options(settings={"SWEEP_GRACE_SECONDS": "30"})
        with embedded_cloud(options, story.tell) as cloud:
            try:
                result = run_demo(cloud, story)
                result["savings"] = savings(cloud, story, result)
                result["replay"] = json.loads(_spotctl(cloud, "replay", "--json"))
            except Exception as error:
                error.add_note(logs_of(cloud.folder))  # they go with the folder
                raise
            _write(result)
            _show(console, cloud, result)
            console.print(_report(cloud, "--table", "--chart", str(CHART)), highlight=False)
            if os.environ.get("KEEP"):
                console.print(
                    f"\nThe Prefect UI: [bold]{cloud.server.ui_url}[/]"
                    f"  (password: {options.auth_string}; Ctrl-C ends all)"
                )
                with suppress(KeyboardInterrupt):
                    signal.pause()
    except KeyboardInterrupt:
        story.tell("ended by hand: everything is gone")
        return 130
    except Exception as error:  # whatever it is, they get a line, not a trace
        tell_failure(console, error)
        return 1
    return 0 if _is_good(result) else 1


def tell_failure(console: Console, error: Exception, file: Path = FAILURE) -> None:
    """Print what ended the demo, and the next step; the traceback goes into a file."""
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(traceback.format_exception(error)))
    console.print(f"error: the demo failed: {error}", style="bold red", markup=False)
    console.print(f"next step: {NEXT_STEP}")


def logs_of(folder: Path) -> str:
    """The end of each log: of the server, the worker, the flows and the Lambdas."""
    return "\n".join(f"\n{log}\n{tail(log)}" for log in sorted(folder.rglob("*.log")))


def run_demo(cloud: Cloud, story: Story) -> dict[str, Any]:
    """Interrupt a run until it is on FARGATE, let it finish, and return what is to be told."""
    story.tell("deploying the example flow, with its results in S3")
    deployed = cloud.run_python(
        str(EXAMPLES / "deploy.py"), "--pool", WORK_POOL, "--bucket", cloud.account.bucket,
        "--path", str(EXAMPLES), "--cpu", "512", "--memory", "1024",
    )  # fmt: skip
    run_id = cloud.prefect.start(deployment_id_in(deployed), tags=[f"spot-retries:{BUDGET}"])
    name = cloud.prefect.run(run_id)["name"]
    story.tell(f"flow run [bold]{name}[/] is scheduled: {BUDGET} interruptions allowed on Spot")

    for number in range(1, INTERRUPTIONS + 2):
        if not _interrupted(cloud, story, run_id, number):
            break
    wait_for("the end of the run", 90, lambda: cloud.prefect.is_final(run_id))
    wait_for("the last task's end", 60, lambda: _described(cloud, run_id)[-1].get("stoppedAt"))
    run = cloud.prefect.run(run_id)
    story.tell(f"flow run {name} is [bold]{run['state_name']}[/]")
    return _result(cloud, run, judge(cloud.observe(run_id, budget=BUDGET)), story.seconds())


def _interrupted(cloud: Cloud, story: Story, run_id: str, number: int) -> bool:
    """Follow attempt `number`; interrupt it and see it rescued, if it is on Spot."""
    task = wait_for("a new task", 90, lambda: _task(cloud, run_id, number))
    capacity = _attempts(cloud, run_id)[number - 1].capacity
    story.tell(f"task {number} is placed on [bold]{capacity}[/]")
    if capacity != "FARGATE_SPOT":
        return False
    # What it left behind is seen at once; it must not be interrupted before it has begun again.
    wait_for("the flow's start", 90, lambda: cloud.prefect.run(run_id)["state_type"] == "RUNNING")
    moment = MOMENTS[min(number, len(MOMENTS)) - 1]
    where = wait_for("progress", 90, lambda: moment(cloud, run_id))
    story.tell(f"{where}; [yellow]Spot takes task {number} back[/]")
    cloud.fargate.interrupt(task)
    # A flow that does not heed SIGTERM is killed after its stopTimeout, of two minutes.
    seen = wait_for(
        "the rescue", 200, lambda: _attempts(cloud, run_id)[number - 1].reaction_seconds
    )
    story.tell(f"rescued: due again [bold green]{seen:.2f} s[/] after the container's exit")
    return True


def _task(cloud: Cloud, run_id: str, number: int) -> str | None:
    tasks = cloud.tasks(run_id)
    return tasks[number - 1] if len(tasks) >= number else None


def _loading(cloud: Cloud, run_id: str) -> str | None:
    """While it loads the days, once one of them is persisted."""
    days = _completed(cloud, run_id)
    return f"the flow has loaded {days} of its days" if days else None


def _calling(cloud: Cloud, run_id: str) -> str | None:
    """While it waits for its child, a run of another deployment."""
    started = any(child["deployment_id"] for child in cloud.prefect.children(run_id))
    return "the flow waits for a child in another container" if started else None


def _converting(cloud: Cloud, run_id: str) -> str | None:
    """Within its subflow, once a result of that is persisted."""
    for child in cloud.prefect.children(run_id):
        if not child["deployment_id"] and (regions := _completed(cloud, child["id"])):
            return f"its subflow has converted {regions} of 3 regions"
    return None


MOMENTS = (_loading, _calling, _converting)
"""Where the flow is to be when it is interrupted, one after the other; None: not there yet."""


def _completed(cloud: Cloud, run_id: str) -> int:
    """Task runs that did their work; a rerun's, that found it done, is Cached."""
    return sum(task["state_name"] == "Completed" for task in cloud.prefect.task_runs(run_id))


def _described(cloud: Cloud, run_id: str) -> list[dict[str, Any]]:
    tasks = cloud.tasks(run_id)
    answer = cloud.aws.client("ecs").describe_tasks(cluster=CLUSTER, tasks=tasks)
    return sorted(answer["tasks"], key=lambda task: task["createdAt"])


def _attempts(cloud: Cloud, run_id: str) -> list[Attempt]:
    history = cloud.prefect.history(run_id)
    return [
        Attempt(
            task=task["taskArn"],
            capacity=task.get("capacityProviderName", task["launchType"]),
            pull_started=_iso(task.get("pullStartedAt")),
            started=_iso(task.get("startedAt")),
            stopped=_iso(task.get("stoppedAt")),
            stop_code=task.get("stopCode"),
            reaction_seconds=_reaction_of(task, history),
        )
        for task in _described(cloud, run_id)
    ]


def _reaction_of(task: dict[str, Any], history: list[dict[str, Any]]) -> float | None:
    """Seconds from the container's exit until Prefect held a state in which the run was due."""
    exited = task.get("executionStoppedAt")
    if exited is None or task.get("stopCode") != "SpotInterruption":
        return None
    for state in history:
        set_at = datetime.fromisoformat(state["timestamp"])
        scheduled = (state.get("state_details") or {}).get("scheduled_time")
        if state["type"] != "SCHEDULED" or set_at < exited or scheduled is None:
            continue
        due_at = datetime.fromisoformat(scheduled)
        if (due_at - set_at).total_seconds() < 1:
            return float((set_at - exited).total_seconds())
    return None


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _result(cloud: Cloud, run: dict[str, Any], verdict: Verdict, seconds: float) -> dict[str, Any]:
    attempts = _attempts(cloud, run["id"])
    worker = cloud.prefect.workers(WORK_POOL)[0]
    return {
        "flow_run": {
            "id": run["id"],
            "name": run["name"],
            "state": run["state_type"],
            "run_count": run["run_count"],
            "interruptions": sum(a.stop_code == "SpotInterruption" for a in attempts),
        },
        "children": [
            {
                "name": child["name"],
                "state": child["state_type"],
                "attempts": [vars(attempt) for attempt in _attempts(cloud, child["id"])],
            }
            for child in cloud.prefect.children(run["id"])
            if child["deployment_id"]
        ],
        "budget": BUDGET,
        "attempts": [vars(attempt) for attempt in attempts],
        "final_capacity": attempts[-1].capacity,
        "worker": worker["name"],
        "oracle": {
            "lost": verdict.count(Fault.LOST),
            "run_twice": verdict.count(Fault.RUN_TWICE),
            "wrong_capacity": verdict.count(Fault.WRONG_CAPACITY),
        },
        "zip_bytes": cloud.zip_bytes(),
        "seconds": round(seconds, 1),
    }


def savings(cloud: Cloud, story: Story, result: dict[str, Any]) -> dict[str, Any]:
    """What `spotctl report` says once all of the run's tasks are billed, its child's too."""
    tasks = len(result["attempts"]) + len(result["children"])

    def all_billed() -> dict[str, Any] | None:
        total = json.loads(_report(cloud, "--json"))["total"]
        if int(total["attempts"]) >= tasks:
            return dict(total)
        cloud.lambdas.invoke(SWEEP, {})  # it bills what meter left to it; else within minutes
        return None

    total = wait_for("the bills of all tasks", 90, all_billed)
    # The table in the Prefect UI is written once a day: let it be the next, now that all is billed.
    cloud.aws.client("dynamodb").delete_item(TableName=STACK, Key={"pk": {"S": "reported"}})
    cloud.lambdas.invoke(SWEEP, {})
    story.tell(f"{tasks} tasks are billed")
    return total


def _report(cloud: Cloud, *options: str) -> str:
    return _spotctl(cloud, "report", *options)


def _spotctl(cloud: Cloud, command: str, *options: str) -> str:
    """Run a command about the last day as an operator of this cloud would."""
    project = str(cloud.folder / "project")
    return cloud.run_python(
        "-m", "spotctl", command, "--since", "1d", *options, "--project-dir", project
    )


def _is_good(result: dict[str, Any]) -> bool:
    run = result["flow_run"]
    return (
        run["state"] == "COMPLETED"
        and run["interruptions"] == INTERRUPTIONS
        and len({attempt["task"] for attempt in result["attempts"]}) == INTERRUPTIONS + 1
        and result["final_capacity"] == "FARGATE"
        and [child["state"] for child in result["children"]] == ["COMPLETED"]
        and not any(result["oracle"].values())
    )


def _write(result: dict[str, Any]) -> None:
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def _show(console: Console, cloud: Cloud, result: dict[str, Any]) -> None:
    run = result["flow_run"]
    table = Table(title=f"Flow run {run['name']}: {run['state']} on {result['final_capacity']}")
    for column in ("attempt", "capacity", "started", "ran", "stop code", "due again after"):
        table.add_column(column, justify="right" if column == "ran" else "left", no_wrap=True)
    for number, attempt in enumerate(result["attempts"], start=1):
        reaction = attempt["reaction_seconds"]
        table.add_row(
            str(number),
            attempt["capacity"],
            (attempt["started"] or "")[11:19],
            _ran(attempt),
            attempt["stop_code"] or "",
            f"{reaction:.2f} s" if reaction is not None else "",
        )
    console.print()
    console.print(table)
    annotation = cloud.prefect.annotation(run["id"])
    if annotation:
        console.print("\nWhat people read on the run, in the Prefect UI:\n")
        console.print(Markdown(annotation))
    oracle = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in result["oracle"].items())
    console.print(f"Oracle: {oracle}.  Zip: {result['zip_bytes'] / 1e6:.2f} MB.")
    console.print(f"Written: build/demo.json.  It took {result['seconds']:.0f} s.")
    if not _is_good(result):
        console.print("[bold red]This is not how it should have ended.[/]")


def _ran(attempt: dict[str, Any]) -> str:
    if not attempt["started"] or not attempt["stopped"]:
        return ""
    begun, ended = (datetime.fromisoformat(attempt[k]) for k in ("started", "stopped"))
    return f"{(ended - begun).total_seconds():.0f} s"


if __name__ == "__main__":
    sys.exit(main())
