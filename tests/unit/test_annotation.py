"""What people read, and that foreign texts do no harm in it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.model.text import escaped, one_line
from chalicelib.core.rescue.actions import Annotate, Annotation
from chalicelib.core.rescue.decide import decide
from chalicelib.core.rescue.snapshot import Snapshot
from tests.make import make_rate, make_run, make_snapshot, make_task

RATES = {("us-east-1", "x86_64", "FARGATE_SPOT"): make_rate("FARGATE_SPOT", "0.0128", "0.0014")}
OBSERVING = Policy(mode=Mode.OBSERVE, rates=RATES)


def annotation(snapshot: Snapshot) -> Annotation:
    return next(a.annotation for a in decide(snapshot).actions if isinstance(a, Annotate))


def observed(**changes: Any) -> Annotation:
    return annotation(make_snapshot(policy=OBSERVING, **changes))


def test_the_artifact_says_what_happened_and_what_comes_next() -> None:
    told = observed(run=make_run(tags=("spot-retries:2",)))
    assert told.artifact.key == "spot-interruption-11111111"
    assert [event.name for event in told.events] == ["prefect-spot.interrupted"]
    plain = told.artifact.markdown.replace("\\", "")
    assert "Spot interruption 1 of 2" in plain
    assert "us-east-1b" in plain
    assert "2026-11-23 11:59:59 UTC" in plain
    assert "at most 99 s" in plain
    # (0.0128 USD * 0.25 vCPU + 0.0014 USD * 0.5 GiB) * 99 s / 3600 s, as AWS charges it
    assert "at most 0.00010725 USD" in plain
    assert "would be rerun on FARGATE_SPOT" in plain
    assert "tag spot-retries:2" in plain


def test_the_artifacts_table_begins_with_what_is_in_it() -> None:
    """Prefect's UI shows an empty header as an empty bar."""
    heading, _, table, rule, *_ = observed().artifact.markdown.splitlines()
    assert heading == "## Spot interruption 1 of 3"
    assert table.startswith("| Cause | Spot interruption: ")
    assert rule == "|---|---|"


def test_a_spent_budget_is_told() -> None:
    plain = observed(run=make_run(tags=("spot-retries:0",))).artifact.markdown.replace("\\", "")
    assert "interruption 1 (allowed on Spot: 0)" in plain
    assert "would be rerun on FARGATE." in plain


def test_a_drill_is_called_a_drill() -> None:
    task = make_task(stop_code="UserInitiated", stopped_reason="prefect-spot drill")
    assert "Drill 1 of 3" in observed(task=task).artifact.markdown


def test_a_region_without_a_rate_gets_no_made_up_figure() -> None:
    snapshot = make_snapshot(policy=replace(OBSERVING, rates={}))
    assert "no rate known" in annotation(snapshot).artifact.markdown
    assert "USD" not in annotation(snapshot).artifact.markdown


@given(st.text())
def test_a_log_line_stays_one_short_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 200
    assert line.isprintable()


@given(st.text(alphabet="\\`*_{}[]()<>#+-.!|~&a \n\t\x00"))
def test_every_character_with_a_meaning_in_markdown_is_escaped(text: str) -> None:
    cell = escaped(text)
    assert "\n" not in cell
    rest = cell
    while "\\" in rest:
        before, _, after = rest.partition("\\")
        assert not set(before) & set("`*_{}[]()<>#+-.!|~&")
        rest = after[1:]
    assert not set(rest) & set("`*_{}[]()<>#+-.!|~&")


@pytest.mark.parametrize("mode", [Mode.RESCUE, Mode.OPT_IN])
def test_labels_count_interruptions_and_are_never_null(mode: Mode) -> None:
    run = make_run(tags=("spot:rerun",))
    warning = make_task(last_status="RUNNING", flow_container_stopped=False)
    told = annotation(make_snapshot(run=run, task=warning, policy=Policy(mode=mode)))
    assert told.labels == {
        "prefect-spot.interruptions": 1,
        "prefect-spot.capacity": "FARGATE_SPOT",
    }
    assert told.tags == ("spot-interrupted",)
