"""What a run has to do, what an attempt at it comes to, and what that costs.

A run's work is a row of equal tasks, one after the other. With persistence a rerun does again only
the task that was under way; without it the whole work is one task. Money is the product's own:
the shipped price table, `cost_usd`, and its minimum of a minute.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Final

import infra
from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from chalicelib.core.model.pricing import MINIMUM_SECONDS, Rates, Size, cost_usd, read_table

REGION: Final = "us-east-1"
ARCHITECTURE: Final = "x86_64"
SIZE: Final = Size(cpu_units=1024, memory_mib=2048)
"""Both rates fall by the same part on Spot, so shares of the on-demand cost hold for any size."""

_MINUTE: Final = float(MINIMUM_SECONDS)
_MANY_SECONDS: Final = Decimal(10**9)
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


def moment(at: float) -> datetime:
    """Return the time that stands for so many seconds on a pool's clock."""
    return _EPOCH + timedelta(seconds=at)


def seconds_at(time: datetime) -> float:
    """Return the seconds on a pool's clock that a time stands for."""
    return (time - _EPOCH).total_seconds()


@cache
def shipped_rates() -> Rates:
    """Return the price table that the Lambdas are shipped with."""
    return read_table(infra.load("prices.json"))


@dataclass(frozen=True, slots=True)
class Platform:
    """What Fargate asks for, in money and in time.

    `changeover_seconds`, the restart overhead: from a container's exit (or a run being due) to the
    flow's first line in the next one. Its last third, image pull and Prefect's start, is charged.
    """

    usd_per_second: dict[str, float]
    changeover_seconds: float

    @property
    def billed_start_seconds(self) -> float:
        """The last third of a changeover."""
        return self.changeover_seconds / 3

    @property
    def unbilled_seconds(self) -> float:
        """The part of a changeover before the image pull: polling, and Fargate's placement."""
        return self.changeover_seconds - self.billed_start_seconds

    def usd(self, capacity: str, seconds: float) -> float:
        """Cost in USD of a task that AWS charges for so many seconds, a minute at least."""
        return self.usd_per_second[capacity] * max(seconds, _MINUTE)


def platform_of(changeover_seconds: float = 60.0) -> Platform:
    """Return the platform at the shipped rates, in the simulated region."""
    rates = shipped_rates()
    usd_per_second = {
        capacity: float(cost_usd(rates[REGION, ARCHITECTURE, capacity], _MANY_SECONDS, SIZE))
        / float(_MANY_SECONDS)
        for capacity in (FARGATE, FARGATE_SPOT)
    }
    return Platform(usd_per_second, changeover_seconds)


@dataclass(frozen=True, slots=True)
class Work:
    """A run's work in seconds, in `tasks` equal parts, each kept once it is done."""

    seconds: float
    tasks: int = 1

    @property
    def task_seconds(self) -> float:
        """Length of a task: as much as an interruption may cost."""
        return self.seconds / self.tasks

    def left(self, done: int) -> float:
        """Seconds of work left with so many tasks done."""
        return self.task_seconds * (self.tasks - done)

    def done_after(self, done: int, seconds: float) -> int:
        """Tasks done once so many seconds more have been worked."""
        return min(self.tasks, done + int(max(0.0, seconds) / self.task_seconds + 1e-9))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One task of ECS: asked for at `due_at`, charged from `pulled_at`, over at `ended_at`."""

    capacity: str
    due_at: float
    pulled_at: float
    ended_at: float
    usd: float
    done: int
    is_interrupted: bool


def attempt(
    work: Work, done: int, capacity: str, due_at: float, interruption: float, platform: Platform
) -> Attempt:
    """Play one attempt of a run with `done` tasks behind it; `interruption`: when Spot takes it."""
    pulled_at = due_at + platform.unbilled_seconds
    begins_at = due_at + platform.changeover_seconds
    ends_at = begins_at + work.left(done)
    if capacity == FARGATE or interruption >= ends_at:
        usd = platform.usd(capacity, ends_at - pulled_at)
        return Attempt(capacity, due_at, pulled_at, ends_at, usd, work.tasks, False)
    done = work.done_after(done, interruption - begins_at)
    usd = platform.usd(capacity, interruption - pulled_at)
    return Attempt(capacity, due_at, pulled_at, interruption, usd, min(done, work.tasks - 1), True)
