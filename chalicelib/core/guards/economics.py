"""Whether finishing on Spot is expected to cost more than finishing on demand."""

from chalicelib.core.guards.facts import Missing
from chalicelib.core.guards.opinion import Opinion, StayOnSpot
from chalicelib.core.situation import Situation


def economics_opinion(s: Situation) -> Opinion:
    """Compare the expected cost of finishing on Spot with that of finishing on demand."""
    evidence = s.facts.evidence
    if evidence is None or isinstance(evidence, Missing):
        return evidence or Missing("the interruption rate", "it was not gathered")
    return StayOnSpot("it is expected to cost less on Spot")
