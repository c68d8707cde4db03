"""The deadline: how its tag is read, what the worst case takes, and where the decision turns."""

from datetime import timedelta
from typing import Any

import pytest

from chalicelib.core.guards.deadline import (
    Deadline,
    deadline_of,
    deadline_opinion,
    is_in_time,
)
from chalicelib.core.guards.facts import (
    Changeover,
    GuardFacts,
    Missing,
    PastRuns,
    Progress,
    has_deadline_tag,
)
from chalicelib.core.guards.opinion import GoOnDemand, Opinion, StayOnSpot
from chalicelib.core.situation import Policy
from tests.make import NOW, make_run, make_situation

FACTS: dict[str, Any] = {
    "past": PastRuns((600.0, 800.0, 800.0, 800.0)),  # so 1000 s of work, at most
    "progress": Progress(),
    "changeover": Changeover(100, 30),
}


def opinion(left: float, policy: Policy | None = None, **facts: Any) -> Opinion:
    """On a rerun, `left` seconds before the deadline of a run scheduled an hour ago."""
    run = make_run(
        tags=(f"spot-deadline:{int(3600 + left)}s",),
        expected_start=NOW - timedelta(hours=1) - timedelta(seconds=int(left) - left),
    )
    gathered = GuardFacts(**{**FACTS, **facts})
    return deadline_opinion(make_situation(run=run, policy=policy or Policy(), facts=gathered))


@pytest.mark.parametrize(
    ("tag", "seconds"),
    [("90m", 5400), ("1h30m", 5400), ("2d", 172_800), ("45s", 45), ("1d1h1m1s", 90_061)],
)
def test_a_deadline_is_read_in_days_hours_minutes_and_seconds(tag: str, seconds: int) -> None:
    tags = ("mine", f"spot-deadline:{tag}")
    assert deadline_of(tags) == Deadline(seconds, f"spot-deadline:{tag}")


@pytest.mark.parametrize("tag", ["", "soon", "90", "1.5h", "-5m", "0m", "30m1h", "٩m", "9" * 40])
def test_one_that_cannot_be_read_is_passed_over_and_named(tag: str) -> None:
    deadline = deadline_of(["mine", f"spot-deadline:{tag}"])
    assert isinstance(deadline, Missing)
    assert f"spot-deadline:{tag}" in str(deadline)
    assert "90m" in str(deadline)


def test_whatever_is_in_a_tag_its_naming_fits_a_line_and_a_table() -> None:
    told = str(deadline_of(["spot-deadline:\ud800\n# " + "x" * 10_000]))
    assert told.isprintable()
    assert len(told) < 300
    assert told.encode()


def test_the_tightest_of_several_counts_and_those_that_cannot_be_read_do_not() -> None:
    tags = ("spot-deadline:2h", "spot-deadline:soon", "spot-deadline:90m")
    assert deadline_of(tags) == Deadline(5400, "spot-deadline:90m")


def test_only_its_own_tag_turns_it_on() -> None:
    assert has_deadline_tag(["spot-deadline:"])
    assert not has_deadline_tag(["spot-retries:3", "my-spot-deadline:9m"])


@pytest.mark.parametrize(
    ("left", "kind"),
    [(2200.001, StayOnSpot), (2200, StayOnSpot), (2199.999, GoOnDemand), (-1, GoOnDemand)],
)
def test_without_persistence_there_must_be_time_for_all_of_it_twice(
    left: float, kind: type
) -> None:
    assert isinstance(opinion(left), kind)


@pytest.mark.parametrize(("left", "kind"), [(1300, StayOnSpot), (1299.999, GoOnDemand)])
def test_with_it_there_must_be_time_for_the_longest_piece_twice(left: float, kind: type) -> None:
    kept = PastRuns((800.0,) * 4, piece_seconds=(80.0,) * 10)
    assert isinstance(opinion(left, past=kept), kind)


