"""Whether a run with a deadline could still make it on demand after one more interruption."""

from collections.abc import Iterable
from typing import Final

from chalicelib.core.guards.facts import Missing
from chalicelib.core.guards.opinion import Opinion, StayOnSpot
from chalicelib.core.situation import Situation

DEADLINE_TAG: Final = "spot-deadline:"


def has_deadline_tag(tags: Iterable[str]) -> bool:
    """Whether a tag names a deadline, readable or not."""
    return any(tag.startswith(DEADLINE_TAG) for tag in tags)


def deadline_opinion(s: Situation) -> Opinion:
    """Say whether an interruption at its worst moment would still leave time to finish."""
    past = s.facts.past
    if past is None or isinstance(past, Missing):
        return past or Missing("the deployment's completed runs", "they were not gathered")
    return StayOnSpot("there is time for an interruption")
