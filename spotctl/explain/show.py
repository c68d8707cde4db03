"""The story in words: text for a terminal, values for JSON. Text of others is cleaned in both."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from textwrap import wrap
from typing import Any, Final

from chalicelib.core.money.report import ASSUMED_MARK, in_usd, rounded
from spotctl.explain.model import Attempt, Decided, FailedToStart, Story
from spotctl.explain.work import Fate, Work
from spotctl.output import brief, clean, padded, width_of

WIDTH: Final = 100
_INDENT: Final = "     "
_LEAST: Final = 20
"""Columns that a text is wrapped at, however far it is indented."""
_HEAD: Final = ("#", "capacity", "zone", "began", "lasted", "paid USD", "ended by")
_FIGURES: Final = ("#", "lasted", "paid USD")
_CONTAINER: Final = ("EssentialContainerExited", "Essential container in task exited")
"""What ECS says of every task whose container has ended: the exit code says more."""
_FINISHED: Final = (Fate.KEPT, Fate.DONE)

Line = tuple[str, str]
"""How it begins, and the text behind, which is wrapped and indented by as much."""


def as_mapping(story: Story) -> dict[str, Any]:
    """Return the story for JSON: amounts in USD, seconds as numbers, times in ISO 8601."""
    plain = asdict(story)
    money = story.money
    sums = {"savings_usd": money.savings_usd, "net_savings_usd": money.net_savings_usd}
    return {
        **plain,
        "seconds": story.seconds,
        "waiting_seconds": story.waiting_seconds,
        "money": {**asdict(money), **sums},
    }


def as_text(story: Story, width: int = WIDTH) -> str:
    """Return the story for a terminal of `width` columns."""
    return "\n".join(line for each in _lines(story) for line in _wrapped(*each, width)) + "\n"


def lasted(seconds: float) -> str:
    """Return a duration as people say it: 7.5 s, 42 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min" + f" {rest:02} s" * (rest > 0)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def how_long(attempt: Attempt, story: Story) -> float | None:
    """Return the seconds from an attempt's beginning to its end, or until now."""
    began_at = attempt.began_at or attempt.started_at or attempt.running_at
    ended_at = attempt.ended_at or (story.ended_at if attempt.is_live else None)
    if began_at is None or ended_at is None:
        return None
    return max(0.0, (ended_at - began_at).total_seconds())


def work_in_words(work: Sequence[Work]) -> str:
    """Return how many task runs had which fate, with the names of those lost and repeated."""
    counts = Counter(each.fate for each in work if not (each.repeats and each.fate in _FINISHED))
    repeated = sum(each.repeats for each in work)
    parts = [
        *([f"{counts[Fate.SKIPPED]} skipped"] if counts[Fate.SKIPPED] else []),
        *([f"{repeated} repeated"] if repeated else []),
        *([f"{done} done"] if (done := counts[Fate.KEPT] + counts[Fate.DONE]) else []),
        *(
            f"{counts[fate]} {fate.value}{_names(work, fate)}"
            for fate in (Fate.LOST, Fate.FAILED, Fate.RUNNING)
            if counts[fate]
        ),
    ]
    return ", ".join(parts)


def _names(work: Sequence[Work], fate: Fate) -> str:
    names = Counter(each.name for each in work if each.fate is fate)
    shown = [f"{name}{f' x{number}' * (number > 1)}" for name, number in names.most_common(3)]
    return f" ({', '.join(shown)}{', …' * (len(names) > 3)})"


def money_in_words(story: Story) -> str:
    """Return the net saving as a sum: marked where a Spot rate is assumed, ~ where not billed.

    What it would have cost on demand is rounded so that it adds up.
    """
    money, about, mark = story.money, "~" * story.is_estimate, ASSUMED_MARK * story.is_assumed
    usd = {name: f"{value:,}" for name, value in rounded(money).items()}
    without, wasted = "", ""
    if money.wasted_usd:
        without = " without repeats"
        wasted = f"; {usd['wasted_usd']}{mark} of what was paid was wasted"
    return (
        f"{about}{usd['useful_usd']} on demand{without}"
        f" \N{MINUS SIGN} {about}{usd['cost_usd']}{mark} paid"
        f" = {about}{usd['net_savings_usd']}{mark} USD net saving, estimated{wasted}"
    )


def usd_of(attempt: Attempt) -> str:
    """Return what it cost: marked where the rate is assumed, ~ where it is not billed."""
    if attempt.money is None:
        return "unknown" if not attempt.is_live else ""
    mark = ASSUMED_MARK * attempt.is_assumed
    return f"{'~' * attempt.is_estimate}{in_usd(attempt.money.cost_usd)}{mark}"


def _lines(story: Story) -> Iterator[Line]:
    name = f"{story.name[:200]} " if story.name else ""
    of = f" of {story.deployment}" if story.deployment else ""
    yield "Flow run ", f"{name}({story.flow_run_id}){of}"
    yield "", f"{story.headline}."
    yield from _duration(story)
    if story.message and story.state != "Completed":
        yield "", f"{story.state}: {story.message}"
    yield "", ""
    yield from _table(story)
    if story.attempts:
        yield _named("money", money_in_words(story))
    for child in story.children:
        what = f"{child.name} is {child.state}, in ECS tasks of its own, not in these sums:"
        yield _named("child run", what)
        yield _named("", f"spotctl explain {child.id}")
    for untouched in story.untouched:
        yield _named("not touched", untouched)
    for note in story.notes:
        yield _named("note", note)
    if mark_is_used := story.is_assumed * ASSUMED_MARK:
        yield _named("note", f"{mark_is_used} made with an assumed Spot rate")
    for missing in story.missing:
        yield _named("missing", missing)