def test_in_a_longer_run_the_pieces_may_be_longer_too() -> None:
    past = PastRuns((800.0,) * 4, piece_seconds=(80.0, 240.0, 80.0))
    assert isinstance(opinion(1800, past=past), StayOnSpot)  # 200 + 1000 + 240 * 1000 / 400
    assert isinstance(opinion(1799, past=past), GoOnDemand)


def test_where_tasks_are_kept_the_whole_time_of_every_run_counts() -> None:
    few = PastRuns((1000.0,) * 9, undisturbed=9, whole_seconds=(1000.0,) * 8 + (1200.0,))
    assert isinstance(opinion(2423, past=few), StayOnSpot)
    progress = Progress(keeps=True, piece_seconds=(100.0,))
    assert isinstance(opinion(1699, past=few, progress=progress), GoOnDemand)
    assert isinstance(opinion(1700, past=few, progress=progress), StayOnSpot)


@pytest.mark.parametrize(("left", "kind"), [(900, StayOnSpot), (899.999, GoOnDemand)])
def test_what_is_kept_need_not_be_done_again(left: float, kind: type) -> None:
    progress = Progress(keeps=True, kept_seconds=400, piece_seconds=(20.0, 100.0))
    assert isinstance(opinion(left, progress=progress), kind)


def test_the_longest_of_its_like_counts_and_never_less_than_the_run_has_used() -> None:
    assert isinstance(opinion(2200), StayOnSpot)
    used = Progress(longest_seconds=1500)
    assert isinstance(opinion(3199, progress=used), GoOnDemand)
    assert isinstance(opinion(3200, progress=used), StayOnSpot)


@pytest.mark.parametrize(("left", "kind"), [(2400, StayOnSpot), (2399, GoOnDemand)])
def test_the_set_delay_of_a_rerun_on_spot_is_allowed_for(left: float, kind: type) -> None:
    assert isinstance(opinion(left, Policy(rerun_delay_seconds=100)), kind)


@pytest.mark.parametrize(
    ("past", "needed"),
    [
        pytest.param((1000.0,) * 20, 2300, id="one part in twenty more"),
        pytest.param((900.0,) * 19 + (1000.0,), 2400, id="the longest's lead more"),
        pytest.param((900.0,) * 4 + (1000.0,), 2600, id="one part in five more"),
        pytest.param((1000.0,) * 2, 2700, id="a quarter more, at most"),
    ],
)
def test_a_run_may_be_longer_than_any_before_it(past: tuple[float, ...], needed: float) -> None:
    assert isinstance(opinion(needed, past=PastRuns(past)), StayOnSpot)
    assert isinstance(opinion(needed - 1, past=PastRuns(past)), GoOnDemand)


def test_at_the_very_moment_of_the_deadline_it_is_in_time() -> None:
    assert is_in_time(60.0, 60.0)
    assert is_in_time(59.9, 60.0)
    assert not is_in_time(60.1, 60.0)


def test_what_is_needed_and_what_is_left_is_told() -> None:
    told = opinion(1800)
    assert isinstance(told, GoOnDemand)
    assert "36.7 min with one interruption" in told.why
    assert "spot-deadline:5400s leaves 30.0 min" in told.why


@pytest.mark.parametrize("fact", ["past", "progress", "changeover"])
def test_without_a_fact_it_has_no_opinion(fact: str) -> None:
    missing = Missing(fact, "it could not be read")
    lacking: dict[str, Any] = {fact: missing}
    assert opinion(0, **lacking) == missing
    never_gathered: dict[str, Any] = {fact: None}
    assert isinstance(opinion(0, **never_gathered), Missing)


def test_without_a_scheduled_start_it_has_no_opinion() -> None:
    run = make_run(tags=("spot-deadline:90m",))
    situation = make_situation(run=run, facts=GuardFacts(**FACTS))
    assert deadline_opinion(situation) == Missing("the scheduled start", "Prefect did not tell it")
