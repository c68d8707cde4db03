"""Asks the guards that are on whether a rerun goes to FARGATE earlier than its budget says.

They are asked in the order of `Guard`, and the first that says so is the one that is told of. None
can keep a run on Spot: to say nothing is the most that a guard can do for it.
"""

from dataclasses import dataclass
from typing import assert_never

from chalicelib.core.policies.facts import Guard, Missing, has_deadline_tag
from chalicelib.core.policies.opinion import GoOnDemand, Opinion, StayOnSpot
from chalicelib.core.rescue.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Advice:
    """Which guard moves the run to FARGATE, None for none, and what is to be told of it.

    `reason` is empty where no guard is on, or none has anything to tell.
    """

    guard: Guard | None = None
    reason: str = ""


def guards_on(s: Snapshot) -> tuple[Guard, ...]:
    """Return the guards that this run has to pass, in the order in which they are asked."""
    on = {
        Guard.DEADLINE: has_deadline_tag(s.run.tags),
        Guard.ECONOMICS: s.policy.guards.economics,
    }
    return tuple(guard for guard in Guard if on[guard])


def advice_on(s: Snapshot) -> Advice:
    """Say whether the rerun that the budget would put on Spot goes to FARGATE all the same."""
    missing = []
    for guard in guards_on(s):
        opinion = _opinion(guard, s)
        match opinion:
            case GoOnDemand(why):
                return Advice(guard, why)
            case StayOnSpot():
                pass
            case Missing():
                missing.append(f"{guard} has no say ({opinion})")
            case _:
                assert_never(opinion)
    if not missing:
        return Advice()
    return Advice(reason=f"{'; '.join(missing)}: the budget alone decides")


def _opinion(guard: Guard, s: Snapshot) -> Opinion:
    """Ask one guard. Each is loaded when it is first asked: off, it costs a cold start nothing."""
    match guard:
        case Guard.DEADLINE:
            from chalicelib.core.policies.deadline import deadline_opinion

            return deadline_opinion(s)
        case Guard.ECONOMICS:
            from chalicelib.core.policies.economics import economics_opinion

            return economics_opinion(s)
    assert_never(guard)
