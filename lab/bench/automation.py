"""Part 2: prefect-spot against what a user would do without it, on one real Prefect server.

That is prefect-aws's observer, which sets an interrupted run Crashed, and an automation of
Prefect's that runs the deployment of such a run again: it ends with a run that is due as well. All
reruns are on Spot, since the automation knows no other capacity.
"""

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

from lab.bench.comparison import AUTOMATED, OURS, THEIRS, Comparison, stop_alone
from lab.bench.floor import PREFECT, Floor
from lab.bench.interruptions import all_on_spot
from lab.bench.outcomes import observed
from lab.bench.part import Log, Measured, cpu_seconds, ratio
from lab.bench.servers import Prefect, deployed, real_server, stand_in
from lab.tables import Row
from localcloud.processes import Supervisor

TITLE: Final = "Is it as good as what a user would do otherwise?"
COMPARED: Final = "Until a run is due again, on a Prefect server with PostgreSQL"
RIGHT: Final = "What either gets right"
SPENT: Final = "Where the server's CPU goes: milliseconds per interruption"
ROUNDS: Final = {30: 3}
SHORT_ROUNDS: Final = {3: 1}
COUNTED: Final = 10
"""Interruptions whose requests are counted, on the stand-in."""

PROFILED: Final = 30
"""Requests of each kind; a process's CPU is counted in hundredths of a second."""

IDLE_SECONDS: Final = 5.0
PARKED: Final = "set the state, parked"
KINDS: Final = {
    "GET .*/flow_run_states/": "read its states",
    "GET .*/flow_runs/": "read the run",
    "GET .*/deployments/|POST .*/filter": "read the deployment and task runs",
    "/set_state": PARKED,
    "PATCH .*/labels": "add labels",
    "PATCH .*/flow_runs/": "change retries and tags",
    "/logs/|/artifacts/|/events": "write log line, artifact and events",
}
"""What a request is for, by its method and path."""

NOTES: Final = {
    COMPARED: (
        "Seconds: from the first event until the last run is due, by Prefect's own timestamps: the"
        " same run for prefect-spot, a new one for the automation. Prefect's CPU is per"
        " interruption, until its server is quiet again, with its events stored and the"
        " automation's action done."
        " Requests are counted on the stand-in; the automation's own never leave the server."
    ),
    RIGHT: "Each answer is read from Prefect, or from the parent, after the events were handled.",
    SPENT: (
        f"Each kind is sent for {PROFILED} runs, one after the other, and the server's idle CPU is"
        " taken off; PostgreSQL's part is not in it. The sum is what the requests cost one by one,"
        " the table above what they cost at once."
    ),
}


def answer(found: Mapping[str, Any]) -> str:
    """Return the sentence for the page."""
    ratios, right = found["automation"], found["measured"]["automation"]["figures"][RIGHT]
    theirs = sum(row[f"{AUTOMATED} is right"] == "yes" for row in right)
    ours = sum(row[f"{OURS} is right"] == "yes" for row in right)
    return (
        "Without prefect-spot, the observer marks the run Crashed, and an automation runs its"
        f" deployment again. prefect-spot takes {ratios['seconds_ratio']} times their seconds until"
        f" a run is due, and {ratios['server_cpu_ratio']} times their server CPU. Of the"
        f" {len(right)} cases below, prefect-spot gets {ours} right, they {theirs}."
    )


def measure(log: Log, *, short: bool = False) -> Measured:
    """Judge both sides, then compare them; the targets are ratios of seconds and of server CPU."""
    number = 2 if short else PROFILED
    with Supervisor.open() as supervisor, deployed(supervisor) as stage:
        comparison = Comparison(stage, log, AUTOMATED, all_on_spot)
        requests = {}
        for name, side in ((OURS, OURS), (AUTOMATED, THEIRS)):
            with stand_in(supervisor) as counted:
                few = 2 if short else COUNTED
                requests[name] = comparison.sample(side, counted, few, stop_alone)["requests"]
        floor = Floor(stage, on_demand=False)
        with real_server(supervisor) as prefect:
            right = observed(comparison, prefect)
            rounds = SHORT_ROUNDS if short else ROUNDS
            rows = comparison.compare(lambda: nullcontext(prefect), rounds)
            spent = Profile(prefect, number).of(floor, rows)
    requests["ratio"] = ratio(*requests.values())
    for row in rows:
        row["requests"] = requests[row["side"]]
    targets = {
        "seconds_ratio": rows[-1]["seconds"],
        "server_cpu_ratio": rows[-1]["Prefect's CPU s"],
    }
    return Measured({"automation": targets}, {COMPARED: rows, RIGHT: right, SPENT: spent})


