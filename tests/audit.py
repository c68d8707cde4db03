"""`make audit`: every version that a lock file pins, against the known vulnerabilities.

pip-audit does the asking. What its answer is worth is judged here, since it ends with 0 and "No
known vulnerabilities found" also when it could look up no package at all, and says nothing of
packages whose environment marker does not hold on this machine.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
PIP_AUDIT: Final = ROOT / ".venvs" / "audit" / "bin" / "pip-audit"
SERVICES: Final = ("pypi", "osv")
"""Asked in this order; the second only about what the first did not answer."""

LOCK_ELSEWHERE: Final = {"lambda": "requirements.txt", "dev": "requirements-dev.txt"}
ACCEPTED_FOR: Final = timedelta(days=180)

_PIN: Final = re.compile(r"([a-z0-9][a-z0-9-]*)==([^\s;\\]+)(?: ; [^\\]+?)? ?\\?")


@dataclass(frozen=True)
class Accepted:
    """A vulnerability that we live with, why, and since when; after ACCEPTED_FOR it counts again.

    `id` is any of its ids (PYSEC, CVE, GHSA); `package` is the lock's name for it.
    """

    id: str
    package: str
    reason: str
    on: date


ACCEPTED: Final[tuple[Accepted, ...]] = ()
"""None so far."""


class Pin(NamedTuple):
    """One package in one version."""

    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class Lock:
    """What a lock file pins, whatever the platform; `unreadable` are lines that are no pin."""

    name: str
    pins: frozenset[Pin]
    unreadable: tuple[str, ...] = ()


Vulnerability = tuple[str, ...]
"""A vulnerability by its ids: first the service's own, then what others call it."""


@dataclass(frozen=True)
class Answer:
    """The vulnerabilities of what was audited, and why the rest was not."""

    audited: Mapping[Pin, tuple[Vulnerability, ...]] = field(default_factory=dict)
    failures: tuple[str, ...] = ()


Ask = Callable[[str, Sequence[Pin]], Answer]
"""Asks a service about pins, each package once."""


def main() -> int:
    """Audit this project's locks, print the table, and return 0 or 1."""
    locks, complaints = find_locks(ROOT)
    answer = ask_all(ask_pip_audit, [pin for lock in locks for pin in lock.pins])
    complaints += judge(locks, answer, ACCEPTED, datetime.now(UTC).date())
    lines = [*table(locks, answer), ""]
    lines += [f"RED: {complaint}" for complaint in complaints] or ["green"]
    print("\n".join(lines))
    return 1 if complaints else 0


def find_locks(root: Path) -> tuple[list[Lock], list[str]]:
    """Return all lock files of a project, and complaints about those that should be there.

    Left out are those whose input asks for nothing, as the Lambda zip's does.
    """
    inputs = {path.stem: path for path in sorted((root / "requirements").glob("*.in"))}
    locks = {stem: LOCK_ELSEWHERE.get(stem, f"requirements/{stem}.txt") for stem in inputs}
    empty = {locks[stem] for stem, path in inputs.items() if _asks_for_nothing(path.read_text())}
    expected = set(locks.values()) - empty
    there = {str(path.relative_to(root)) for path in root.glob("requirements*.txt")}
    there |= {str(path.relative_to(root)) for path in root.glob("requirements/*.txt")}
    there = {name for name in there if name not in empty or (root / name).read_text().strip()}
    complaints = [f"{name} is missing: make lock" for name in sorted(expected - there)]
    if not there:
        complaints.append(f"there is no lock file in {root}")
    return [read_lock(name, (root / name).read_text()) for name in sorted(there)], complaints


def _asks_for_nothing(text: str) -> bool:
    return bool(text) and all(not x.strip() or x.startswith("#") for x in text.splitlines())


def read_lock(name: str, text: str) -> Lock:
    """Read what uv wrote: a pin per line, its hashes and comments on indented lines."""
    pins, unreadable = set(), []
    for line in text.splitlines():
        if not line.strip() or line.startswith(("#", "    #", "    --hash=")):
            continue
        if found := _PIN.fullmatch(line):
            pins.add(Pin(*found.groups()))
        else:
            unreadable.append(line.strip())
    return Lock(name, frozenset(pins), tuple(unreadable))


def ask_all(ask: Ask, pins: Iterable[Pin]) -> Answer:
    """Ask the services about all pins; later ones about what is still open."""
    audited: dict[Pin, tuple[Vulnerability, ...]] = {}
    failures: list[str] = []
    every = set(pins)
    for service in SERVICES:
        for batch in batches(every - audited.keys()):
            answer = ask(service, batch)
            audited |= answer.audited
            failures += answer.failures
    return Answer(audited, tuple(dict.fromkeys(failures)))


