"""Runs test tiers by name, `python -m tests.tiers check contract e2e`, and says what they were.

A tier that ran no test, or skipped one that is not on the list, has failed.
"""

import subprocess
import sys
import time
import xml.etree.ElementTree as ET
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
    ],
    "contract": [],
    "faults": [],
    "e2e": [],
}
FOLDERS: Final[dict[str, list[str]]] = {
    "check": ["tests/unit", "tests/laws"],
    "contract": ["tests/contract"],
    "faults": [
        "tests/faults/test_kill_anywhere.py",
        "tests/faults/test_two_at_once.py",
        "tests/faults/test_storm.py",
    ],
    "e2e": ["tests/localcloud", "tests/e2e"],
}


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
    outcomes = []
    for tier in tiers:
        print(f"── {tier}", flush=True)
        outcomes.append(run(tier))
    print()
    for outcome in outcomes:
        print(outcome)
    ran = sum(outcome.ran for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"\n{ran - failed} passed, {failed} failed")
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def run(tier: str) -> Outcome:
    began = time.monotonic()
    complaints = []
    for program, *arguments in COMMANDS[tier]:
        print(f"{program} {' '.join(arguments)}", flush=True)
        if subprocess.run([BIN / program, *arguments], cwd=ROOT, check=False).returncode != 0:
            complaints.append(f"{program} complains")
    report = ROOT / "build" / f"{tier}.xml"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "--quiet", f"--junitxml={report}", *FOLDERS[tier]]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if not report.exists():
        return Outcome(tier, 0, 0, [], [*complaints, f"pytest ended with {code}"], 0)
    ran, failed, skipped = read(report)
    if ran == 0:
        complaints.append("it ran no test")
    if code != 0 and failed == 0:
        complaints.append(f"pytest ended with {code}")
    complaints += [f"{name} was skipped" for name in skipped if name not in ALLOWED_SKIPS]
    return Outcome(tier, ran, failed, skipped, complaints, time.monotonic() - began)


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