class Profile:
    """What requests cost a server, kind by kind."""

    def __init__(self, prefect: Prefect, number: int) -> None:
        self._prefect: Final = prefect
        self._number: Final = number
        self._idle_share = 0.0
        self._idle_share = self._cpu_of(lambda: time.sleep(IDLE_SECONDS)) / IDLE_SECONDS

    def of(self, floor: Floor, compared: Sequence[Row]) -> list[Row]:
        """Return a row for each kind of request of a rescue, and for each share of theirs."""
        theirs = next(1000 * x["Prefect's CPU s"] for x in compared if x["side"] == AUTOMATED)
        crashed = self._of_crashing()
        with self._prefect.automation():
            run_again = self._of_crashing()
        shares = {
            "set the state, Crashed": crashed,
            "the automation and its new run": run_again - crashed,
            "the observer's reads, log line and WebSocket": theirs - run_again,
        }
        rows = self._of_rescues(floor)
        rows += [_row(AUTOMATED, what, 1, ms) for what, ms in shares.items()]
        for side in (OURS, AUTOMATED):
            total = sum(row["ms in all"] for row in rows if row["side"] == side)
            rows.append({**_row(side, "all", 1, total), "times": None, "ms each": None})
        return sorted(rows, key=lambda row: row["side"] == AUTOMATED)

    def _of_rescues(self, floor: Floor) -> list[Row]:
        """Issue the requests of a rescue, each kind for all runs before the next."""
        began = self._prefect.begin_each(all_on_spot(self._number))
        in_turn = [
            [x for stage in floor.stages_for(of, self._prefect) for x in stage] for of in began
        ]
        times: Counter[str] = Counter()
        ms: defaultdict[str, float] = defaultdict(float)
        for same in zip(*in_turn, strict=True):
            if same[0]["to"] != PREFECT:
                continue
            kind = _kind_of(same[0], times)
            times[kind] += 1
            ms[kind] += self._ms_of(partial(self._issue, same))
        states = {run["state"]["name"] for run in self._prefect.runs(began)}
        if states != {"AwaitingRetry"}:
            raise RuntimeError(f"not every run was made due: {states}")
        return [_row(OURS, kind, n, ms[kind]) for kind, n in times.items()]

    def _of_crashing(self) -> float:
        began = self._prefect.begin_each(all_on_spot(self._number))

        def crash_all() -> None:
            for of in began:
                self._prefect.move(of.run_id, "CRASHED")

        return self._ms_of(crash_all)

    def _issue(self, requests: Sequence[Mapping[str, str]]) -> None:
        for each in requests:
            body = json.loads(each["body"]) if each["body"] else None
            self._prefect.send(each["method"], each["path"].removeprefix("/api"), body)

    def _ms_of(self, action: Callable[[], object]) -> float:
        return 1000 * self._cpu_of(action) / self._number

    def _cpu_of(self, action: Callable[[], object]) -> float:
        """Return the CPU seconds that the server takes for it, besides those of an idle one."""
        self._prefect.wait_until_quiet()
        processes = self._prefect.processes()
        before, began = cpu_seconds(processes), time.monotonic()
        action()
        self._prefect.wait_until_quiet()
        idle = self._idle_share * (time.monotonic() - began)
        return cpu_seconds(processes) - before - idle


def _row(side: str, what: str, times: int, ms: float) -> Row:
    each, total = round(ms / times, 1), round(ms, 1)
    return {"side": side, "what": what, "times": times, "ms each": each, "ms in all": total}


def _kind_of(request: Mapping[str, str], before: Counter[str]) -> str:
    """Return what a request is for; a rescue sets the state twice, first to park the run."""
    line = f"{request['method']} {request['path']}"
    kind = next(kind for pattern, kind in KINDS.items() if re.search(pattern, line))
    return "set the state, due" if kind == PARKED and before[PARKED] else kind
