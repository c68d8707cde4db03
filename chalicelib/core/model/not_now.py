"""For how long Prefect asked not to be called, by a 429 or 503 with Retry-After.

`adapters/not_before.py` keeps it in the stage's table, where the next invocations of `react`,
`meter` and `sweep` read it. Until then none sends a request: each ends quietly (`wiring.answer`),
and `sweep` goes on from then. The event of a Spot warning fails, so that Lambda keeps it: no sweep
finds the warning of a task that exits by itself.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

MOST_HANDED_ON: Final = timedelta(minutes=15)
"""Prefect is asked again after this, even if it, or a proxy before it, asked for more: one wrong
answer must not stop every rescue for hours. ECS shows a stopped task for an hour."""
QUIET_FOR: Final = timedelta(minutes=15)
"""After this, invocations fail with it: alarms go off, and events are kept in the failure queue."""


@dataclass(frozen=True, slots=True)
class NotNow:
    """What Prefect asked for; times in UTC. `first_at`: when it began to refuse."""

    first_at: datetime
    not_before: datetime
    said_at: datetime

    @property
    def lasts(self) -> bool:
        """Whether Prefect has refused for so long that this must be seen."""
        return self.said_at - self.first_at >= QUIET_FOR


def asked_now(seconds: float, now: datetime, before: NotNow | None) -> NotNow:
    """Return what Prefect asks for now. `before`: what it asked for last, None for nothing.

    A refusal goes on from one that ended minutes ago: in between, nobody may have asked.
    """
    goes_on = before is not None and now - before.not_before < MOST_HANDED_ON
    first_at = before.first_at if before is not None and goes_on else now
    until = now + min(timedelta(seconds=seconds), MOST_HANDED_ON)
    if before is not None:
        until = max(until, before.not_before)
    return NotNow(first_at, until, now)
