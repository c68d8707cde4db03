"""The deadline: how its tag is read, what the worst case takes, and where the decision turns."""

from datetime import timedelta
from typing import Any

import pytest

from chalicelib.core.model.policy import has_deadline_tag
from chalicelib.core.policies.deadline import (
    Deadline,
    deadline_of,
    deadline_opinion,
)
from chalicelib.core.policies.facts import (
    GoOnDemand,
    Missing,
    Opinion,
    PreviousRuns,
    Progress,
    RestartOverhead,
    StayOnSpot,
    facts_of,
)
from tests.make import NOW, make_run

FACTS: dict[str, Any] = {
    "past": PreviousRuns((600.0, 800.0, 800.0, 800.0)),  # so 1000 s of work, at most
    "progress": Progress(),
    "restart_overhead": RestartOverhead(100, 30),
}


def opinion(left: float, *, delay_seconds: float = 0, **facts: Any) -> Opinion:
    """On a rerun, `left` seconds before the deadline of a run scheduled an hour ago."""
    run = make_run(
        tags=(f"spot-deadline:{int(3600 + left)}s",),
        expected_start=NOW - timedelta(hours=1) - timedelta(seconds=int(left) - left),
    )
    gathered = facts_of(**{**FACTS, **facts})
    return deadline_opinion(run, gathered, NOW, delay_seconds)


@pytest.mark.parametrize(
    ("tags", "seconds"),
    [
        (("mine", "spot-deadline:90m"), 5400),
        (("spot-deadline:1h30m",), 5400),
        (("spot-deadline:2d",), 172_800),
        (("spot-deadline:45s",), 45),
        (("spot-deadline:1d1h1m1s",), 90_061),
        (("spot-deadline:2h", "spot-deadline:soon", "spot-deadline:90m"), 5400),
    ],
)
def test_the_tightest_deadline_that_can_be_read_counts(tags: tuple[str, ...], seconds: int) -> None:
    deadline = deadline_of(tags)
    assert isinstance(deadline, Deadline)
    assert (deadline.seconds, deadline.tag in tags) == (seconds, True)


@pytest.mark.parametrize("tag", ["", "soon", "90", "1.5h", "-5m", "0m", "30m1h", "٩m", "9" * 40])
def test_one_that_cannot_be_read_is_named(tag: str) -> None:
    deadline = deadline_of(["mine", f"spot-deadline:{tag}"])
    assert isinstance(deadline, Missing)
    assert f"spot-deadline:{tag}" in str(deadline)
    assert "90m" in str(deadline)


def test_the_name_of_an_unreadable_tag_fits_a_line_and_a_table() -> None:
    named = str(deadline_of(["spot-deadline:\ud800\n# " + "x" * 10_000]))
    assert named.isprintable()
    assert len(named) < 300
    assert named.encode()


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


EQUAL = (800.0,) * 4
WHOLE = PreviousRuns((1000.0,) * 9, undisturbed=9, whole_seconds=(1000.0,) * 8 + (1200.0,))


WORST_CASES: dict[str, tuple[float, dict[str, Any]]] = {
    "the longest unit twice": (1300, {"past": PreviousRuns(EQUAL, (80.0,) * 10)}),
    # 200 + 1000 + 240 * 1000 / 400
    "units grow with the run": (1800, {"past": PreviousRuns(EQUAL, (80.0, 240.0, 80.0))}),
    "no checkpoints": (2423, {"past": WHOLE}),
    "with checkpoints, the whole time of every run": (
        1700,
        {"past": WHOLE, "progress": Progress(True, unit_seconds=(100.0,))},
    ),
    "what is checkpointed is not repeated": (
        900,
        {"progress": Progress(True, 400, unit_seconds=(20.0, 100.0))},
    ),
    "what it has used": (3200, {"progress": Progress(longest_seconds=1500)}),
    "the set delay": (2400, {"delay_seconds": 100}),
    "one part in twenty more": (2300, {"past": PreviousRuns((1000.0,) * 20)}),
    "the longest's lead more": (2400, {"past": PreviousRuns((900.0,) * 19 + (1000.0,))}),
    "one part in five more": (2600, {"past": PreviousRuns((900.0,) * 4 + (1000.0,))}),
    "a quarter more, at most": (2700, {"past": PreviousRuns((1000.0,) * 2)}),
}


@pytest.mark.parametrize(("needed", "facts"), WORST_CASES.values(), ids=WORST_CASES)
def test_what_the_worst_case_takes(needed: float, facts: dict[str, Any]) -> None:
    assert isinstance(opinion(needed, **facts), StayOnSpot)
    assert isinstance(opinion(needed - 1, **facts), GoOnDemand)


def test_the_reason_holds_what_is_needed_and_what_is_left() -> None:
    made = opinion(1800)
    assert isinstance(made, GoOnDemand)
    assert "36.7 min with one interruption" in made.why
    assert "spot-deadline:5400s leaves 30.0 min" in made.why


@pytest.mark.parametrize("fact", FACTS)
def test_without_a_fact_it_has_no_opinion(fact: str) -> None:
    lacking: dict[str, Any] = {fact: Missing(fact, "it could not be read")}
    assert opinion(0, **lacking) == lacking[fact]


def test_without_a_scheduled_start_it_has_no_opinion() -> None:
    run = make_run(tags=("spot-deadline:90m",))
    opinion = deadline_opinion(run, facts_of(**FACTS), NOW)
    assert opinion == Missing("the scheduled start", "Prefect did not report it")
