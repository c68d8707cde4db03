"""Runs the tiers of `make test` and `make test-all` with live progress, and judges them.

    python -m tests.tiers test         # or test-all; rest: what test-all adds; check: no servers
    python -m tests.tiers unit laws    # single tiers

A tier is one command: a pytest run, or a static check, which counts as one test. Tiers of one
stage run side by side. A tier fails when its command fails, when it ran no test, or when it skipped
a test that is not in `ALLOWED_SKIPS`. Its budget fails nothing: timings are the machine's too.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / "build"
BIN: Final = Path(sys.executable).parent

ALLOWED_SKIPS: Final[dict[str, str]] = {}
"""Tests that may be skipped, by name, each with a reason a stranger would accept. None so far."""

LINE_EVERY_SECONDS: Final = 10
"""Between two progress lines where the output is not a terminal."""


@dataclass(frozen=True)
class Tier:
    """One command of the test suite. `budget` is in seconds, on two cores."""

    name: str
    budget: int
    command: tuple[str, ...]

    @property
    def is_pytest(self) -> bool:
        return self.command[0] == "pytest"


def check(budget: int, *command: str, name: str = "") -> Tier:
    return Tier(name or command[0], budget, command)


def tests(name: str, budget: int, *arguments: str) -> Tier:
    return Tier(name, budget, ("pytest", "--quiet", *arguments))


ALL_CORES: Final = ("-n", "logical", "--dist", "worksteal")

STATIC: Final = (
    check(5, "ruff", "format", "--check", "--quiet", ".", name="ruff format"),
    check(5, "ruff", "check", "--quiet", ".", name="ruff check"),
    check(60, "mypy", "--no-error-summary"),
    check(15, "lint-imports", "--no-cache", "--no-logo"),
    check(5, "shellcheck", ".ci/run", "examples/build_and_push.sh", "tools/spotctl"),
)
IN_MEMORY: Final = (
    (tests("unit", 90, "tests/unit", *ALL_CORES),),
    (tests("laws", 40, "tests/laws", *ALL_CORES),),
    (tests("faults", 60, "tests/faults", *ALL_CORES),),
)
CHECK: Final = (STATIC, *IN_MEMORY)
TEST: Final = (
    (*STATIC, tests("contract", 120, "tests/contract", "--servers", "newest")),
    *IN_MEMORY,
    (tests("e2e", 200, "tests/e2e"),),
)
"""What `make test` runs, stage by stage."""

REST: Final = (
    (tests("contract-others", 350, "tests/contract", "--servers", "others"),),
    (check(60, "python", "-m", "tests.ui.browser", name="browser"),),
    (tests("system", 1_000, "-n", "2", "--no-loadscope-reorder", "tests/system", "tests/ui"),),
    (tests("localcloud", 150, "tests/localcloud"),),
    (check(150, "python", "-m", "tests.faults.mutants", name="mutants"),),
    (check(10, "python", "-m", "tests.faults.report", name="faults report"),),
    (tests("second-aws", 300, "tests/second_aws"),),
    (check(10, "python", "-m", "tests.rows", name="rows report"),),
    (check(30, "make", "site", name="docs"),),
)
"""What `make test-all` runs after that."""

GROUPS: Final = {"check": CHECK, "test": TEST, "rest": REST, "test-all": TEST + REST}


@dataclass
class Running:
    """A tier under way, and what its tests have reported so far."""

    tier: Tier
    total: int = 0
    now: str = ""
    began: float = field(default_factory=time.monotonic)
    seconds: float | None = None
    """How long the tier took; None while it runs."""
    outcomes: dict[str, str] = field(default_factory=dict)
    """"passed", "failed" or "skipped", by test."""
    durations: dict[str, float] = field(default_factory=dict)
    """Seconds, set-up and tear-down included, by test."""
    complaints: list[str] = field(default_factory=list)

    def count(self, outcome: str) -> int:
        return sum(found == outcome for found in self.outcomes.values())

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began if self.seconds is None else self.seconds

    @property
    def is_good(self) -> bool:
        return not self.complaints

    @property
    def log(self) -> Path:
        return BUILD / "logs" / f"{self.tier.name.replace(' ', '-')}.log"

    def hear(self, line: str) -> None:
        """Take in a line of `tests.progress`; any other text says what runs now."""
        try:
            told = json.loads(line)
        except ValueError:
            self.now = line.strip()
            return
        if "total" in told:
            self.total = told["total"]
        elif "now" in told:
            self.now = told["now"]
        else:
            self._record(told["test"], told["when"], told["outcome"], told["seconds"])

    def _record(self, test: str, when: str, outcome: str, seconds: float) -> None:
        self.durations[test] = self.durations.get(test, 0.0) + seconds
        is_result = when == "call" or outcome != "passed"  # set-up and tear-down may only fail
        if is_result and self.outcomes.get(test) != "failed":
            self.outcomes[test] = outcome

    def end(self, exit_code: int) -> None:
        """Judge the tier, now that its command has ended."""
        self.seconds = time.monotonic() - self.began
        if not self.tier.is_pytest:
            self.outcomes[self.tier.name] = "failed" if exit_code else "passed"
        if exit_code:
            self.complaints.append(f"{self.tier.command[0]} exited {exit_code}")
        if not self.count("passed") + self.count("failed"):
            self.complaints.append("no test ran")
        (BUILD / "outcomes").mkdir(parents=True, exist_ok=True)
        kept = BUILD / "outcomes" / f"{self.tier.name}.json"  # for tests/rows.py
        kept.write_text(json.dumps(self.outcomes, indent=2))
        for test, outcome in self.outcomes.items():
            name = test.rpartition("::")[2]
            if outcome == "skipped" and name not in ALLOWED_SKIPS:
                self.complaints.append(f"{name} was skipped")

    def line(self) -> str:
        """Return the progress of the tier in one line."""
        done = len(self.outcomes)
        failed = f", {self.count('failed')} failed" if self.count("failed") else ""
        if self.seconds is not None:
            verdict = "ok" if self.is_good else "FAILED: " + "; ".join(self.complaints[:3])
            return f"{self.tier.name:<16} {done:>5} tests {self.elapsed:>5.0f} s  {verdict}"
        of = f"{done:>5} of {self.total or '?'}" if self.tier.is_pytest else ""
        now = self.now.removeprefix("tests/") or "starting"
        return f"{self.tier.name:<16} {of} {self.elapsed:>5.0f} s{failed}  {now}"

    def summary(self) -> dict[str, object]:
        return {
            "name": self.tier.name,
            "tests": len(self.outcomes) - self.count("skipped"),
            "failed": self.count("failed"),
            "skipped": self.count("skipped"),
            "seconds": round(self.elapsed, 1),
        }


def run(tier: Tier, running: list[Running]) -> Running:
    """Run a tier to its end; append it to `running` at once, so that others can show it."""
    state = Running(tier)
    running.append(state)
    state.log.parent.mkdir(parents=True, exist_ok=True)
    progress = state.log.with_suffix(".progress")  # a name, which pytest-xdist's workers can open
    progress.unlink(missing_ok=True)
    os.mkfifo(progress)
    reading = os.open(progress, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(progress, os.O_WRONLY)
    os.set_blocking(reading, True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROGRESS_FILE": str(progress)}
    plugin = ["-p", "tests.progress"] if tier.is_pytest else []
    program = BIN / tier.command[0]  # beside this Python, else on PATH
    listener = threading.Thread(target=_listen, args=(reading, state))
    listener.start()
    with state.log.open("w") as log:
        process = subprocess.run(
            [program if program.exists() else tier.command[0], *plugin, *tier.command[1:]],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    os.close(writing)
    listener.join(timeout=10)  # a process that the tests left behind may hold the pipe
    progress.unlink()
    state.end(process.returncode)
    return state


def _listen(reading: int, state: Running) -> None:
    with os.fdopen(reading) as lines:
        for line in lines:
            state.hear(line)


def run_stages(stages: Sequence[Sequence[Tier]], console: Console) -> list[Running]:
    """Run the stages one after the other, and show their progress on `console`."""
    running: list[Running] = []
    with _shown(running, console):
        for stage in stages:
            threads = [threading.Thread(target=run, args=(tier, running)) for tier in stage]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    return running


@contextmanager
def _shown(running: list[Running], console: Console) -> Iterator[None]:
    """Show a line per tier: on a terminal updated in place, elsewhere printed as time goes by."""
    if console.is_terminal:

        def lines() -> Group:
            return Group(*(Text(r.line(), no_wrap=True, overflow="ellipsis") for r in running))

        with Live(get_renderable=lines, console=console, refresh_per_second=4):
            yield
        return
    over = threading.Event()
    printer = threading.Thread(target=_print_lines, args=(running, over))
    printer.start()
    try:
        yield
    finally:
        over.set()
        printer.join()


def _print_lines(running: list[Running], over: threading.Event) -> None:
    """Print a tier when it begins and ends, and all that run every few seconds."""
    shown: dict[str, bool] = {}
    last = time.monotonic()
    while True:
        ending = over.wait(0.5)
        is_due = time.monotonic() - last >= LINE_EVERY_SECONDS
        for state in list(running):
            has_ended = state.seconds is not None
            if shown.get(state.tier.name) != has_ended or (is_due and not has_ended):
                print(state.line(), flush=True)
                shown[state.tier.name] = has_ended
                last = time.monotonic()
        if ending:
            return


def report(command: str, ended: Sequence[Running], seconds: float, console: Console) -> bool:
    """Print what failed, the table and the slowest tests; write `build/tests.json`.

    Returns whether every tier is good.
    """
    for state in ended:
        if not state.is_good:
            console.rule(f"{state.tier.name}: {'; '.join(state.complaints)}")
            console.out(state.log.read_text(errors="replace").rstrip(), highlight=False)
    table = Table(title=command)
    table.add_column("tier")
    for column in ("tests", "failed", "skipped", "seconds", "budget"):
        table.add_column(column, justify="right")
    table.add_column("")
    for state in ended:
        verdict = "ok" if state.is_good else "[red]FAILED"
        if state.elapsed > state.tier.budget:
            verdict += ", over its budget"
        figures = [str(state.summary()[name]) for name in ("tests", "failed", "skipped")]
        table.add_row(
            state.tier.name, *figures, f"{state.elapsed:.0f}", str(state.tier.budget), verdict
        )
    console.print(table)
    durations = [(taken, test) for state in ended for test, taken in state.durations.items()]
    console.print("The ten slowest tests:")
    for taken, test in sorted(durations, reverse=True)[:10]:
        console.out(f"{taken:8.1f} s  {test}", highlight=False)
    summaries = [state.summary() for state in ended]
    result = {"command": command, "tiers": summaries, "seconds": round(seconds, 1)}
    (BUILD / "tests.json").write_text(json.dumps(result, indent=2) + "\n")
    passed, failed = (sum(s.count(outcome) for s in ended) for outcome in ("passed", "failed"))
    console.out(f"\n{passed} passed, {failed} failed in {seconds:.0f}s", highlight=False)
    return all(state.is_good for state in ended)


def main(names: list[str]) -> int:
    """Run the groups or tiers of these names. Returns the exit code."""
    stages: list[Sequence[Tier]] = []
    known = {tier.name: (tier,) for stage in GROUPS["test-all"] for tier in stage}
    for name in names:
        if name not in GROUPS and name not in known:
            names_known = ", ".join([*GROUPS, *known])
            print(f"no tier is named {name}: there are {names_known}", file=sys.stderr)
            return 2
        stages += GROUPS.get(name, (known[name],) if name in known else ())
    if "faults" in {tier.name for stage in stages for tier in stage}:
        shutil.rmtree(BUILD / "faults", ignore_errors=True)  # cases of an earlier run
    console = Console(width=None if sys.stdout.isatty() else 110)
    began = time.monotonic()
    ended = run_stages(stages, console)
    is_good = report("make " + " ".join(names), ended, time.monotonic() - began, console)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
