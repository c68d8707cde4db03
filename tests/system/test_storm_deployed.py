"""A storm over the deployed zip: forty interruptions at once, ten runtimes, a real server.

Prefect keeps its runs in PostgreSQL. Each event comes three times, all in random order; 5 % of
Prefect's answers fail, half of them after they took effect; one invocation in a hundred is killed.
Lambda's two retries, then `sweep`, are all the help there is. Worker and engines are simulated.
"""

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from localcloud.cloud import SWEEP, Cloud, wait_for
from localcloud.events import Delivery, Event, deliver_once
from localcloud.fault_proxy import Answer, LoseAnswer, Reset, either, fraction, no_fault
from localcloud.lambdas import LambdaService
from localcloud.oracle import judge
from tests.e2e.scenario import Stage
from tests.e2e.stories import Stories
from tests.faults.ledger import Ledger
from tests.system.simulated_worker import FLOW, OWN_RETRIES

CLOUDS = ("simulated",)

RUNS = int(os.environ.get("STORM_DEPLOYED") or 40)
SEED = 20261123
COPIES = 3
EVENTS_PER_STOP = 3
"""The warning, DEPROVISIONING and STOPPED."""
BUDGETS = (0, 1, 3)
BUSY = Answer(503, {"Content-Type": "text/plain"}, b"Service Unavailable")
LONG_SECONDS = 900.0
INVOCATIONS_PER_DEATH = 100


def test_nothing_is_lost_and_nothing_run_twice_in_a_storm(stage: Stage, stories: Stories) -> None:
    stories.wait_for_all()
    chance = random.Random(SEED)
    cloud = stage.cloud
    events: list[Event] = []

    def hold_back(event: Event) -> Sequence[Delivery]:
        if event["detail"]["desiredStatus"] == "STOPPED":
            events.append(event)
        return []

    budgets = list(itertools.islice(itertools.cycle(BUDGETS), RUNS))
    runs = [stage.start(FLOW, tags=[f"spot-retries:{b}"], seconds=5) for b in budgets]
    for run in runs:
        run.wait_for_start(1, LONG_SECONDS)
    ledger = Ledger("storm-deployed")
    before = len(cloud.lambdas.invocations)
    with ledger.case(f"storm of {RUNS} on the deployed zip") as case:
        cloud.router.plan = hold_back
        for run in runs:
            cloud.fargate.interrupt(run.containers()[-1].task_arn)
        wait_for("all stop events", 300, lambda: len(events) == EVENTS_PER_STOP * RUNS)
        cloud.router.plan = deliver_once
        deliveries = [*events] * COPIES
        chance.shuffle(deliveries)
        with bad_conditions(cloud), deaths(cloud.lambdas, chance) as killed:
            for event in deliveries:
                cloud.router.put(event)
            cloud.lambdas.wait_idle(LONG_SECONDS)
            assert swept_until_nothing_is_left(stage)
        wait_for(
            "the reruns", LONG_SECONDS, lambda: all(cloud.prefect.is_final(r.id) for r in runs)
        )
        seen = (cloud.observe(r.id, budget=b) for r, b in zip(runs, budgets, strict=True))
        verdict = judge(*seen)
        case.count(verdict, tries=RUNS)
        ledger.figures["storm_deployed"] = figures(cloud, before, killed())
    assert not verdict.findings, verdict
    assert killed() >= len(deliveries) // INVOCATIONS_PER_DEATH - 1
    for run in runs:
        run.completes(starts=2)
        assert run.fields()["empirical_policy"]["retries"] == OWN_RETRIES + 1, "one was eaten"


@contextmanager
def bad_conditions(cloud: Cloud) -> Iterator[None]:
    assert cloud.prefect_faults
    cloud.prefect_faults.plan = either(
        fraction(SEED, 0.025, BUSY),
        fraction(SEED + 1, 0.02, LoseAnswer()),
        fraction(SEED + 2, 0.005, Reset()),
    )
    yield
    cloud.prefect_faults.plan = no_fault


@contextmanager
def deaths(lambdas: LambdaService, chance: random.Random) -> Iterator[Callable[[], int]]:
    """Kill one invocation in a hundred while it is at work; hand out how many they were."""
    over = threading.Event()
    before = len(lambdas.invocations)
    killed = 0

    def kill() -> None:
        nonlocal killed
        while not over.wait(chance.uniform(0.01, 0.1)):
            due = len(lambdas.invocations) - before >= INVOCATIONS_PER_DEATH * killed
            if due and lambdas.kill_one_at_work(chance):
                killed += 1

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield lambda: killed
    finally:
        over.set()
        thread.join()


def swept_until_nothing_is_left(stage: Stage) -> bool:
    """Sweep as the schedule would, also when a sweep fails, until one has nothing to repair."""
    for _ in range(20):
        time.sleep(6)
        answer = stage.cloud.lambdas.invoke(SWEEP, {"source": "aws.events", "detail": {}})
        report = answer.answer if answer.status == "ok" else {}
        if report.get("finished") and not report["failed"] and not report["stranded"]:
            return True
    return False


def figures(cloud: Cloud, before: int, killed: int) -> dict[str, int]:
    """What it took, for the report; `before`: how many invocations there were already."""
    assert cloud.prefect_faults
    tries, exchanges = cloud.lambdas.invocations[before:], cloud.prefect_faults.exchanges
    return {
        "tries": len(tries),
        "killed": killed,
        "failed": sum(i.status != "ok" for i in tries),
        "given_up": len(cloud.lambdas.exhausted),
        "requests_to_prefect": len(exchanges),
        "spoilt": sum(e.fault is not None for e in exchanges),
    }
