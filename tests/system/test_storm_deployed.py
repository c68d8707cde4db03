"""A storm over the deployed zip: forty interruptions at once, ten runtimes, a real server.

Prefect keeps its runs in PostgreSQL. Each event comes three times, all in random order; 5 % of
Prefect's answers fail, half of them after they took effect; one invocation in a hundred is killed.
Lambda's two retries, then `sweep`, are all the help there is. Containers are on paper: what counts
as a start is that a worker was handed the run.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from localcloud.cloud import SWEEP, Cloud, wait_for
from localcloud.events import Event
from localcloud.fault_proxy import Answer, LoseAnswer, Reset, either, fraction, no_fault
from localcloud.lambdas import LambdaService
from localcloud.oracle import Verdict, judge, observe
from tests.faults.ledger import Ledger
from tests.system.clouds import PAPER
from tests.system.paper import OWN_RETRIES
from tests.system.world import World

pytestmark = pytest.mark.parametrize("options", [PAPER], indirect=True, ids=["on paper"])

RUNS = int(os.environ.get("STORM_DEPLOYED") or 40)
SEED = 20261123
COPIES = 3
BUDGETS = (0, 1, 3)
BUSY = Answer(503, {"Content-Type": "text/plain"}, b"Service Unavailable")
LONG_SECONDS = 900.0
INVOCATIONS_PER_DEATH = 100


def budget_of(number: int) -> int:
    return BUDGETS[number % len(BUDGETS)]


def test_nothing_is_lost_and_nothing_run_twice(on_paper: World) -> None:
    chance = random.Random(SEED)
    cloud, worker = on_paper.cloud, on_paper.worker
    fargate = worker.fargate
    news: list[Event] = []
    fargate.on_event = news.append
    runs = worker.create_runs(RUNS, lambda n: [f"spot-retries:{budget_of(n)}"], seconds=5)
    wait_for("all first attempts", LONG_SECONDS, lambda: worker.are_at_work(runs))
    news.clear()
    ledger = Ledger("storm-deployed")
    before = len(cloud.lambdas.invocations)
    with ledger.case(f"storm of {RUNS} on the deployed zip") as case:
        for run in runs:
            fargate.interrupt(worker.running[run])
        for run in runs:
            fargate.end(worker.running[run])
        deliveries = [*news] * COPIES
        chance.shuffle(deliveries)
        fargate.on_event = cloud.router.put
        with bad_conditions(on_paper), deaths(cloud.lambdas, chance) as killed:
            for event in deliveries:
                cloud.router.put(event)
            cloud.lambdas.wait_idle(LONG_SECONDS)
            assert swept_until_nothing_is_left(cloud)
        wait_for("the reruns", LONG_SECONDS, lambda: all(map(cloud.prefect.is_final, runs)))
        verdict = verdict_on(on_paper, runs)
        case.count(verdict, tries=RUNS)
        ledger.figures["storm_deployed"] = figures(on_paper, before, killed())
    assert not verdict.findings, verdict
    assert killed() >= len(deliveries) // INVOCATIONS_PER_DEATH - 1
    for ended in map(cloud.prefect.run, runs):
        assert ended["state_type"] == "COMPLETED"
        assert ended["empirical_policy"]["retries"] == OWN_RETRIES + 1, "an own retry was eaten"
    started = Counter(life.flow_run_id for life in fargate.ledger())
    assert {started[run] for run in runs} == {2}, "a run was not started exactly once more"


@contextmanager
def bad_conditions(on_paper: World) -> Iterator[None]:
    on_paper.prefect.plan = either(
        fraction(SEED, 0.025, BUSY),
        fraction(SEED + 1, 0.02, LoseAnswer()),
        fraction(SEED + 2, 0.005, Reset()),
    )
    yield
    on_paper.prefect.plan = no_fault


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


def swept_until_nothing_is_left(cloud: Cloud) -> bool:
    """Sweep as the schedule would, also when a sweep fails, until one has nothing to repair."""
    for _ in range(20):
        time.sleep(6)
        answer = cloud.lambdas.invoke(SWEEP, {"source": "aws.events", "detail": {}})
        report = answer.answer if answer.status == "ok" else {}
        if report.get("finished") and not report["failed"] and not report["stranded"]:
            return True
    return False


def verdict_on(on_paper: World, runs: list[str]) -> Verdict:
    ledger = on_paper.worker.fargate.ledger()
    prefect = on_paper.cloud.prefect
    return judge(
        *(
            observe(prefect.run(run), prefect.history(run), ledger, budget=budget_of(number))
            for number, run in enumerate(runs)
        )
    )


def figures(on_paper: World, before: int, killed: int) -> dict[str, int]:
    """What it took, for the report; `before`: how many invocations there were already."""
    tries, exchanges = on_paper.cloud.lambdas.invocations[before:], on_paper.prefect.exchanges
    return {
        "tries": len(tries),
        "killed": killed,
        "failed": sum(i.status != "ok" for i in tries),
        "given_up": len(on_paper.cloud.lambdas.exhausted),
        "requests_to_prefect": len(exchanges),
        "spoilt": sum(e.fault is not None for e in exchanges),
    }
