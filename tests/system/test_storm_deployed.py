"""A storm over the deployed zip: hundreds of interruptions at once, ten runtimes, a real server.

Prefect keeps its runs in PostgreSQL. Each event comes three times, all in random order; 5 % of
Prefect's answers fail, half of them after they took effect; one invocation in a hundred is killed.
Lambda's two retries, then `sweep`, are all the help there is. Containers are on paper: what counts
as a start is that a worker was handed the run.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from localcloud.cloud import SWEEP, Cloud, Options, embedded_cloud, wait_for
from localcloud.events import Event
from localcloud.fault_proxy import Answer, LoseAnswer, Reset, either, fraction
from localcloud.lambdas import LambdaService
from localcloud.oracle import Verdict, judge, observe
from tests.faults.ledger import FULL, Ledger
from tests.faults.paper import OWN_RETRIES, PaperFargate, PaperWorker

pytestmark = pytest.mark.timeout(3600)

RUNS = int(os.environ.get("STORM_DEPLOYED") or (300 if FULL else 30))
SEED = 20261123
COPIES = 3
RUNTIMES = 10
BUDGETS = (0, 1, 3)
BUSY = Answer(503, {"Content-Type": "text/plain"}, b"Service Unavailable")
OPTIONS = Options(
    auth_string="admin:only-for-these-tests",
    settings={"SWEEP_GRACE_SECONDS": "5"},
    lambda_timeout_seconds=20,
    retry_scale=0.45,  # 27 and 54 s: a lease lives for the 20 s and 5 more
    faults=True,
    postgres=True,
    worker=False,
    lambda_concurrency=RUNTIMES,
)
LONG_SECONDS = 1500.0
INVOCATIONS_PER_DEATH = 100


def budget_of(number: int) -> int:
    return BUDGETS[number % len(BUDGETS)]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with embedded_cloud(OPTIONS, tell=print) as cloud:
        yield cloud


def test_nothing_is_lost_and_nothing_run_twice(cloud: Cloud) -> None:
    chance = random.Random(SEED)
    news: list[Event] = []
    heard = news.append
    fargate = PaperFargate(cloud, lambda event: heard(event))
    with PaperWorker(cloud, fargate, seconds=5) as worker:
        runs = worker.create_runs(RUNS, lambda number: [f"spot-retries:{budget_of(number)}"])
        wait_for("all first attempts", LONG_SECONDS, lambda: worker.at_work() == RUNS)
        news.clear()
        ledger = Ledger("storm-deployed")
        with ledger.case(f"storm of {RUNS} on the deployed zip") as case:
            for task_arn in worker.running.values():
                fargate.interrupt(task_arn)
            for task_arn in worker.running.values():
                fargate.end(task_arn)
            deliveries = [*news] * COPIES
            chance.shuffle(deliveries)
            heard = cloud.router.put
            with bad_conditions(cloud), deaths(cloud.lambdas, chance) as killed:
                for event in deliveries:
                    cloud.router.put(event)
                cloud.lambdas.wait_idle(LONG_SECONDS)
                assert swept_until_nothing_is_left(cloud)
            wait_for("the reruns", LONG_SECONDS, lambda: all_are_over(cloud, runs))
            verdict = verdict_on(cloud, fargate, runs)
            case.count(verdict, tries=RUNS)
            ledger.figures["storm_deployed"] = figures(cloud, killed())
    assert worker.errors == []
    assert not verdict.findings, verdict
    assert killed() >= len(deliveries) // INVOCATIONS_PER_DEATH - 1
    for run_id in runs:
        run = cloud.prefect.run(run_id)
        assert run["state_type"] == "COMPLETED"
        assert run["empirical_policy"]["retries"] == OWN_RETRIES + 1, "an own retry was eaten"
    assert len(fargate.ledger()) == 2 * RUNS, "a run was not started exactly once more"


@contextmanager
def bad_conditions(cloud: Cloud) -> Iterator[None]:
    assert cloud.prefect_faults
    cloud.prefect_faults.plan = either(
        fraction(SEED, 0.025, BUSY),
        fraction(SEED + 1, 0.02, LoseAnswer()),
        fraction(SEED + 2, 0.005, Reset()),
    )
    yield
    assert cloud.prefect_faults.errors == []


@contextmanager
def deaths(lambdas: LambdaService, chance: random.Random) -> Iterator[Callable[[], int]]:
    """Kill one invocation in a hundred while it is at work; hand out how many they were."""
    over = threading.Event()
    killed = 0

    def kill() -> None:
        nonlocal killed
        while not over.wait(chance.uniform(0.01, 0.1)):
            due = len(lambdas.invocations) >= INVOCATIONS_PER_DEATH * killed
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


def all_are_over(cloud: Cloud, runs: list[str]) -> bool:
    return all(cloud.prefect.is_final(run_id) for run_id in runs)


def verdict_on(cloud: Cloud, fargate: PaperFargate, runs: list[str]) -> Verdict:
    ledger = fargate.ledger()
    prefect = cloud.prefect
    return judge(
        *(
            observe(prefect.run(run), prefect.history(run), ledger, budget=budget_of(number))
            for number, run in enumerate(runs)
        )
    )


def figures(cloud: Cloud, killed: int) -> dict[str, int]:
    """What it took, for whoever reads the ledger."""
    assert cloud.prefect_faults
    tries, exchanges = cloud.lambdas.invocations, cloud.prefect_faults.exchanges
    return {
        "tries": len(tries),
        "killed": killed,
        "failed": sum(i.status != "ok" for i in tries),
        "given_up": len(cloud.lambdas.exhausted),
        "requests_to_prefect": len(exchanges),
        "spoilt": sum(e.fault is not None for e in exchanges),
    }
