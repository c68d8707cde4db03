"""How much work a run has, and in which pieces, as far as its past and its like can tell.

Economics asks for what is likely, the deadline for the worst that was seen.
"""

from statistics import median
from typing import Final

from chalicelib.core.guards.facts import PastRuns, Progress

ENOUGH_TO_COMPARE: Final = 5
"""Past runs whose spread says how much a run's work may vary."""


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

    Of twenty runs one in twenty is the longest. So this one may go beyond the longest before it, by
    half of what that is beyond the median; of a few runs who knows, so by a quarter.
    """
    longest, known = max(past.work_seconds), len(past.work_seconds) >= ENOUGH_TO_COMPARE
    beyond = (longest - median(past.work_seconds)) / 2 if known else longest / 4
    return max(longest + beyond, progress.longest_seconds, progress.kept_seconds)


def usual_piece_seconds(past: PastRuns, progress: Progress) -> float:
    """Return the mean length of the piece that an interruption hits: Σ L²/Σ L, in seconds.

    A moment falls into a long piece more often than into a short one, in proportion to its length.
    """
    pieces = (*progress.piece_seconds, *past.piece_seconds)
    whole = sum(pieces)
    return sum(piece * piece for piece in pieces) / whole if whole > 0 else 0.0


def longest_piece_seconds(past: PastRuns, progress: Progress) -> float:
    """Return the longest piece on record, in seconds: what the worst interruption costs."""
    return max((*progress.piece_seconds, *past.piece_seconds), default=0.0)
