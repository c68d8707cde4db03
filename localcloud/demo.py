"""`make demo`: one flow run, interrupted until it is moved to FARGATE, on a laptop, without AWS.

Deploys for real, interrupts for real (a process, not a container), and reports what ECS and Prefect
say. Writes `build/demo.json`.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from shlex import quote
from shutil import get_terminal_size
from typing import Any

from rich.console import Console
from rich.markup import escape

from localcloud import playground
from localcloud.bootstrap import CLUSTER, STACK, WORK_POOL
from localcloud.cloud import SWEEP, Cloud, Options, embedded_cloud, wait_for
from localcloud.deployment import PROJECT, run_program
from localcloud.oracle import Fault, judge
from localcloud.postgres import tail
from localcloud.prefect_api import deployment_id_in

BUDGET = 2
INTERRUPTIONS = BUDGET + 1
EXAMPLES = PROJECT / "examples"
LATELY = ("--since", "1d")
RESULT = PROJECT / "build" / "demo.json"
CHART = PROJECT / "build" / "savings"
TIMELINE = PROJECT / "build" / "timeline"
FAILURE = PROJECT / "build" / "demo-failure.txt"
NEXT_STEP = (
    "run make demo again, with less load on the machine; if it fails twice, report it with"
    f" build/{FAILURE.name}"
)
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDED = "ended: no process and no temporary file is left"
"""True once `embedded_cloud` has ended: otherwise it raises."""

Report = Callable[[str], None]
Attempt = dict[str, Any]
"""One ECS task of the run, as ECS describes it; times are datetimes, reactions seconds."""


def main() -> int:
    """Run the demo; 0 when it ended as it should."""
    console, began = Console(soft_wrap=True, width=110), time.monotonic()

    def report(text: str) -> None:
        """Print a line with the seconds since the beginning, at once, also into a pipe."""
        console.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {text}", highlight=False)

    for end in ENDS:  # also where a shell started it with SIGINT ignored
        if end is not signal.SIGHUP or signal.getsignal(end) is not signal.SIG_IGN:  # as by nohup
            signal.signal(end, _end)
    try:
        # Sweep bills what no event reported, after a grace period: here within the demo's time.
        settings = {"SWEEP_GRACE_SECONDS": "30", "SPOT_RETRIES": str(BUDGET)}
        with embedded_cloud(Options(settings=settings), report) as cloud:
            try:
                result = Run(cloud, report).play()
                result["savings"] = savings(cloud, report, result)
                result["replay"] = json.loads(_spotctl(cloud, "replay", *LATELY, "--json"))
                _show(console, cloud, result)
                result["seconds"] = round(time.monotonic() - began, 1)
                RESULT.write_text(json.dumps(result, indent=2, default=datetime.isoformat) + "\n")
                _conclude(console, result)
                if os.environ.get("KEEP"):
                    with suppress(KeyboardInterrupt), playground.environment_file(cloud):
                        _invite(console, cloud, result["flow_run"]["name"])
                        playground.keep(cloud)
            except Exception as error:
                what = escape(str(error)).partition("\n")[0]
                report(f"[bold red]{what}[/]: ending the rest")
                error.add_note(logs_of(cloud.folder))  # they go with the folder
                raise
        if os.environ.get("KEEP"):
            report(ENDED)
    except KeyboardInterrupt:
        report(ENDED)
        return 130
    except Exception as error:  # whatever it is, users get a line, not a trace
        report_failure(console, error)
        return 1
    return 0 if _is_good(result) else 1


def _end(*_: object) -> None:
    """Say at once what takes seconds; not by the console, which may be in the middle of a line."""
    for end in ENDS:
        signal.signal(end, signal.SIG_IGN)  # nothing interrupts the end
    with suppress(OSError):
        os.write(sys.stdout.fileno(), b"\nending everything (a few seconds)\n")
    raise KeyboardInterrupt


def report_failure(console: Console, error: Exception, file: Path = FAILURE) -> None:
    """Print what ended the demo, and the next step; the traceback goes into a file."""
    file.parent.mkdir(exist_ok=True)
    file.touch(mode=0o600)  # logs may hold what is nobody else's business
    file.chmod(0o600)
    file.write_text("".join(traceback.format_exception(error)))
    console.print(f"error: the demo failed: {error}", style="bold red", markup=False)
    console.print(f"next step: {NEXT_STEP}")


def logs_of(folder: Path) -> str:
    """The end of each log: of the server, the worker, the flows and the Lambdas."""
    return "\n".join(f"\n{log}\n{tail(log)}" for log in sorted(folder.rglob("*.log")))


class Run:
    """The demo's flow run."""

    def __init__(self, cloud: Cloud, report: Report) -> None:
        self._cloud = cloud
        self._prefect = cloud.prefect
        self._report = report
        self._id = ""

    def play(self) -> dict[str, Any]:
        """Interrupt the run until it is on FARGATE, let it finish, and return what is written."""
        self._report("deploying the example flow, with its results in S3")
        # Without a tag: the stage's SPOT_RETRIES is the budget, and a replay may try another.
        deployed = self._cloud.run_python(
            str(EXAMPLES / "deploy.py"), "--pool", WORK_POOL, "--bucket",
            self._cloud.outputs["ResultsBucket"], "--path", str(EXAMPLES), "--cpu", "512",
            "--memory", "1024", "--tags",
        )  # fmt: skip
        self._id = self._prefect.start(deployment_id_in(deployed))
        name = self._prefect.run(self._id)["name"]
        self._report(
            f"flow run [bold]{name}[/] is scheduled: {BUDGET} interruptions allowed on Spot"
        )
        for number in range(1, INTERRUPTIONS + 2):
            if not self._interrupted(number):
                break
        wait_for("the end of the run", 90, lambda: self._prefect.is_final(self._id))
        wait_for("the last task's end", 60, lambda: self._attempts(self._id)[-1]["stopped"])
        run = self._prefect.run(self._id)
        self._report(f"flow run {name} is [bold]{run['state_name']}[/]")
        return self._result(run)

    def _interrupted(self, number: int) -> bool:
        """Follow attempt `number`; interrupt it and see it rescued, if it is on Spot."""
        wait_for("a new task", 90, lambda: len(self._cloud.tasks(self._id)) >= number)
        attempt = self._attempts(self._id)[number - 1]
        self._report(f"task {number} is placed on [bold]{attempt['capacity']}[/]")
        if attempt["capacity"] != "FARGATE_SPOT":
            return False
        # An earlier attempt's progress is there at once; this one must have begun, too.
        wait_for(
            "the flow's start", 90, lambda: self._prefect.run(self._id)["state_type"] == "RUNNING"
        )
        progress = (self._loaded, self._called, self._converted)[min(number, 3) - 1]
        where = wait_for("progress", 90, progress)
        self._report(f"{where}; [yellow]Spot takes task {number} back[/]")
        self._cloud.fargate.interrupt(attempt["task"])
        # A flow that ignores SIGTERM is killed after its stopTimeout, of two minutes.
        seconds = wait_for(
            "the rescue", 200, lambda: self._attempts(self._id)[number - 1]["reaction_seconds"]
        )
        self._report(
            f"rescued: due again [bold green]{seconds:.2f} s[/] after the container's exit"
        )
        return True

    def _loaded(self) -> str | None:
        """While it loads the days, once one of them is persisted."""
        days = self._completed(self._id)
        return f"the flow has loaded {days} of its days" if days else None

    def _called(self) -> str | None:
        """While it waits for its child, a run of another deployment."""
        started = any(child["deployment_id"] for child in self._prefect.children(self._id))
        return "the flow waits for a child in another container" if started else None

    def _converted(self) -> str | None:
        """Within its subflow, once a result of that is persisted."""
        for child in self._prefect.children(self._id):
            if not child["deployment_id"] and (regions := self._completed(child["id"])):
                return f"its subflow has converted {regions} of 3 regions"
        return None

    def _completed(self, run_id: str) -> int:
        """Task runs that did their work; a rerun's, that found it done, is Cached."""
        return sum(task["state_name"] == "Completed" for task in self._prefect.task_runs(run_id))

    def _attempts(self, run_id: str) -> list[Attempt]:
        history, tasks = self._prefect.history(run_id), self._cloud.tasks(run_id)
        answer = self._cloud.aws.client("ecs").describe_tasks(cluster=CLUSTER, tasks=tasks)
        return [
            {
                "task": task["taskArn"],
                "capacity": task.get("capacityProviderName", task["launchType"]),
                "pull_started": task.get("pullStartedAt"),
                "started": task.get("startedAt"),
                "stopped": task.get("stoppedAt"),
                "stop_code": task.get("stopCode"),
                "reaction_seconds": _reaction_seconds(task, history),
            }
            for task in sorted(answer["tasks"], key=lambda task: task["createdAt"])
        ]

    def _result(self, run: dict[str, Any]) -> dict[str, Any]:
        attempts = self._attempts(self._id)
        verdict = judge(self._cloud.observe(self._id, budget=BUDGET))
        return {
            "flow_run": {
                "id": run["id"],
                "name": run["name"],
                "state": run["state_type"],
                "run_count": run["run_count"],
                "interruptions": sum(a["stop_code"] == "SpotInterruption" for a in attempts),
            },
            "children": [
                {
                    "name": child["name"],
                    "state": child["state_type"],
                    "attempts": self._attempts(child["id"]),
                }
                for child in self._prefect.children(self._id)
                if child["deployment_id"]
            ],
            "budget": BUDGET,
            "attempts": attempts,
            "final_capacity": attempts[-1]["capacity"],
            "worker": self._prefect.workers(WORK_POOL)[0]["name"],
            "oracle": {fault.value.replace(" ", "_"): verdict.count(fault) for fault in Fault},
            "zip_bytes": self._cloud.zip_bytes(),
        }


