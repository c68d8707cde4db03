"""Second half of `make audit`: checkov's security scan of the stack's template.

What its answer is worth is judged here, since it ends with 0 also when it could not read the
template, and every finding that we live with has its reason.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
CHECKOV: Final = ROOT / ".venvs" / "checkov" / "bin" / "checkov"
TEMPLATE: Final = ROOT / "infra" / "stack.json"


@dataclass(frozen=True)
class Finding:
    """A check that a resource, by its logical id, does not pass."""

    check: str
    resource: str
    title: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What it is, whatever checkov calls it."""
        return self.check, self.resource


@dataclass(frozen=True)
class Scan:
    """What checkov says: how many resources it looked at, what they passed, and what not."""

    resources: int
    passed: int
    findings: tuple[Finding, ...]


class ScanFailedError(Exception):
    """There is no answer, or none that says anything."""


@dataclass(frozen=True)
class Accepted:
    """A finding that we live with, and why."""

    check: str
    resource: str
    reason: str


ACCEPTED: Final = (
    Accepted(
        "CKV_AWS_65",
        "Cluster",
        "Container Insights is billed per metric; whether the worker runs is seen from ECS's free"
        " ones, and who wants more can switch it on for the account",
    ),
    Accepted(
        "CKV_AWS_158",
        "LogGroup",
        "encrypted by CloudWatch's own key; a key of one's own would have to be paid, and to be"
        " opened for the logs service",
    ),
    Accepted(
        "CKV_AWS_18",
        "ResultsBucket",
        "results are read and written by the flows' role only; access logs would need a bucket"
        " more, and tell nothing else",
    ),
    Accepted(
        "CKV_AWS_21",
        "ResultsBucket",
        "a result that is lost is computed again; old versions of results would only cost",
    ),
    Accepted(
        "CKV_AWS_119",
        "Table",
        "encrypted by DynamoDB's own key; it holds ids, times and amounts, and no secret",
    ),
    Accepted(
        "CKV_AWS_27",
        "FailureQueue",
        "encrypted by SQS's own key (SqsManagedSseEnabled), which this check does not know;"
        " EventBridge could not send to one with the account's default key",
    ),
    Accepted(
        "CKV_AWS_26",
        "AlarmTopic",
        "CloudWatch's alarms cannot publish to a topic with SNS's default key; an alarm's text"
        " holds a name and a number",
    ),
)


def main() -> int:
    """Scan the template, print what came of it, and return 0 or 1."""
    try:
        found = scan(TEMPLATE)
        complaints = judge(found, ACCEPTED)
        print(
            f"\n{TEMPLATE.name}: {found.resources} resources, {found.passed} checks passed,"
            f" {len(ACCEPTED)} findings accepted"
        )
    except ScanFailedError as error:
        complaints = [str(error)]
    print("\n".join([f"RED: {complaint}" for complaint in complaints] or ["green"]))
    return 1 if complaints else 0


def scan(template: Path, program: Path = CHECKOV) -> Scan:
    """Run checkov, offline. Raises ScanFailedError."""
    command: list[str | Path] = [program, "--file", template, "--framework", "cloudformation"]
    command += ["--skip-download", "--output", "json"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except OSError as error:
        raise ScanFailedError(f"{program} cannot be run: {error}") from error
    return read(ended.stdout)


def read(text: str) -> Scan:
    """Read checkov's JSON. Raises ScanFailedError for one that says nothing."""
    try:
        report: dict[str, Any] = json.loads(text)
        results, summary = report["results"], report["summary"]
        found = Scan(
            resources=int(summary["resource_count"]),
            passed=int(summary["passed"]),
            findings=tuple(
                Finding(check["check_id"], check["resource"].split(".")[-1], check["check_name"])
                for check in results["failed_checks"]
            ),
        )
        unread = results["parsing_errors"]
    except (ValueError, KeyError, TypeError) as error:
        raise ScanFailedError(f"checkov's report is unreadable: {error!r}") from error
    if unread:
        raise ScanFailedError("checkov cannot read the template")
    if not found.passed:
        raise ScanFailedError("checkov scanned nothing")
    return found


def judge(found: Scan, accepted: Sequence[Accepted]) -> list[str]:
    """Return what is wrong, in words."""
    known = {(a.check, a.resource) for a in accepted}
    there = {finding.key for finding in found.findings}
    complaints = [
        f"{finding.resource}: {finding.title} ({finding.check})"
        for finding in found.findings
        if finding.key not in known
    ]
    complaints += [
        f"{a.check} of {a.resource} is accepted, but not found any more: strike it from the list"
        for a in accepted
        if (a.check, a.resource) not in there
    ]
    return complaints


if __name__ == "__main__":
    sys.exit(main())
