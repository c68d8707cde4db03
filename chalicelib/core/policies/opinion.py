"""What one guard thinks of a rerun on Spot: a closed set, every member with its words."""

from dataclasses import dataclass

from chalicelib.core.policies.facts import Missing


@dataclass(frozen=True, slots=True)
class GoOnDemand:
    """The rerun shall go to FARGATE though the budget has room, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class StayOnSpot:
    """The guard has nothing against Spot, and why."""

    why: str


Opinion = GoOnDemand | StayOnSpot | Missing
"""`Missing`: a fact is not to be had, so the guard has no opinion."""