def batches(pins: Iterable[Pin]) -> list[list[Pin]]:
    """Split pins so that each package is once in a batch: pip-audit refuses two versions."""
    result: list[list[Pin]] = []
    for pin in sorted(pins):
        for batch in result:
            if all(pin.package != other.package for other in batch):
                batch.append(pin)
                break
        else:
            result.append([pin])
    return result


def ask_pip_audit(service: str, pins: Sequence[Pin], program: Path = PIP_AUDIT) -> Answer:
    """Ask a service through pip-audit. Its exit code says too little: its report counts."""
    with TemporaryDirectory() as folder:
        asked, report = Path(folder, "asked.txt"), Path(folder, "report.json")
        asked.write_text("".join(f"{pin}\n" for pin in pins))
        command: list[str | Path] = [
            program,
            "--vulnerability-service",
            service,
            "--requirement",
            asked,
        ]
        command += ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--timeout", "30"]
        command += ["--format", "json", "--desc", "off", "--aliases", "on", "--output", report]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return Answer(failures=(f"{service}: {program} cannot be run: {error}",))
        said = ended.stderr.strip().splitlines() or ["it said nothing"]
        if not report.exists():
            return Answer(
                failures=(f"{service}: pip-audit ended with {ended.returncode}: {said[-1]}",)
            )
        return read_report(service, report.read_text())


def read_report(service: str, text: str) -> Answer:
    """Read pip-audit's JSON; what it skipped is not audited."""
    try:
        entries: list[dict[str, Any]] = json.loads(text)["dependencies"]
        audited = {
            Pin(entry["name"], entry["version"]): tuple(
                (found["id"], *found["aliases"]) for found in entry["vulns"]
            )
            for entry in entries
            if "skip_reason" not in entry
        }
        skipped = [str(entry["skip_reason"]) for entry in entries if "skip_reason" in entry]
    except (ValueError, KeyError, TypeError) as error:
        return Answer(failures=(f"{service}: pip-audit's report is unreadable: {error!r}",))
    if not skipped:
        return Answer(audited)
    return Answer(audited, (f"{service}: {len(skipped)} skipped, such as: {skipped[0]}",))


def judge(
    locks: Sequence[Lock], answer: Answer, accepted: Sequence[Accepted], today: date
) -> list[str]:
    """Return what is wrong, in words; nothing only when every pin was audited and found good."""
    complaints = []
    if locks and not any(lock.pins & answer.audited.keys() for lock in locks):
        complaints.append(
            "nothing could be audited: " + ("; ".join(answer.failures) or "no answer")
        )
    for lock in locks:
        complaints += _complaints_about(lock, answer, accepted, today)
    found = {
        (pin.package, id_)
        for pin, vulnerabilities in answer.audited.items()
        for vulnerability in vulnerabilities
        for id_ in vulnerability
    }
    everything = all(pin in answer.audited for lock in locks for pin in lock.pins)
    complaints += [
        f"{a.id} of {a.package} is accepted, but not there any more: strike it from the list"
        for a in accepted
        if everything and (a.package, a.id) not in found
    ]
    return complaints


def _complaints_about(
    lock: Lock, answer: Answer, accepted: Sequence[Accepted], today: date
) -> list[str]:
    complaints = [f"{lock.name}: {line!r} is no pin: not audited" for line in lock.unreadable]
    if not lock.pins:
        return [*complaints, f"{lock.name} was not audited: it pins nothing"]
    left = sorted(lock.pins - answer.audited.keys())
    if left:
        names = ", ".join(map(str, left[:3])) + (", …" if len(left) > 3 else "")
        complaints.append(f"{lock.name}: {len(left)} of {len(lock.pins)} not audited: {names}")
    for pin in sorted(lock.pins & answer.audited.keys()):
        for vulnerability in answer.audited[pin]:
            acceptance = _acceptance(pin, vulnerability, accepted)
            if acceptance is None:
                complaints.append(f"{lock.name}: {pin} has {vulnerability[0]}")
            elif today - acceptance.on > ACCEPTED_FOR:
                ending = f"accepted more than {ACCEPTED_FOR.days} days ago: look again"
                complaints.append(f"{lock.name}: {pin} has {vulnerability[0]}, {ending}")
    return complaints


def _acceptance(
    pin: Pin, vulnerability: Vulnerability, accepted: Sequence[Accepted]
) -> Accepted | None:
    of_it = (a for a in accepted if a.package == pin.package and a.id in vulnerability)
    return max(of_it, key=lambda a: a.on, default=None)


def table(locks: Sequence[Lock], answer: Answer) -> list[str]:
    """Return the lines of the table; vulnerabilities include the accepted ones."""
    lines = [f"{'lock':<34} {'pinned':>6} {'audited':>7} {'vulnerabilities':>15}"]
    for lock in locks:
        audited = lock.pins & answer.audited.keys()
        found = str(sum(len(answer.audited[pin]) for pin in audited)) if audited else "unknown"
        lines.append(f"{lock.name:<34} {len(lock.pins):>6} {len(audited):>7} {found:>15}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