def _duration(story: Story) -> Iterator[Line]:
    if story.began_at is None:
        return
    ended_at = None if story.is_under_way else story.ended_at
    until = f"{_clock(ended_at, story)} UTC" if ended_at else "now"
    took = ", ".join((lasted(story.seconds), *waiting_in_words(story)))
    yield "", f"{story.began_at:%d %b %Y %H:%M:%S} to {until}: {took}."


def waiting_in_words(story: Story) -> Iterator[str]:
    """Yield how long the flow was not running in between, if it was interrupted at all."""
    if story.waiting_seconds > 0:
        waiting = lasted(story.waiting_seconds)
        yield f"{waiting} of that not running (from each exit to running again)"


def _table(story: Story) -> Iterator[Line]:
    if story.moved:
        moved = Decided(f"started on FARGATE, by {story.moved.guard}", story.moved.reason)
        yield from _decided(moved, None)
    rows = [(a, _cells(a, story)) for a in story.attempts]
    if not rows:
        yield from (line for failed in story.failed_starts for line in _failed(failed))
        return
    table = [_HEAD, *(cells for _, cells in rows)]
    widths = [max(map(width_of, column)) for column in zip(*table, strict=True)]
    yield _row(_HEAD, widths)
    failed = list(story.failed_starts)
    for attempt, cells in rows:
        while failed and failed[0].at and failed[0].at < attempt.order:
            yield from _failed(failed.pop(0))
        yield _row(cells, widths)
        if attempt.work:
            yield f"{_INDENT}task runs: ", work_in_words(attempt.work)
        if attempt.is_live and attempt.warned_at:
            warned = Decided("Spot warning: the container has its stop timeout left to exit")
            yield from _decided(warned, attempt.warned_at)
        if attempt.decided:
            yield from _decided(attempt.decided, None, attempt.again_seconds)
    for each in failed:
        yield from _failed(each)
    yield "", ""


def _row(cells: Sequence[str], widths: Sequence[int]) -> Line:
    """The cells in columns; the last one, the only one of any length, is wrapped."""
    columns = list(zip(_HEAD, cells, widths, strict=True))[:-1]
    shown = (padded(cell, width, is_figure=head in _FIGURES) for head, cell, width in columns)
    return "".join(f"{each}  " for each in shown), cells[-1]


def _cells(attempt: Attempt, story: Story) -> tuple[str, ...]:
    seconds, began_at = how_long(attempt, story), attempt.began_at or attempt.started_at
    began_at, not_known = began_at or attempt.running_at, "" if attempt.is_live else "unknown"
    return (
        str(attempt.number),
        attempt.capacity or "unknown",
        attempt.availability_zone or "unknown",
        _clock(began_at, story) if began_at else not_known or "not yet",
        not_known if seconds is None else lasted(seconds),
        usd_of(attempt),
        _end(attempt),
    )


def _end(attempt: Attempt) -> str:
    if attempt.is_live:
        return "under way"
    if attempt.is_interrupted:
        return f"{attempt.cause} {attempt.interruption or ''}".strip()
    said = attempt.ended_by.removeprefix(f"{_CONTAINER[0]}, ").replace(f", {_CONTAINER[1]}", "")
    return said or attempt.cause or "unknown"


def _decided(decided: Decided, at: datetime | None, again: float | None = None) -> Iterator[Line]:
    at = at or decided.at
    when = f"{at:%H:%M:%S} " if at else ""
    why = f": {decided.why}" if decided.why else ""
    due = decided.due_seconds
    after = [
        *([f"due {lasted(due)} after the exit"] if due is not None else []),
        *([f"running again after {lasted(again)}"] if again is not None else []),
    ]
    yield f"{_INDENT}→ ", f"{when}{decided.what}{why}"
    if after:
        yield f"{_INDENT}  ", ", ".join(after)


def _failed(failed: FailedToStart) -> Iterator[Line]:
    at = f"{failed.at:%H:%M:%S} " if failed.at else ""
    kind = f"{failed.kind}: " if failed.kind else ""
    what = f"{at}failed start {failed.number} on {failed.capacity}: {kind}{failed.reason}"
    yield "  x  ", what
    yield from _decided(failed.decided, None)


def _clock(at: datetime, story: Story) -> str:
    is_long = story.seconds > 20 * 3600
    return f"{at:%d %b %H:%M:%S}" if is_long else f"{at:%H:%M:%S}"


def _named(name: str, text: str) -> Line:
    return f"{name:<12} ", text


def _wrapped(begin: str, text: str, width: int) -> Iterator[str]:
    """Lines of that width, the text cleaned: its own line breaks and escapes are gone."""
    room = max(_LEAST, width - width_of(begin))
    lines = wrap(clean(brief(text)), room, break_on_hyphens=False) or [""]
    yield (begin + lines[0]).rstrip()
    for line in lines[1:]:
        yield " " * width_of(begin) + line
