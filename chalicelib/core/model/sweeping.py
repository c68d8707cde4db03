"""What one sweep leaves to the next: where it stopped, and which runs could not be judged.

`functions/sweep.py` reads the runs page by page; `adapters/records.py` keeps the notes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from chalicelib.core.model.flow_run import FlowRun
from chalicelib.core.model.policy import Pause


@dataclass(frozen=True, slots=True)
class UnreadRun:
    """A run in Prefect's set that cannot be read, and why; its id, None where that is not known."""

    reason: str
    id: UUID | None = None


Found = FlowRun | UnreadRun
"""What stands in a set of runs."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader of a large, changing set of runs is: `stage` says which set.

    Prefect sorts by expected start; the next page begins at the last one's, `after`. Runs that
    share one come in no fixed order, unless a search holds no others: then by id, the greatest
    first. So a `moment` that fills a page is read by itself, on from the id `below` which no run is
    done yet; the next one was last seen at `offset`, and is at a lower one when runs left the set.
    `by_id`: the rest of the set is read so, because a page by time failed: only in that order can
    parts of a page be told from each other. `blind`: none of the runs before it could be read.
    """

    stage: int = 0
    after: datetime | None = None
    moment: bool = False
    offset: int = 0
    below: UUID | None = None
    by_id: bool = False
    blind: bool = False

    def joins(self, page: Sequence[Found]) -> bool:
        """Whether a page read here leaves no gap: it begins with a run that is done already.

        Price: behind runs that cannot be read there is nothing to compare, and a run that comes
        into their place, because one before it left the set, is left to the next sweep.
        """
        if not self.offset or self.below is None or self.blind:
            return True
        first = page[0].id if page else None
        return first is not None and first >= self.below

    def rest(self, page: Sequence[Found]) -> Sequence[FlowRun]:
        """Return the runs of a page read here that can be read, and are not done yet."""
        runs = (found for found in page if isinstance(found, FlowRun))
        return [run for run in runs if self.below is None or run.id < self.below]

    def before(self, run: FlowRun, rest: Sequence[FlowRun]) -> "Place":
        """Return the place of one of these runs: those before it are done, and not read again."""
        in_order_of_ids = self.moment or self.by_id
        if in_order_of_ids and run != rest[0]:
            return replace(self, below=rest[rest.index(run) - 1].id)
        if in_order_of_ids or run == rest[0] or run.expected_start is None:
            return self
        return Place(self.stage, run.expected_start, run.expected_start == rest[0].expected_start)

    def next(self, page: Sequence[Found], size: int, left: int, *, whole: bool = True) -> "Place":
        """Return the place after a page of `size` runs at most, `left` of which left the set.

        The last run is read once more, to see that no other comes between it and the next page.
        `whole`: False where there was no time to read all of a page that failed.
        """
        if self.moment or self.by_id:
            if not whole or len(page) == size:
                return self._after_ids(page, left)
            if self.moment and self.after is not None:
                return Place(self.stage, self.after + timedelta(microseconds=1))
            return Place(self.stage + 1)
        runs = [found for found in page if isinstance(found, FlowRun)]
        if len(page) < size or not runs or runs[-1].expected_start is None:
            return Place(self.stage + 1)
        first, last = runs[0].expected_start, runs[-1].expected_start
        return Place(self.stage, last, moment=first == last)

    def _after_ids(self, page: Sequence[Found], left: int) -> "Place":
        rest = self.rest(page)
        if not rest:
            return replace(self, offset=self.offset + len(page), blind=True)
        at = max(at for at, found in enumerate(page) if found == rest[-1])
        below = min(rest[-1].id, self.below or rest[-1].id)
        return replace(self, offset=max(0, self.offset + at - left), below=below, blind=False)


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Why a sweep could not judge a run, or bill a task, and when one last met it (UTC)."""

    reason: str
    met_at: datetime


@dataclass(frozen=True, slots=True)
class SweepNotes:
    """What a sweep leaves to the next one, and to `spotctl status`.

    `bookmark`: where it stopped, None when it came to its end; `swept_at`: when (UTC), None where
    there was none. `unjudged`: the runs that were counted as such, and not judged since.
    `answered`: the ids of the states, failed submissions of the last minutes, that were handled.
    `without_end_at`: when a sweep last met a crashed run without an end, which Prefect 3.4 leaves.
    `unbilled`: the tasks, by ARN, that could not be billed.
    `pause`: the stage's, which no sweep sets.
    """

    bookmark: Place | None = None
    swept_at: datetime | None = None
    unjudged: Mapping[UUID, Unjudged] = field(default_factory=dict, hash=False)
    answered: frozenset[UUID] = frozenset()
    without_end_at: datetime | None = None
    unbilled: Mapping[str, Unjudged] = field(default_factory=dict, hash=False)
    pause: Pause | None = None
