"""The deadline guard: does an attempt on Spot still meet the deadline after its worst interruption?

The worst moment is just before the end of the longest work unit: that unit is repeated, on demand,
after one more restart overhead C. From the decision on this takes **C + w + L + C**: the restart on
Spot, the work left w, the unit L repeated, the restart on demand. Without persisted results the
unit is all the work: 2·(C + w). Every interruption is judged anew, so a run that was safe stays so.

Source: "Can't Be Late: Optimizing Spot Instance Savings under Deadlines" (NSDI 2024), its rule to
go on demand for good, with the work added that an interruption undoes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Final

from chalicelib.core.model.flow_run import FlowRun
from chalicelib.core.model.policy import DEADLINE_TAG
from chalicelib.core.model.text import one_line
from chalicelib.core.policies.facts import GoOnDemand, Missing, Opinion, PolicyFacts, StayOnSpot

ENOUGH_TO_COMPARE: Final = 5
"""Uninterrupted previous runs, from which on they show how much a run's work may vary."""
LEAST_PARTS: Final = 4
"""With a single previous run, a quarter more work is allowed for, not as much again."""
_PARTS: Final = re.compile(r"(?:(\d{1,3})d)?(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?")
_SECONDS: Final = (86_400, 3_600, 60, 1)


@dataclass(frozen=True, slots=True)
class Deadline:
    """Seconds from the run's scheduled start until it has to be finished, and the tag itself."""

    seconds: int
    tag: str


def deadline_of(tags: Iterable[str]) -> Deadline | Missing:
    """Return the tightest deadline that the tags name.

    Days, hours, minutes and seconds, each once and in this order: 90m, 1h30m, 2d. A tag that cannot
    be read is passed over; if no other one is there, it is missing, in words for its author.
    """
    named = [tag for tag in tags if tag.startswith(DEADLINE_TAG)]
    seconds = {tag: _seconds(tag.removeprefix(DEADLINE_TAG)) for tag in named}
    readable = [Deadline(number, tag) for tag, number in seconds.items() if number > 0]
    if readable:
        return min(readable, key=lambda deadline: deadline.seconds)
    unread = one_line(", ".join(named))
    return Missing("a readable deadline", f"{unread} is none; 90m, 1h30m and 2d are")


def deadline_opinion(
    run: FlowRun, facts: PolicyFacts | Missing, at: datetime, delay_seconds: float = 0.0
) -> Opinion:
    """Say whether an attempt on Spot, decided on at `at`, leaves time for its worst interruption.

    `delay_seconds` is `RERUN_DELAY_SECONDS`, up to twice of which a rerun on Spot waits.
    """
    deadline = deadline_of(run.tags)
    if isinstance(deadline, Missing):
        return deadline
    if isinstance(facts, Missing):
        return facts
    if run.expected_start is None:
        return Missing("the scheduled start", "Prefect did not report it")
    left = deadline.seconds - (at - run.expected_start).total_seconds()
    needed = 2 * delay_seconds + worst_case_seconds(facts)
    why = (
        f"an attempt on Spot may need {needed / 60:.1f} min with one interruption, and"
        f" {deadline.tag} leaves {left / 60:.1f} min"
    )
    return StayOnSpot(why) if needed <= left else GoOnDemand(why)


def worst_case_seconds(facts: PolicyFacts) -> float:
    """Return C + w + L + C of this module's docstring, in seconds."""
    work = max(most_work_seconds(facts) - facts.progress.checkpointed_seconds, 0.0)
    again = longest_unit_seconds(facts) if facts.is_checkpointed else work
    return 2 * facts.restart_overhead.seconds + work + again


def most_work_seconds(facts: PolicyFacts) -> float:
    """Return an upper estimate of this run's work in seconds: more than the longest on record.

    Where tasks are checkpointed little is repeated, so every run's whole time counts; so it does
    where too few runs were uninterrupted. Of n runs, the next is the longest once in n + 1 times,
    and the deadline has to hold then too. So the estimate exceeds the longest by as much as that
    exceeds the median, and by 1/n at least, n counted as 4 or more. Where only k of the n ended
    uninterrupted, which the longer seldom do, n counts as k²/n. Never less than this run's longest
    attempt.
    """
    past, progress = facts.past, facts.progress
    works = past.work_seconds
    if facts.is_checkpointed or past.undisturbed < ENOUGH_TO_COMPARE:
        works = (*works, *past.whole_seconds)
    longest = max(works)
    parts = len(works) ** 2 / max(len(works), len(past.whole_seconds))
    beyond = max(longest - median(works), longest / max(parts, LEAST_PARTS))
    return max(longest + beyond, progress.longest_seconds, progress.checkpointed_seconds)


def longest_unit_seconds(facts: PolicyFacts) -> float:
    """Return the longest work unit in seconds; previous ones are scaled up to this run's work."""
    units = facts.past.unit_seconds
    whole = sum(units)
    stretch = max(1.0, most_work_seconds(facts) / whole) if whole > 0 else 1.0
    return max(max(units, default=0.0) * stretch, *facts.progress.unit_seconds, 0.0)


def _seconds(text: str) -> int:
    parts = _PARTS.fullmatch(text) if text.isascii() else None
    if parts is None:
        return 0
    return sum(int(part or 0) * unit for part, unit in zip(parts.groups(), _SECONDS, strict=True))
