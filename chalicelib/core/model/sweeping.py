"""What one sweep leaves to the next: where it stopped, and which runs could not be judged.

`functions/sweep.py` reads the runs page by page; `adapters/records.py` keeps the notes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from chalicelib.core.model.flow_run import FlowRun


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader of a large, changing set of runs is: `stage` says which set.

    Prefect sorts by expected start; the next page begins at the last one's, `after`. Runs that
    share one come in no fixed order, unless a search holds no others: then by id, the greatest
    first. So a `moment` that fills a page is read by itself, on from the id `below` which no run is
    done yet; the next one was last seen at `offset`, and is at a lower one when runs left the set.
    """

    stage: int = 0
    after: datetime | None = None
    moment: bool = False
    offset: int = 0
    below: UUID | None = None

    def joins(self, page: Sequence[FlowRun]) -> bool:
        """Whether a page read here leaves no gap: it begins with a run that is done already."""
        return not self.offset or self.below is None or (bool(page) and page[0].id >= self.below)

    def rest(self, page: Sequence[FlowRun]) -> Sequence[FlowRun]:
        """Return the runs of a page read here that are not done yet."""
        return [run for run in page if self.below is None or run.id < self.below]

    def before(self, run: FlowRun, rest: Sequence[FlowRun]) -> "Place":
        """Return the place of one of these runs: those before it are done, and not read again."""
        if self.moment and run != rest[0]:
            return replace(self, below=rest[rest.index(run) - 1].id)
        if self.moment or run == rest[0] or run.expected_start is None:
            return self
        return Place(self.stage, run.expected_start, run.expected_start == rest[0].expected_start)

    def next(self, page: Sequence[FlowRun], size: int, left: int) -> "Place":
        """Return the place after a page of `size` runs at most, `left` of which left the set.

        The last run is read once more, to see that no other comes between it and the next page.
        """
        if self.moment and self.after is not None:
            if len(page) < size:
                return Place(self.stage, self.after + timedelta(microseconds=1))
            below = min(page[-1].id, self.below or page[-1].id)
            return replace(self, offset=max(0, self.offset + size - 1 - left), below=below)
        if len(page) < size or page[-1].expected_start is None:
            return Place(self.stage + 1)
        first, last = page[0].expected_start, page[-1].expected_start
        return Place(self.stage, last, moment=first == last)


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
    """

    bookmark: Place | None = None
    swept_at: datetime | None = None
    unjudged: Mapping[UUID, Unjudged] = field(default_factory=dict, hash=False)
    answered: frozenset[UUID] = frozenset()
    without_end_at: datetime | None = None
    unbilled: Mapping[str, Unjudged] = field(default_factory=dict, hash=False)
