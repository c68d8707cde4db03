"""What an annotation says; that foreign texts do no harm in it is in `tests/laws/test_fuzz.py`.

Amounts: (0.0128 USD * 0.25 vCPU + 0.0014 USD * 0.5 GiB) * 99 s / 3600 s, as AWS charges it.
"""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.model.pricing import with_assumed
from chalicelib.core.rescue.actions import Annotate, Annotation, Artifact
from chalicelib.core.rescue.decide import decide
from tests.make import make_rate, make_run, make_snapshot, make_state, make_task

RATES = {("us-east-1", "x86_64", "FARGATE_SPOT"): make_rate("FARGATE_SPOT", "0.0128", "0.0014")}
OBSERVING = Policy(mode=Mode.OBSERVE, rates=RATES)
DRILL = make_task(stop_code="UserInitiated", stopped_reason="prefect-spot drill")


def annotation(*, tags: tuple[str, ...] = (), **changes: Any) -> Annotation:
    snapshot = make_snapshot(**{"policy": OBSERVING, "run": make_run(tags=tags), **changes})
    return next(a.annotation for a in decide(snapshot).actions if isinstance(a, Annotate))


def artifact_of(made: Annotation) -> Artifact:
    assert made.artifact is not None
    return made.artifact


ON_DEMAND = make_rate("FARGATE", "0.04", "0.004375")
ASSUMED = with_assumed({ON_DEMAND.key: ON_DEMAND}, Decimal("0.68"))
ASSUMED_LOSS = (
    "99 s until the exit, 0.00010725 USD, estimated, at an assumed rate; less, where task results"
)
CONTENTS: dict[str, tuple[dict[str, Any], str]] = {
    "count": ({"tags": ("spot-retries:2",)}, "Spot interruption 1 of 2"),
    "spent budget": ({"tags": ("spot-retries:0",)}, "interruption 1 (allowed on Spot: 0)"),
    "drill": ({"subject": DRILL}, "Drill 1 of 3"),
    "zone": ({}, "| Availability zone | us-east-1b |"),
    "time": ({}, "| Time | 2026-11-23 11:59:59 UTC |"),
    "wasted": ({}, "| Wasted | 99 s until the exit, 0.00010725 USD, estimated; less, where task"),
    "wasted, at an assumed rate": ({"policy": replace(OBSERVING, rates=ASSUMED)}, ASSUMED_LOSS),
    "no rate": (
        {"policy": replace(OBSERVING, rates={})},
        "| Wasted | 99 s until the exit; less, where task results were persisted; no rate known",
    ),
    "next step": ({}, "would be rerun on FARGATE_SPOT."),
    "next step, on demand": ({"tags": ("spot-retries:0",)}, "would be rerun on FARGATE."),
    "why": ({"tags": ("spot-retries:2",)}, "tag spot-retries:2"),
}


@pytest.mark.parametrize(("changes", "part"), CONTENTS.values(), ids=CONTENTS)
def test_the_artifact_shows(changes: dict[str, Any], part: str) -> None:
    assert part in artifact_of(annotation(**changes)).markdown.replace("\\", "")


NO_NETWORK = make_task(
    stop_code="TaskFailedToStart",
    stopped_reason="Timeout waiting for network interface provisioning to complete.",
    started_at=None,
)
NEVER = make_run(tags=("spot:never-rerun",))
IN_SHORT: dict[str, tuple[dict[str, Any], str]] = {
    "rerun": ({}, "would be rerun on FARGATE_SPOT: 1 of 3 interruptions on Spot (SPOT_RETRIES=3)"),
    "not rerun": ({"run": NEVER}, "the run stays Crashed: it is tagged spot:never-rerun"),
    "failed start": (
        {"subject": NO_NETWORK},
        "would be started again on FARGATE_SPOT: AWS, or",
    ),
    "warning": ({"subject": make_task(last_status="STOPPING", flow_container_stopped=False)}, ""),
}


@pytest.mark.parametrize(("changes", "why"), IN_SHORT.values(), ids=IN_SHORT)
def test_what_was_decided_and_why_is_on_record_for_explain(
    changes: dict[str, Any], why: str
) -> None:
    crashed = make_run(state=make_state(StateType.CRASHED))
    run = crashed if changes.get("subject") is NO_NETWORK else make_run()
    decision = decide(make_snapshot(**{"policy": OBSERVING, "run": run, **changes}))
    [record] = [a.record for a in decision.actions if isinstance(a, Annotate)]
    kept = [each.why for each in record.interruptions.values()]
    kept += [each.why for each in record.failed_starts.values()]
    assert len(kept) == 1
    assert kept[0].startswith(why)
    assert bool(kept[0]) is bool(why)


def test_the_artifact_and_its_table_begin_with_what_is_in_them() -> None:
    """Prefect's UI shows an empty header as an empty bar."""
    artifact = artifact_of(annotation())
    heading, _, table, rule, *_ = artifact.markdown.splitlines()
    assert artifact.key == "spot-interruption-11111111"
    assert heading == "## Spot interruption 1 of 3"
    assert table.startswith("| Cause | Spot interruption: ")
    assert rule == "|---|---|"


@pytest.mark.parametrize("mode", [Mode.RESCUE, Mode.OPT_IN])
def test_labels_count_interruptions_and_are_never_null(mode: Mode) -> None:
    paused = make_run(state=make_state(StateType.PAUSED), tags=("spot:rerun",))
    made = annotation(run=paused, policy=Policy(mode=mode))
    assert made.labels == {
        "prefect-spot.interruptions": 1,
        "prefect-spot.capacity": "FARGATE_SPOT",
    }
    assert made.tags == ("spot-interrupted",)
    assert [event.name for event in made.events] == ["prefect-spot.interrupted"]


@pytest.mark.parametrize("mode", Mode)
def test_a_warning_is_a_log_line_and_an_event_and_the_rest_waits_for_the_exit(mode: Mode) -> None:
    warning = make_task(last_status="RUNNING", flow_container_stopped=False)
    made = annotation(tags=("spot:rerun",), subject=warning, policy=Policy(mode=mode))
    assert (made.artifact, made.labels, made.tags) == (None, None, ())
    assert "Next: the container gets its stop timeout to exit" in made.log.message
    assert [event.name for event in made.events] == ["prefect-spot.interrupted"]
