"""One run from its scheduled start to its end: by a fixed way, by the best one, or by the product.

The interruptions were drawn before, and are the same for all of them. Runs of a pool share their
bursts and nothing else, so each is played by itself. `by_rule` asks the product's opinions alone,
thirty times as fast as `by_product`, which has the product decide and perform it all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import inf

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, SPOT_STOP_REASON, Task
from chalicelib.core.model.flow_run import FlowRun
from chalicelib.core.model.policy import (
    AUTO,
    BUDGET_WITHOUT_FACTS,
    MOST_ON_SPOT,
    Policy,
    SpotRetries,
)
from chalicelib.core.policies.deadline import deadline_opinion
from chalicelib.core.policies.economics import auto_opinion
from chalicelib.core.policies.facts import GoOnDemand, Guard, Missing, PolicyFacts
from chalicelib.core.rescue.snapshot import Snapshot
from lab.simulation.memory import Memory
from lab.simulation.sky import Sky
from lab.simulation.work import (
    ARCHITECTURE,
    REGION,
    SIZE,
    Attempt,
    Platform,
    Work,
    attempt,
    moment,
    seconds_at,
    shipped_rates,
)
from spotctl.replay.run_in_memory import RUN_ID, RunInMemory


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run: USD, and seconds from its scheduled start."""

    usd: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Assignment:
    """A run to be played: due at `at` on its pool's clock, under its own sky."""

    work: Work
    sky: Sky
    at: float


def leaving_before(run: Assignment, platform: Platform) -> Iterator[Outcome]:
    """Yield what comes of leaving Spot before attempt 0, 1, 2, …; the last one never leaves.

    Ends where all that follow cost more than the cheapest, but not before `MOST_ON_SPOT` is spent.
    """
    usd, done, at, cheapest = 0.0, 0, run.at, inf
    for number in count():
        way = _on_demand(run, done, at, usd, platform)
        yield way
        cheapest = min(cheapest, way.usd)
        if number > MOST_ON_SPOT and usd >= cheapest:
            return
        interruption = run.sky.interruption_after(at + platform.unbilled_seconds)
        tried = attempt(run.work, done, FARGATE_SPOT, at, interruption, platform)
        usd, done, at = usd + tried.usd, tried.done, tried.ended_at
        if not tried.is_interrupted:
            yield Outcome(usd, at - run.at)
            return


def by_budget(ways: Sequence[Outcome], budget: int) -> Outcome:
    """Return, of all `ways`, the one that a budget takes; a test holds the product to it."""
    return ways[min(budget + 1, len(ways) - 1)]


def optimum(ways: Sequence[Outcome], deadline_seconds: float = inf) -> Outcome:
    """Return the cheapest of all ways that meets the deadline; where none does, the fastest."""
    in_time = [way for way in ways if way.seconds <= deadline_seconds]
    if in_time:
        return min(in_time, key=lambda way: way.usd)
    return min(ways, key=lambda way: way.seconds)


@dataclass(frozen=True, slots=True)
class Rule:
    """A budget, and a deadline as a tag; empty: none."""

    budget: SpotRetries
    tag: str = ""

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of a run that goes by it."""
        return (self.tag,) if self.tag else ()


def by_rule(run: Assignment, rule: Rule, memory: Memory, platform: Platform) -> Outcome:
    """Return what becomes of a run by the product's opinions; a test holds the product to it."""
    flow_run = RunInMemory(Policy(), moment(run.at), tags=rule.tags).run
    attempts: list[Attempt] = []
    due_at, leaves = run.at, _too_late(rule, flow_run, memory.before_start, run.at)
    while True:
        taken = inf if leaves else run.sky.interruption_after(due_at + platform.unbilled_seconds)
        done = attempts[-1].done if attempts else 0
        capacity = FARGATE if leaves else FARGATE_SPOT
        attempts.append(attempt(run.work, done, capacity, due_at, taken, platform))
        due_at = attempts[-1].ended_at
        if not attempts[-1].is_interrupted:
            return Outcome(sum(tried.usd for tried in attempts), due_at - run.at)
        leaves = _leaves(rule, flow_run, memory.facts(run.work, attempts, platform), attempts)