def _reaction_seconds(task: dict[str, Any], history: list[dict[str, Any]]) -> float | None:
    """From the container's exit until Prefect held a state in which the run was due."""
    exited = task.get("executionStoppedAt")
    if exited is None or task.get("stopCode") != "SpotInterruption":
        return None
    for state in history:
        set_at = datetime.fromisoformat(state["timestamp"])
        scheduled = (state.get("state_details") or {}).get("scheduled_time")
        if state["type"] != "SCHEDULED" or set_at < exited or scheduled is None:
            continue
        if (datetime.fromisoformat(scheduled) - set_at).total_seconds() < 1:
            return float((set_at - exited).total_seconds())
    return None


def savings(cloud: Cloud, report: Report, result: dict[str, Any]) -> dict[str, Any]:
    """What `spotctl report` says once all of the run's tasks are billed, its child's too."""
    own, children = len(result["attempts"]), len(result["children"])
    tasks = own + children

    def all_billed() -> dict[str, Any] | None:
        total = json.loads(_spotctl(cloud, "report", *LATELY, "--json"))["total"]
        if int(total["attempts"]) >= tasks:
            return dict(total)
        cloud.lambdas.invoke(SWEEP, {})  # it bills what meter left to it; else within minutes
        return None

    total = wait_for("the bills of all tasks", 90, all_billed)
    # The table in the Prefect UI is written once a day: let it be the next, now that all is billed.
    cloud.aws.client("dynamodb").delete_item(TableName=STACK, Key={"pk": {"S": "reported"}})
    cloud.lambdas.invoke(SWEEP, {})
    report(f"{tasks} tasks are billed: {own} of the run, {children} of its child")
    return total


