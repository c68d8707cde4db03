"""One run under one policy, from its scheduled start to its end.

What the policy decides is the product's; the interruptions were drawn before, and are the same for
every policy. Runs of a pool share their bursts and nothing else, so each is played by itself.
"""

from collections.abc import Sequence
from math import inf

from chalicelib.core.guards.facts import GuardFacts
from chalicelib.core.situation import Situation
from chalicelib.core.task import FARGATE_SPOT
from simulation.contenders import Contender
from simulation.foresight import Assignment, Outcome
from simulation.memory import Memory
from simulation.product import run_under
from simulation.work import Attempt, Platform, attempt


def play(
    runs: Sequence[Assignment], contender: Contender, memory: Memory, platform: Platform
) -> tuple[Outcome, ...]:
    """Play a pool's runs to their ends; return what became of each, in the order of `runs`."""
    return tuple(
        _play_run(run, f"run-{i}", contender, memory, platform) for i, run in enumerate(runs)
    )


def _play_run(
    run: Assignment, name: str, contender: Contender, memory: Memory, platform: Platform
) -> Outcome:
    product = run_under(contender.policy, name, run.at, contender.tags(run.work))
    product.before_start(memory.before_start)
    attempts: list[Attempt] = []

    def facts(s: Situation) -> GuardFacts:
        return memory.facts(s, run.work, attempts, platform)

    due_at = run.at
    while True:
        on_spot = product.capacity == FARGATE_SPOT
        taken = run.sky.interruption_after(due_at + platform.unbilled_seconds) if on_spot else inf
        done = attempts[-1].done if attempts else 0
        tried = attempt(run.work, done, product.capacity, due_at, taken, platform)
        attempts.append(tried)
        product.started(due_at, min(due_at + platform.changeover_seconds, tried.ended_at))
        if not tried.is_interrupted:
            return _outcome(run, attempts)
        due_at = product.interrupted(tried, facts)


def _outcome(run: Assignment, attempts: Sequence[Attempt]) -> Outcome:
    return Outcome(
        usd=sum(tried.usd for tried in attempts),
        seconds=attempts[-1].ended_at - run.at,
        spot_usd=sum(tried.usd for tried in attempts if tried.capacity == FARGATE_SPOT),
        interruptions=sum(tried.is_interrupted for tried in attempts),
    )
