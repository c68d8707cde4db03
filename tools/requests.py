"""Prints how often Prefect is asked, and what a storm then takes, as docs/connect.md has it.

    python -m tools.requests

Counted in the universe of `tests/laws`: the handlers' calls of their port to Prefect, each of which
the adapter turns into one request. Left out: the name of a deployment, two requests once in each
Lambda environment, and the first 404 in one, which costs another. The limits are those of Prefect
Cloud's plans that have hybrid work pools, in requests a minute and account; read, not tried
(https://docs.prefect.io/v3/concepts/rate-limits): log lines and events have a limit of their own.
"""

from collections.abc import Iterator
from typing import Final

from tests.laws.universe import Universe

PLANS: Final = {"Starter": 1_250, "Team": 2_500, "Pro": 5_000}
OTHERWISE_LIMITED: Final = ("prefect.write_log", "prefect.emit_events")
STORM: Final = 1_000
RUNNING: Final = 100


def rescue() -> int:
    """Return the requests of all events of one interruption, the bill's included."""
    universe = Universe()
    _, task = universe.running()
    warned = _answered(universe, universe.warning(task))  # before the exit is there to be seen
    return warned + sum(_answered(universe, event) for event in universe.exits(task))


def _answered(universe: Universe, event: dict[str, object]) -> int:
    universe.deliver(event)
    return _asked(universe)


def bill() -> int:
    """Return the requests of the bill of one task that ended by itself."""
    universe = Universe()
    run, task = universe.running()
    universe.prefect.engine_finishes(run.id)
    universe.stops(task, stop_code="EssentialContainerExited", stopped_reason="exited")
    universe.meter(universe.end_of(task))
    return _asked(universe)


def sweep(runs: int) -> int:
    """Return the requests of a sweep that reads so many healthy runs."""
    universe = Universe()
    for _ in range(runs):
        universe.running()
    universe.sweep()
    return _asked(universe)


def _asked(universe: Universe) -> int:
    asked = [call for call in universe.calls if call.startswith("prefect.")]
    return sum(call not in OTHERWISE_LIMITED for call in asked)


def lines() -> Iterator[str]:
    """Return both tables' lines, in Markdown."""
    each, bills = rescue(), bill()
    yield "| what | requests to Prefect |"
    yield "|---|---|"
    yield f"| all events of one interruption | {each} |"
    yield f"| the bill of one task | {bills} |"
    yield f"| a sweep of {RUNNING} healthy runs | {sweep(RUNNING)} |"
    yield "| a sweep that only looks for refused starts | 1 |"
    yield ""
    yield f"| plan | requests a minute | {STORM:,} interruptions at once, billed: at least |"
    yield "|---|---|---|"
    for plan, limit in PLANS.items():
        yield f"| {plan} | {limit:,} | {STORM * (each + bills) / limit:.0f} min |"


def table() -> str:
    """Return both tables."""
    return "\n".join(lines())


if __name__ == "__main__":
    print(table())
