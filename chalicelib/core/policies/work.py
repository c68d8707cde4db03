"""How much work a run has, and in which pieces, as far as its past and its like can tell.

Economics asks for what is likely, the deadline for the worst that was seen.
"""

from statistics import median
from typing import Final

from chalicelib.core.policies.facts import PastRuns, Progress

ENOUGH_TO_COMPARE: Final = 5
"""Undisturbed runs of the past that tell how much a run's work may vary."""

LEAST_PARTS: Final = 4
"""So that one single run in the past makes room for a quarter more, and not for as much again."""


def keeps_results(past: PastRuns, progress: Progress) -> bool:
    """Whether a rerun finds finished tasks done: by the run's own word, else by its like's."""
    return bool(past.piece_seconds) if progress.keeps is None else progress.keeps


def likely_work_seconds(past: PastRuns, progress: Progress) -> tuple[float, ...]:
    """Return the work of those past runs that this one may still be like: seconds, at least one.

    It has more work than it has done in one go: runs with less are not like it. If none had more,
    it is the longest so far, and what it has done is all that is known.
    """
    done = max(progress.longest_seconds, progress.kept_seconds)
    return tuple(work for work in past.work_seconds if work > done) or (done,)


def most_work_seconds(past: PastRuns, progress: Progress) -> float:
    """Return more than the longest work on record, and never less than what this run did in one go.

    Where tasks are kept, little is done twice, and the whole time of every run tells; so it does
    where too few were undisturbed. Of n runs the next is the longest once in n + 1 times, and a
    deadline is to be kept that time too: so it may go beyond them by as much again as the longest
    is beyond the median, and by one part in n at least, but no more than a quarter for that.
    """
    few = past.undisturbed < ENOUGH_TO_COMPARE
    works = past.work_seconds
    if few or keeps_results(past, progress):
        works = (*works, *past.whole_seconds)
    longest = max(works)
    beyond = max(longest - median(works), longest / max(len(works), LEAST_PARTS))
    return max(longest + beyond, progress.longest_seconds, progress.kept_seconds)


def usual_piece_seconds(past: PastRuns, progress: Progress) -> float:
    """Return the mean length of the piece that an interruption hits: Σ L²/Σ L, in seconds.

    A moment falls into a long piece more often than into a short one, in proportion to its length.
    """
    pieces = (*progress.piece_seconds, *past.piece_seconds)
    whole = sum(pieces)
    return sum(piece * piece for piece in pieces) / whole if whole > 0 else 0.0


def longest_piece_seconds(past: PastRuns, progress: Progress) -> float:
    """Return what the worst interruption costs: the longest piece of this run, or of its like.

    Those of its like are of one run: in one that is longer, so may they be.
    """
    whole = sum(past.piece_seconds)
    stretch = max(1.0, most_work_seconds(past, progress) / whole) if whole > 0 else 1.0
    like = max(past.piece_seconds, default=0.0) * stretch
    return max(like, *progress.piece_seconds, 0.0)
