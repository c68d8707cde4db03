"""The seam of the guards: who is asked, when, and what is kept of the answer."""

from dataclasses import replace

from chalicelib.core.bookkeeping import recorded
from chalicelib.core.guards.advice import Advice, advice_on, guards_on
from chalicelib.core.guards.facts import Guard, GuardFacts, GuardPolicy
from chalicelib.core.situation import Policy
from tests.make import TASK_ARN, make_run, make_situation

ECONOMICS = Policy(guards=GuardPolicy(economics=True))


def test_no_guard_is_on_unless_it_is_set() -> None:
    assert guards_on(make_situation()) == ()
    assert advice_on(make_situation()) == Advice()
    assert make_situation().facts == GuardFacts()


def test_a_guard_is_on_by_its_setting_or_by_the_runs_own_tag() -> None:
    assert guards_on(make_situation(policy=ECONOMICS)) == (Guard.ECONOMICS,)
    tagged = make_situation(run=make_run(tags=("spot-deadline:90m",)))
    assert guards_on(tagged) == (Guard.DEADLINE,)


def test_without_its_facts_the_budget_alone_decides_and_that_is_told() -> None:
    noted = recorded(make_situation(policy=ECONOMICS), rerun=True)
    interruption = noted.record.interruptions[TASK_ARN]
    assert interruption.rerun_on == "FARGATE_SPOT"
    assert interruption.guard == ""
    assert "economics has no say" in interruption.guard_reason
    assert "the budget alone decides" in interruption.guard_reason


def test_what_was_decided_once_stays_whatever_the_guards_would_say_now() -> None:
    noted = recorded(make_situation(), rerun=True)
    again = recorded(replace(noted, policy=ECONOMICS), rerun=True)
    assert again.record == noted.record
