"""Replay of what the handlers themselves have recorded, of generated lives."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.money.report import Counts, total
from spotctl.replay.again import as_recorded, replay
from spotctl.replay.figures import figures_of
from spotctl.replay.history import RecordedRun, interrupted_runs, join, runs_of
from tests.laws.universe import BY_ITSELF, DRILL, STOPPED_AFTER, Universe
from tests.make import RATES

few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Life:
    """A run to be: after how many seconds each of its attempts is taken, and how the last ends."""

    tags: tuple[str, ...]
    retries: int
    ends_after: tuple[int, ...]
    drilled: int
    completed_when_taken: bool


lives = st.builds(
    Life,
    tags=st.sampled_from(
        [(), ("spot-retries:0",), ("spot-retries:2",), ("spot:never-rerun",), ("spot-deadline:2h",)]
    ),
    retries=st.integers(0, 2),
    ends_after=st.lists(st.integers(1, 20_000), min_size=1, max_size=5).map(tuple),
    drilled=st.integers(0, 9),
    completed_when_taken=st.booleans(),
)
policies = st.builds(
    Policy,
    mode=st.sampled_from(list(Mode)),
    spot_retries=st.integers(0, 3),
    rerun_delay_seconds=st.sampled_from([0, 0, 90]),
    rates=st.just(RATES),
)


def live(universe: Universe, life: Life) -> UUID:
    """Live it, in Prefect, ECS and the table, as the handlers do; return the run's id."""
    run_id = universe.prefect.create_run(tags=life.tags)
    for number, seconds in enumerate(life.ends_after):
        task = universe.start(run_id, retries=life.retries)
        universe.passes(seconds)
        is_last = number == len(life.ends_after) - 1
        if is_last and life.completed_when_taken:
            universe.prefect.engine_finishes(run_id)
        taken = task.capacity == "FARGATE_SPOT" and not (is_last and not life.completed_when_taken)
        how = DRILL if number == life.drilled else {}
        universe.stops(task, **(how if taken else BY_ITSELF))
        if taken:
            universe.deliver(universe.end_of(task))
        elif not universe.prefect.runs[run_id].state.is_final:
            universe.prefect.engine_finishes(run_id)
        universe.now += STOPPED_AFTER
        universe.meter(universe.end_of(task))
        universe.passes(200)
        if not universe.prefect.is_due(run_id):
            break
    return run_id


def history(universe: Universe, run_ids: Sequence[UUID]) -> tuple[RecordedRun, ...]:
    """What `spotctl` reads of these runs."""
    bills = [bill for bill in universe.bills.read_bills() if bill.flow_run_id in run_ids]
    billed = runs_of(bills, universe.now.date() - timedelta(days=30))
    return join(billed, universe.records().read_many(interrupted_runs(billed)))


@few
@given(many=st.lists(lives, min_size=1, max_size=3), policy=policies)
def test_replayed_under_the_settings_it_had_the_record_comes_out_again(
    many: list[Life], policy: Policy
) -> None:
    universe = Universe(policy)
    runs = history(universe, [live(universe, life) for life in many])
    recorded = figures_of(as_recorded(runs))
    replayed = replay(runs, policy)
    assert figures_of(replayed) == recorded
    assert [course.played for course in replayed] == [c.played for c in as_recorded(runs)]
    assert not any(course.without_tags or course.without_record for course in replayed)
    days = [universe.now.date() - timedelta(days=n) for n in range(30)]
    assert_equal(recorded.counts, total(universe.bills.read_sums(days)))


def assert_equal(mine: Counts, counts: Counts) -> None:
    """The first column is what `spotctl report` says of the same runs."""
    assert (mine.interruptions, mine.attempts) == (counts.interruptions, counts.attempts)
    assert mine.spot_reruns == counts.spot_reruns + counts.would_spot_reruns
    assert mine.on_demand_reruns == counts.on_demand_reruns + counts.would_on_demand_reruns
    assert (mine.cost_e8, mine.on_demand_e8) == (counts.cost_e8, counts.on_demand_e8)
    assert (mine.wasted_e8, mine.useful_e8) == (counts.wasted_e8, counts.useful_e8)
    assert (mine.spot_us, mine.on_demand_us) == (counts.spot_us, counts.on_demand_us)


@few
@given(many=st.lists(lives, min_size=1, max_size=3), was=st.integers(0, 3), other=st.integers(0, 3))
def test_a_smaller_budget_never_suffers_more_and_every_replay_is_within_it(
    many: list[Life], was: int, other: int
) -> None:
    policy = Policy(spot_retries=was, rates=RATES)
    universe = Universe(policy)
    runs = history(universe, [live(universe, life) for life in many])
    recorded = figures_of(as_recorded(runs)).counts
    courses = replay(runs, Policy(spot_retries=other, rates=RATES))
    replayed = figures_of(courses).counts
    assert replayed.runs == recorded.runs
    assert replayed.interruptions <= recorded.interruptions
    if other >= was:
        assert replayed.interruptions == recorded.interruptions, "none can be made up"
    for course in courses:
        on_spot = sum(played.rerun_on == "FARGATE_SPOT" for played in course.played)
        assert course.own_budget or on_spot <= other
        moved = [p.bill.capacity for p in course.played]
        assert sorted(moved, reverse=True) == moved, "on FARGATE a run stays there"
