"""A trace of Spot's availability, from a file: one pair of start and end per line.

Within a pair Spot has capacity; at its end, every task on Spot is interrupted; between two pairs
RunTask is refused.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Final

FORM: Final = (
    "two values a line, the start and the end of Spot's availability, separated by a comma or"
    " space: both seconds, or both ISO 8601 times"
)


class TraceError(ValueError):
    """A trace file that cannot be used; the message says where, why, and what is accepted."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Pairs in seconds from the first start, in order, none touching the next.

    After its last pair the trace begins anew: that end is an interruption like any other.
    """

    pairs: tuple[tuple[float, float], ...]

    @property
    def span_seconds(self) -> float:
        """Length of the trace, from the first start to the last end."""
        return self.pairs[-1][1]

    @property
    def available_seconds(self) -> float:
        """How long Spot is available within the trace."""
        return sum(end - start for start, end in self.pairs)

    @property
    def interruptions_per_hour(self) -> float:
        """Ends per hour of availability."""
        return len(self.pairs) * 3600 / self.available_seconds

    def has_capacity(self, at_seconds: float) -> bool:
        """Whether RunTask would get a Spot task at that moment."""
        start, end = self._pair_at(at_seconds % self.span_seconds)
        return start <= at_seconds % self.span_seconds < end

    def end_after(self, at_seconds: float) -> float:
        """When the availability ends that holds at that moment, or else the one after it."""
        laps, place = divmod(at_seconds, self.span_seconds)
        ends = [end for _, end in self.pairs]
        return laps * self.span_seconds + ends[bisect_right(ends, place)]

    def _pair_at(self, place: float) -> tuple[float, float]:
        starts = [start for start, _ in self.pairs]
        return self.pairs[bisect_right(starts, place) - 1]


def read_trace(path: Path) -> Trace:
    """Read a trace file. Empty lines, and what follows a #, are passed over.

    Raises:
        TraceError: it cannot be read, or a line is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read as text: {error}") from None
    return parse_trace(text, str(path))


def parse_trace(text: str, name: str = "trace") -> Trace:
    """Read the text of a trace file; `name` is what errors call it.

    Raises:
        TraceError: it holds no pair, or a line is wrong.
    """
    pairs: list[tuple[float, float]] = []
    kinds: set[bool] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        where = f"{name}, line {number}: {content[:60]!r}"
        start, end = _pair(content, where, kinds)
        if end <= start:
            raise TraceError(f"{where}: the end is not after the start")
        if pairs and start < pairs[-1][1]:
            raise TraceError(f"{where}: it starts before the pair above it ends")
        pairs.append((start, end))
    if not pairs:
        raise TraceError(f"{name}: there is no pair in it; accepted are {FORM}")
    return Trace(_joined(pairs))


def _joined(pairs: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """From the first start on, pairs that touch made one: nothing is taken between them."""
    origin = pairs[0][0]
    breaks = [i for i, (one, two) in enumerate(pairwise(pairs), start=1) if one[1] < two[0]]
    edges = [0, *breaks, len(pairs)]
    return tuple(
        (pairs[first][0] - origin, pairs[last - 1][1] - origin) for first, last in pairwise(edges)
    )


def _pair(content: str, where: str, kinds: set[bool]) -> tuple[float, float]:
    values = content.split(",") if "," in content else content.split()
    if len(values) != 2:
        raise TraceError(f"{where}: {len(values)} values; accepted are {FORM}")
    start, end = (_seconds(value.strip(), where, kinds) for value in values)
    return start, end


def _seconds(value: str, where: str, kinds: set[bool]) -> float:
    seconds, is_number = _number(value), True
    if seconds is None:
        seconds, is_number = _instant(value), False
    if seconds is None:
        raise TraceError(f"{where}: {value!r} is neither seconds nor a time; accepted are {FORM}")
    kinds.add(is_number)
    if len(kinds) > 1:
        raise TraceError(f"{where}: seconds and times are mixed; accepted are {FORM}")
    return seconds


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) else None


def _instant(value: str) -> float | None:
    """A time without a zone is taken for UTC."""
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
