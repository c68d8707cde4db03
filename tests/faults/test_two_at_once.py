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

from chalicelib.errors import LeaseLostError, PrefectSpotError, PrefectTimeoutError
from chalicelib.functions.react import react
from chalicelib.functions.sweep import sweep
from tests.faults.ledger import Ledger
from tests.faults.universes import PLOTS, Life, finish
from tests.laws.universe import Befalls, Fault, Killed, Tripwire, Universe

AGAIN_SECONDS = 60
RERUN = next(plot for plot in PLOTS if plot.name == "rerun on Spot")

Handler = Callable[[Life, Any], object]


def at_exit(life: Life, context: Any) -> object:
    return react(context, life.universe.event(life.tasks[0], lastStatus="DEPROVISIONING"))


def at_stop(life: Life, context: Any) -> object:
    return react(context, life.universe.event(life.tasks[0], lastStatus="STOPPED", version=7))


def at_warning(life: Life, context: Any) -> object:
    return react(context, life.universe.warning(life.tasks[0]))


def by_sweep(life: Life, context: Any) -> object:
    return sweep(context, {})


HANDLERS = {"exit": at_exit, "stop": at_stop, "warning": at_warning, "sweep": by_sweep}
PAIRS = [
    pytest.param(HANDLERS[one], HANDLERS[other], id=f"{one} and {other}")
    for one, other in product(HANDLERS, repeat=2)
    if "stop" not in (one, other) or "exit" in (one, other)
    # The task's stop is handled as its container's exit is; with itself it is one event twice.
]


class Steps(Tripwire):
    """A wire that waits for leave before each call."""

    def __init__(self) -> None:
        super().__init__(fault=None, meanwhile=lambda: None)
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


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return Ledger("two-at-once")


def begun() -> Life:
    life = RERUN.begin(Universe())
    life.universe.passes(200)  # the grace is over: a sweep would act as well
    return life


def length(handler: Handler) -> int:
    """How many calls the handler makes when nobody disturbs it."""
    life = begun()
    handler(life, life.universe.context())
    assert life.universe.wire is not None
    return len(life.universe.wire.calls)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_every_interleaving_ends_in_one_rerun(
    ledger: Ledger, request: pytest.FixtureRequest, one: Handler, other: Handler
) -> None:
    steps = (length(one), length(other))
    with ledger.case(f"two at once: {request.node.callspec.id}") as case:
        for i in range(steps[0] + 1):
            for j in range(steps[1] + 1):
                life = begun()
                wires = (Steps(), Steps())
                for handler, wire in zip((one, other), wires, strict=True):
                    context = life.universe.context(wire=wire)
                    wire.start(partial(handler, life, context))
                for wire, number in zip(wires, (i, j), strict=True):
                    for _ in range(number):
                        wire.step()
                for wire in wires:
                    wire.run_out()
                for handler, wire in zip((one, other), wires, strict=True):
                    # No time passes, so a lease that was given ends when it is given back.
                    assert not isinstance(wire.error, LeaseLostError), f"after {i} and {j} steps"
                    if wire.error:
                        life.universe.passes(AGAIN_SECONDS)
                        with suppress(PrefectSpotError):
                            handler(life, life.universe.context())
                finish(life, RERUN, only_sweep=False)
                verdict = life.verdict()
                case.count(verdict)
                assert not verdict.findings, f"after {i} and {j} steps: {verdict}"
                assert len(life.tasks) == 2, f"after {i} and {j} steps: no rerun, or two"


class Late(Tripwire):
    """Prefect times out when the run is made due, and does it later: `effect` is what it then does.

    The first proposal parks the run, the second makes it due.
    """

    def __init__(self) -> None:
        super().__init__(fault=None, meanwhile=lambda: None)
        self.proposals = 0
        self.effect: Callable[[], object] = lambda: None

    def call(self, name: str, call: Callable[[], Any]) -> Any:
        self.proposals += name == "prefect.propose_state"
        if name == "prefect.propose_state" and self.proposals == 2:
            self.effect = call
            raise PrefectTimeoutError("no answer in time", next_step="none")
        return super().call(name, call)


@pytest.mark.parametrize("seconds", [1, 20, 59])
def test_a_due_that_takes_effect_after_nobody_waited_for_it_is_not_asked_for_twice(
    ledger: Ledger, seconds: int
) -> None:
    """Meanwhile the next event comes; then the worker takes the run, before Lambda's next try."""
    with ledger.case(f"made due {seconds} s after Prefect timed out") as case:
        life = begun()
        universe, wire = life.universe, Late()
        exit_, stop = universe.exits(life.tasks[0])[1:]
        assert universe.handle(exit_, wire=wire) is None
        universe.handle(stop)
        assert not universe.prefect.is_due(life.run_id), "a worker could have it before the effect"
        universe.passes(seconds)
        wire.effect()
        assert universe.prefect.is_due(life.run_id)
        life.tasks.append(universe.start(life.run_id))
        universe.passes(AGAIN_SECONDS)
        for event in (exit_, stop):
            assert universe.handle(event) is not None
        assert not universe.prefect.is_due(life.run_id), "it would start beside its own container"
        universe.prefect.engine_finishes(life.run_id)
        universe.stops(life.tasks[-1], stop_code="EssentialContainerExited")
        finish(life, RERUN, only_sweep=False)
        verdict = life.verdict()
        case.count(verdict)
        assert not verdict.findings
        assert len(life.tasks) == 2


def test_a_handler_that_sleeps_longer_than_its_lease_makes_no_second_rerun(ledger: Ledger) -> None:
    """It wakes at each of its calls, after another handler has done the whole work."""
    with ledger.case("asleep for longer than the lease") as case:
        for call in range(length(at_exit)):
            life = begun()
            event = life.universe.event(life.tasks[0], lastStatus="DEPROVISIONING")
            with suppress(Killed):
                life.universe.deliver(event, Fault(Befalls.FALLS_ASLEEP, call))
            finish(life, RERUN, only_sweep=False)
            verdict = life.verdict()
            case.count(verdict)
            assert not verdict.findings, f"asleep at call {call}: {verdict}"
            assert len(life.tasks) == 2, f"asleep at call {call}: no rerun, or two"
