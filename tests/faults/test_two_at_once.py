"""Two handlers of one run, stopped and started at every pair of their calls: one rerun.

Each runs in a thread of its own and takes its steps only when it is given leave, so that every
interleaving of the form *A takes i steps, B takes j steps, A ends, B ends* is tried, and no other
happens by chance.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any

import pytest

from chalicelib.core.ports import Context
from chalicelib.errors import LeaseLostError, PrefectSpotError, PrefectTimeoutError
from chalicelib.functions.react import react
from chalicelib.functions.sweep import sweep
from tests.faults.ledger import Case, Ledger
from tests.faults.universes import PLOTS, Life, finish
from tests.laws.universe import LEASE, Befalls, Killed, Tripwire, Universe

AGAIN_SECONDS = 60
RERUN = next(plot for plot in PLOTS if plot.name == "rerun on Spot")

Handler = Callable[[Life, Context], object]


def exited(life: Life, status: str = "DEPROVISIONING") -> dict[str, Any]:
    return life.universe.event(life.tasks[0], lastStatus=status)


HANDLERS: dict[str, Handler] = {
    "exit": lambda life, context: react(context, exited(life)),
    "stop": lambda life, context: react(context, exited(life, "STOPPED")),
    "warning": lambda life, context: react(context, life.universe.warning(life.tasks[0])),
    "sweep": lambda _, context: sweep(context, {}),
}
PAIRS = [
    pytest.param((HANDLERS[one], HANDLERS[other]), id=f"{one} and {other}")
    for one, other in product(HANDLERS, repeat=2)
    if "stop" not in (one, other) or "exit" in (one, other)
    # The task's stop is handled as its container's exit is; with itself it is one event twice.
]


class Steps(Tripwire):
    """A wire that waits for leave before each call."""

    def __init__(self) -> None:
        super().__init__()
        self._leave = threading.Semaphore(0)
        self._arrived = threading.Semaphore(0)
        self._free = False
        self.error: PrefectSpotError | None = None

    def call(self, name: str, call: Callable[[], Any]) -> Any:
        if not self._free:
            self._arrived.release()
            self._leave.acquire()
        return super().call(name, call)

    def start(self, work: Callable[[], object]) -> None:
        def run() -> None:
            try:
                work()
            except PrefectSpotError as error:
                self.error = error
            finally:
                self._free = True
                self._arrived.release()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self._arrived.acquire()

    def step(self) -> bool:
        """Let it make its next call; False when it has come to its end."""
        if self._free:
            return False
        self._leave.release()
        self._arrived.acquire()
        return True

    def run_out(self) -> None:
        while self.step():
            pass
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


def begun() -> Life:
    life = RERUN.begin(Universe())
    life.universe.passes(200)  # the grace is over: a sweep would act as well
    return life


def length(handler: Handler) -> int:
    """How many calls the handler makes when it is undisturbed."""
    life = begun()
    handler(life, life.universe.context())
    return len(life.universe.calls)


def assert_one_rerun(life: Life, case: Case, where: str) -> None:
    finish(life, RERUN, only_sweep=False)
    verdict = life.verdict()
    case.count(verdict)
    assert not verdict.findings, f"{where}: {verdict}"
    assert len(life.tasks) == 2, f"{where}: no rerun, or two"


@pytest.mark.parametrize("pair", PAIRS)
def test_every_interleaving_ends_in_one_rerun(
    request: pytest.FixtureRequest, pair: tuple[Handler, Handler]
) -> None:
    every = [range(length(handler) + 1) for handler in pair]
    with Ledger("two-at-once").case(f"two at once: {request.node.callspec.id}") as case:
        for numbers in product(*every):
            life, wires = begun(), (Steps(), Steps())
            for handler, wire in zip(pair, wires, strict=True):
                wire.start(partial(handler, life, life.universe.context(wire)))
            for wire, number in zip(wires, numbers, strict=True):
                for _ in range(number):
                    wire.step()
            for wire in wires:
                wire.run_out()
            where = "after {} and {} steps".format(*numbers)
            for handler, wire in zip(pair, wires, strict=True):
                # No time passes, so a lease that was given ends when it is released.
                assert not isinstance(wire.error, LeaseLostError), where
                if wire.error:
                    life.universe.passes(AGAIN_SECONDS)
                    with suppress(PrefectSpotError):
                        handler(life, life.universe.context())
            assert_one_rerun(life, case, where)


class Late(Tripwire):
    """Prefect times out when the run is made due, and does it later: `effect` is what it then does.

    The first proposal parks the run, the second makes it due.
    """

    effect: Callable[[], object] | None = None

    def call(self, name: str, call: Callable[[], Any]) -> Any:
        if name == "prefect.propose_state" and name in self.calls and not self.effect:
            self.effect = call
            raise PrefectTimeoutError("no answer in time", next_step="none")
        return super().call(name, call)


@pytest.mark.parametrize("seconds", [1, 20, 59])
def test_a_due_that_takes_effect_after_its_timeout_is_not_proposed_twice(seconds: int) -> None:
    """Meanwhile the next event comes; then the worker takes the run, before Lambda's retry."""
    with Ledger("two-at-once").case(f"made due {seconds} s after Prefect timed out") as case:
        life, wire = begun(), Late()
        universe = life.universe
        exit_, stop = universe.exits(life.tasks[0])[1:]
        assert universe.handle(exit_, wire) is None
        universe.handle(stop)
        assert not universe.prefect.is_due(life.run_id), "a worker could have it before the effect"
        universe.passes(seconds)
        assert wire.effect is not None
        wire.effect()
        assert universe.prefect.is_due(life.run_id)
        life.tasks.append(universe.start(life.run_id))
        universe.passes(AGAIN_SECONDS)
        for event in (exit_, stop):
            assert universe.handle(event) is not None
        assert not universe.prefect.is_due(life.run_id), "it would start beside its own container"
        universe.prefect.engine_finishes(life.run_id)
        universe.stops(life.tasks[-1], stop_code="EssentialContainerExited")
        assert_one_rerun(life, case, "after the rerun")


def test_a_handler_that_sleeps_longer_than_its_lease_makes_no_second_rerun() -> None:
    """It wakes at each of its calls, after another handler has done the whole work."""
    with Ledger("two-at-once").case("asleep for longer than the lease") as case:
        for call in range(length(HANDLERS["exit"])):
            life = begun()
            universe, event = life.universe, exited(life)

            def meanwhile(universe: Universe = universe, event: Any = event) -> None:
                universe.passes(LEASE.total_seconds() + 1)
                universe.handle(event)

            with suppress(Killed):
                universe.deliver(event, Tripwire(Befalls.FALLS_ASLEEP, call, meanwhile))
            assert_one_rerun(life, case, f"asleep at call {call}")