def _spotctl(cloud: Cloud, command: str, *options: str) -> str:
    """Run a command as an operator of this cloud would."""
    project = str(cloud.folder / "project")
    program = [sys.executable, "-m", "spotctl", command, *options, "--project-dir", project]
    columns = str(get_terminal_size((100, 0)).columns)
    return run_program(program, {**cloud.environment, "COLUMNS": columns})


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


def _show(console: Console, cloud: Cloud, result: dict[str, Any]) -> None:
    """Print the run's story and the savings, and draw both."""
    table = ("--table", "--quiet", "--chart")
    RESULT.parent.mkdir(exist_ok=True)
    story = _spotctl(cloud, "explain", result["flow_run"]["id"], *table, str(TIMELINE))
    console.print(f"\n{story}", markup=False, highlight=False)
    of_all = _spotctl(cloud, "report", *LATELY, *table, str(CHART))
    console.print(of_all.rstrip(), markup=False, highlight=False)


def _conclude(console: Console, result: dict[str, Any]) -> None:
    """Print the verdict, the files, and what comes next."""
    oracle = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in result["oracle"].items())
    console.print(f"\nIndependent check, by what ECS and Prefect say: {oracle}.")
    console.print(
        "Written into build/: timeline.png (this run), savings.png, and demo.json (times,"
        f" savings). It took {result['seconds']:.0f} s."
    )
    if not _is_good(result):
        console.print("[bold red]This is not how it should have ended.[/]")
    if not os.environ.get("KEEP"):
        console.print("Next: make demo KEEP=1, to try all commands, as docs/quick-start.md says.")


def _invite(console: Console, cloud: Cloud, run: str) -> None:
    """Print what to try with the kept demo, and where its Prefect UI is."""
    console.print("\nWhat to try, in another terminal, in any folder:\n")
    leads = {f". {quote(str(playground.FILE))}": "leads that shell here"}
    for command, does in {**leads, **playground.try_it(run)}.items():
        console.print(f"    {command}", style="bold", markup=False, highlight=False)
        console.print(f"        {does}", style="dim")
    console.print(
        "\nThe password is of this run alone; sign in with all of it, admin: included."
        f"\nThe Prefect UI: [bold]{cloud.server.ui_url}[/]"
        f"  (password: {cloud.environment['PREFECT_API_AUTH_STRING']}; Ctrl-C ends all)"
    )


if __name__ == "__main__":
    sys.exit(main())
