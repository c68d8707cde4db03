"""Runs test tiers by name, `python -m tests.tiers check contract e2e`, and says what they were.

A tier that ran no test, or skipped one that is not on the list, has failed.
"""

import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BIN: Final = Path(sys.executable).parent

ALLOWED_SKIPS: Final[dict[str, str]] = {}
"""Tests that may be skipped, by name, each with a reason a stranger would accept. None so far."""

COMMANDS: Final[dict[str, list[list[str]]]] = {
    "check": [
        ["ruff", "format", "--check", "--quiet", "."],
        ["ruff", "check", "--quiet", "."],
        ["mypy", "--no-error-summary"],
        ["lint-imports", "--no-cache", "--no-logo"],
        ["shellcheck", ".ci/run", "examples/build_and_push.sh"],
    ],
    "contract": [],
    "faults": [],
    "e2e": [],
    "ui": [],
}
FOLDERS: Final[dict[str, list[str]]] = {
    "check": ["tests/unit", "tests/laws"],
    "contract": ["tests/contract"],
    "faults": [
        "tests/faults/test_kill_anywhere.py",
        "tests/faults/test_kill_provision.py",
        "tests/faults/test_fail_anywhere.py",
        "tests/faults/test_two_at_once.py",
        "tests/faults/test_storm.py",
    ],
    "e2e": ["tests/localcloud", "tests/e2e"],
    "ui": ["tests/ui"],
}


WAITING: Final = ("e2e",)
"""Tiers that wait for servers, workers and flows more than they compute."""

PROGRESS_SECONDS: Final = 60


@dataclass(frozen=True)
class Outcome:
    """What came of a tier."""

    tier: str
    ran: int
    failed: int
    skipped: list[str]
    complaints: list[str]
    seconds: float

    @property
    def is_good(self) -> bool:
        return not self.failed and not self.complaints

    def __str__(self) -> str:
        verdict = "green" if self.is_good else "RED: " + "; ".join(self.complaints or ["tests"])
        return (
            f"{self.tier:<9} {self.ran:>5} tests, {self.failed} failed,"
            f" {len(self.skipped)} skipped, {self.seconds:>5.0f} s  {verdict}"
        )


def main(tiers: list[str]) -> int:
    """Run the tiers: those that compute one after the other, beside those that mostly wait."""
    lanes = [[t for t in tiers if t not in WAITING], [t for t in tiers if t in WAITING]]
    with ThreadPoolExecutor(len(lanes)) as pool:
        running = [pool.submit(lambda lane: list(map(run, lane)), lane) for lane in lanes]
        began = time.monotonic()
        while wait(running, timeout=PROGRESS_SECONDS).not_done:
            print(f"… {time.monotonic() - began:.0f} s", flush=True)
    outcomes = [outcome for lane in running for outcome in lane.result()]
    print()
    for outcome in outcomes:
        print(outcome)
    ran = sum(outcome.ran for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"\n{ran - failed} passed, {failed} failed")
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def run(tier: str) -> Outcome:
    """Run a tier; what it prints is kept, and printed whole when it has ended."""
    print(f"── {tier} begins\n", end="", flush=True)  # in one piece: two tiers may begin at once
    began = time.monotonic()
    complaints = []
    printed = []
    report = ROOT / "build" / f"{tier}.xml"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    pytest = ["pytest", "--quiet", f"--junitxml={report}", *FOLDERS[tier]]
    for program, *arguments in [*COMMANDS[tier], pytest]:
        finished = subprocess.run(
            [BIN / program, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        printed.append(f"{program} {' '.join(arguments)}\n{finished.stdout.rstrip()}")
        if finished.returncode != 0:
            complaints.append(f"{program} complains")
    ran, failed, skipped = read(report) if report.exists() else (0, 0, [])
    if ran == 0:
        complaints.append("it ran no test")
    complaints += [f"{name} was skipped" for name in skipped if name not in ALLOWED_SKIPS]
    outcome = Outcome(tier, ran, failed, skipped, complaints, time.monotonic() - began)
    print("\n".join([f"── {tier}", *printed, f"{outcome}\n"]), end="", flush=True)
    return outcome


def read(report: Path) -> tuple[int, int, list[str]]:
    """Return how many tests ran, how many failed, and which were skipped."""
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314  # pytest wrote it just now
    skipped = [case.get("name", "?") for case in cases if case.find("skipped") is not None]
    failed = sum(
        case.find("failure") is not None or case.find("error") is not None for case in cases
    )
    return len(cases) - len(skipped), failed, skipped


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