def _leaves(
    rule: Rule, flow_run: FlowRun, facts: PolicyFacts | Missing, attempts: Sequence[Attempt]
) -> bool:
    """Whether the run leaves Spot after the last of the attempts."""
    number = len(attempts)
    if _too_late(rule, flow_run, facts, attempts[-1].ended_at):
        return True
    if rule.budget != AUTO:
        return number > rule.budget
    opinion = auto_opinion(facts, A_TASK, shipped_rates(), number)
    most = BUDGET_WITHOUT_FACTS if isinstance(opinion, Missing) else MOST_ON_SPOT
    return isinstance(opinion, GoOnDemand) or number > most


def _too_late(rule: Rule, flow_run: FlowRun, facts: PolicyFacts | Missing, at: float) -> bool:
    opinion = deadline_opinion(flow_run, facts, moment(at)) if rule.tag else None
    return isinstance(opinion, GoOnDemand)


def by_product(run: Assignment, rule: Rule, memory: Memory, platform: Platform) -> Outcome:
    """Return what becomes of a run by the product's own decisions, step by step.

    Raises UnexpectedActionError: the product decided anything but a rerun.
    """
    policy = Policy(spot_retries=rule.budget, rates=shipped_rates())
    product = RunInMemory(policy, moment(run.at), tags=rule.tags)
    if _too_late(rule, product.run, memory.before_start, run.at):  # as `sweep` judges it
        product.move_to_on_demand()
    attempts: list[Attempt] = []

    def gather(_snapshot: Snapshot, _guards: Sequence[Guard]) -> PolicyFacts | Missing:
        return memory.facts(run.work, attempts, platform)

    due_at = run.at
    while True:
        on_spot = product.capacity == FARGATE_SPOT
        taken = run.sky.interruption_after(due_at + platform.unbilled_seconds) if on_spot else inf
        done = attempts[-1].done if attempts else 0
        tried = attempt(run.work, done, product.capacity, due_at, taken, platform)
        attempts.append(tried)
        begins_at = min(due_at + platform.changeover_seconds, tried.ended_at)
        product.start(moment(due_at), moment(begins_at))
        if not tried.is_interrupted:
            return Outcome(sum(tried.usd for tried in attempts), tried.ended_at - run.at)
        task = _task_of(tried, number=len(attempts))
        due_at = seconds_at(product.end_task(task, moment(tried.ended_at), gather))


def _task_of(tried: Attempt, number: int) -> Task:
    """Return the task of an interrupted attempt, as ECS shows it at its exit."""
    return Task(
        arn=f"arn:aws:ecs:{REGION}:111122223333:task/simulation/{number}",
        cluster_arn=f"arn:aws:ecs:{REGION}:111122223333:cluster/simulation",
        last_status="DEPROVISIONING",
        desired_status="STOPPED",
        stop_code="SpotInterruption",
        stopped_reason=f"{SPOT_STOP_REASON}.",
        launch_type=FARGATE,
        capacity_provider=FARGATE_SPOT,
        flow_run_id=RUN_ID,
        flow_container_stopped=True,
        cpu_units=SIZE.cpu_units,
        memory_mib=SIZE.memory_mib,
        architecture=ARCHITECTURE,
        created_at=moment(tried.due_at),
        pull_started_at=moment(tried.pulled_at),
        started_at=moment(tried.pulled_at),
        execution_stopped_at=moment(tried.ended_at),
    )


def _on_demand(run: Assignment, done: int, at: float, usd: float, platform: Platform) -> Outcome:
    last = attempt(run.work, done, FARGATE, at, inf, platform)
    return Outcome(usd + last.usd, last.ended_at - run.at)


A_TASK = _task_of(Attempt(FARGATE_SPOT, 0.0, 0.0, 0.0, 0.0, 0, True), number=0)
"""For its size and region."""
