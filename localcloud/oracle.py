"""Judges a flow run from the outside: containers' lifetimes, ECS, and the run's state history.

Never from the product's own word: it reads no record, no label, no artifact and no log of ours.
`judge` is pure; `observe` gathers what it judges by.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

from localcloud.prefect_api import FINAL
from localcloud.task_life import ContainerLife


class Fault(StrEnum):
    """What can be wrong with a run."""

    LOST = "lost"
    RUN_TWICE = "run twice"
    WRONG_CAPACITY = "wrong capacity"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, in words."""

    fault: Fault
    text: str


@dataclass(frozen=True)
class Observation:
    """A flow run as it looks from the outside, once nothing more is expected to happen.

    `budget`: interruptions after which the run has to be on FARGATE; None: nothing is expected of
    its capacity. `rescued`: the run has to be over, and not because of an interruption.
    """

    flow_run_id: str
    state_type: str
    states: Sequence[tuple[datetime, str]]
    containers: Sequence[ContainerLife]
    budget: int | None = None
    rescued: bool = True


@dataclass(frozen=True)
class Verdict:
    """All findings about all observed runs."""

    findings: tuple[Finding, ...]

    def count(self, fault: Fault) -> int:
        """How many findings of that kind."""
        return sum(finding.fault is fault for finding in self.findings)

    def __str__(self) -> str:
        return "; ".join(f"{f.fault}: {f.text}" for f in self.findings) or "nothing wrong"


def observe(
    run: dict[str, Any],
    history: Sequence[dict[str, Any]],
    ledger: Sequence[ContainerLife],
    *,
    budget: int | None = None,
    rescued: bool = True,
) -> Observation:
    """Put together what Prefect's API (`run`, `history`) and Fargate say of a run."""
    return Observation(
        flow_run_id=run["id"],
        state_type=run["state_type"],
        states=[(datetime.fromisoformat(s["timestamp"]), s["type"]) for s in history],
        containers=[life for life in ledger if life.flow_run_id == run["id"]],
        budget=budget,
        rescued=rescued,
    )


def judge(*observations: Observation) -> Verdict:
    """Return everything that is wrong with the runs."""
    checks = (_lost, _run_twice, _wrong_capacity)
    return Verdict(tuple(finding for o in observations for check in checks for finding in check(o)))


def _lost(seen: Observation) -> list[Finding]:
    alive = [life for life in seen.containers if life.started and not life.exited]
    run = f"run {seen.flow_run_id}"
    if seen.state_type not in FINAL and not alive:
        return [Finding(Fault.LOST, f"{run} is {seen.state_type}, and no container is alive")]
    last = seen.containers[-1] if seen.containers else None
    ended_by_interruption = last is not None and last.interrupted_at is not None
    if seen.rescued and seen.state_type == "CRASHED" and ended_by_interruption:
        return [Finding(Fault.LOST, f"{run} stayed CRASHED after an interruption")]
    return []


def _run_twice(seen: Observation) -> list[Finding]:
    """Two containers at once; one after the run was over; more than interruptions explain."""
    lives = [life for life in seen.containers if life.started]
    started = sorted(lives, key=lambda life: _at(life.started))
    texts = []
    for earlier, later in pairwise(started):
        if earlier.exited is None or _at(later.started) < earlier.exited:
            texts.append(f"{later.task_arn} started while {earlier.task_arn} was alive")
        elif earlier.interrupted_at is None and _ended_by_itself(seen, earlier, later):
            texts.append(f"{later.task_arn} started though {earlier.task_arn} had finished")
    completed = [at for at, state in seen.states if state in ("COMPLETED", "CANCELLED")]
    late = (life for life in started if completed and _at(life.started) > completed[-1])
    texts += [f"{life.task_arn} started after the run was over" for life in late]
    return [Finding(Fault.RUN_TWICE, f"run {seen.flow_run_id}: {text}") for text in texts]


def _ended_by_itself(seen: Observation, earlier: ContainerLife, later: ContainerLife) -> bool:
    """Whether the run had come to an end between two containers that no interruption explains."""
    return any(
        state in ("COMPLETED", "FAILED") and _at(earlier.started) < at < _at(later.started)
        for at, state in seen.states
    )


def _wrong_capacity(seen: Observation) -> list[Finding]:
    if seen.budget is None:
        return []
    findings = []
    interruptions = 0
    for number, life in enumerate(seen.containers, start=1):
        expected = "FARGATE_SPOT" if interruptions <= seen.budget else "FARGATE"
        if life.capacity != expected:
            text = f"run {seen.flow_run_id}: task {number} was on {life.capacity}, not {expected}"
            findings.append(Finding(Fault.WRONG_CAPACITY, text))
        interruptions += life.interrupted_at is not None
    return findings


def _at(time: datetime | None) -> datetime:
    assert time is not None
    return time
