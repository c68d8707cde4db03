"""The Prefect task runs within the attempts of a run: kept, skipped, lost, repeated. No I/O."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from chalicelib.core.model.flow_run import StateType


class Fate(StrEnum):
    """What became of a task run.

    KEPT: done, its result is persisted. SKIPPED: a rerun found it done. DONE: done, and not
    persisted. LOST: an interruption took it, so it has to be repeated. FAILED: it failed, or ended
    with its container, for another reason.
    """

    KEPT = "kept"
    SKIPPED = "skipped"
    DONE = "done"
    LOST = "lost"
    FAILED = "failed"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Work:
    """A task run that has started, of the run or of a subflow in its process, by Prefect's clock.

    `name`: its task's. `repeats`: it does again what an interruption took.
    """

    name: str
    state: StateType
    began_at: datetime
    ended_at: datetime | None = None
    persisted: bool = False
    cached: bool = False
    fate: Fate = Fate.RUNNING
    repeats: bool = False


def divide(work: Sequence[Work], begins: Sequence[datetime]) -> list[tuple[Work, ...]]:
    """Return each attempt's work: what began after it did, and before the next one.

    `begins`: of the attempts, in order. What began before the first is the first's: two clocks.
    """
    shares: list[list[Work]] = [[] for _ in begins]
    for each in sorted(work, key=lambda each: each.began_at):
        place = sum(begin <= each.began_at for begin in begins)
        if shares:
            shares[max(0, place - 1)].append(each)
    return [tuple(share) for share in shares]


def judged(work: Sequence[Work], *, is_lost: bool, is_over: bool) -> tuple[Work, ...]:
    """Return an attempt's work with its fate. `is_lost`: an end took what was not kept."""
    return tuple(replace(each, fate=_fate_of(each, is_lost, is_over)) for each in work)


def with_repeats(attempts: Sequence[Sequence[Work]]) -> list[tuple[Work, ...]]:
    """Mark what repeats earlier work: of each task as many as were lost, the first ones.

    Prefect gives a task run of a rerun another id, and a name of which only the task's part stays.
    """
    owed: Counter[str] = Counter()
    marked = []
    for work in attempts:
        share = []
        for each in work:
            repeats = each.fate is not Fate.SKIPPED and owed[each.name] > 0
            owed[each.name] -= repeats
            share.append(replace(each, repeats=repeats))
        owed.update(each.name for each in share if each.fate is Fate.LOST)
        marked.append(tuple(share))
    return marked


def _fate_of(work: Work, is_lost: bool, is_over: bool) -> Fate:
    is_done = work.state is StateType.COMPLETED
    if work.cached and is_done:
        return Fate.SKIPPED
    if is_done and work.persisted:
        return Fate.KEPT
    if is_lost:
        return Fate.LOST
    if is_done:
        return Fate.DONE
    is_ended = is_over or work.state in (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
    return Fate.FAILED if is_ended else Fate.RUNNING
