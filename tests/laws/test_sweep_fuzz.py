"""Whatever Prefect and ECS hold, `sweep` comes to its end, and writes no foreign markup.

In process, with Prefect's twin and a table in moto; Hypothesis makes up a run, what people and
automations put on it, its child, and its task as ECS describes it.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chalicelib.core.run import FINAL, StateType
from chalicelib.core.situation import Mode, Policy
from chalicelib.core.task import FLOW_RUN_ID_TAG, NO_CAPACITY_REASON, Task, parse_task
from chalicelib.core.world import World
from chalicelib.errors import PrefectSpotError
from chalicelib.functions.sweep import SweepReport, sweep
from tests.laws.universe import LEASE, Tables, Universe
from tests.make import CLUSTER_ARN, NOW, TASK_ARN, make_event
from tests.unit.test_fuzz import (
    ARTIFACT,
    HOSTILE,
    LINKS_ITSELF,
    LONGEST_LINE,
    NO_MARKUP,
    PARSER,
    RATES,
    TABLE,
    details,
    hostile_mixtures,
    jsons,
    marked_arns,
    texts,
    tokens,
)
from tests.unit.test_react import Lines

often = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

OURS = {"spot-interrupted", "spot-on-demand"}
CAPACITY = {"launch_type", "capacity_provider_strategy"}
MINUTE, HOUR = 60, 3600

stored_texts = texts.map(lambda text: text.encode(errors="replace").decode())
"""What a database gives back: JSON's halves of surrogate pairs are in none."""

stories = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([kind for kind in StateType if kind is not StateType.UNKNOWN]),
        "state": texts | st.sampled_from(["AwaitingRetry", "Running"]),
        "message": texts | st.just(NO_CAPACITY_REASON),
        "name": texts,
        "tags": st.lists(texts | st.sampled_from(["spot-retries:0", "spot:rerun"]), max_size=3),
        "variables": st.dictionaries(texts, jsons, max_size=3),
        "pid": st.none() | stored_texts | st.just(f"{CLUSTER_ARN}::{TASK_ARN}"),
        "mode": st.sampled_from(Mode),
        "seconds": st.sampled_from([MINUTE, 10 * MINUTE, HOUR + 5 * MINUTE]),
        "is_tagged": st.booleans(),
        "child": st.none() | texts,
    }
)
ORDINARY: dict[str, Any] = {
    "kind": StateType.RUNNING,
    "state": "Running",
    "message": "",
    "name": "brave-otter",
    "tags": [],
    "variables": {},
    "pid": f"{CLUSTER_ARN}::{TASK_ARN}",
    "mode": Mode.RESCUE,
    "seconds": 10 * MINUTE,
    "is_tagged": True,
    "child": None,
}


@dataclass
class Stand:
    """One run of a story, in a universe of its own."""

    universe: Universe
    run_id: UUID
    log: Lines

    @property
    def run(self) -> Any:
        return self.universe.prefect.runs[self.run_id]

    @property
    def world(self) -> World:
        return replace(self.universe.world(), log=self.log)

    @property
    def told(self) -> str:
        """All that we wrote, anywhere, as it goes over the wire: UTF-8 or an error."""
        prefect = self.universe.prefect
        written = [prefect.log_lines, prefect.artifacts, *prefect.events.values(), self.log.lines]
        return json.dumps(written, default=str, ensure_ascii=False).encode().decode()

    @property
    def messages(self) -> list[str]:
        """Of the states that we set, and of the log lines on the run."""
        runs = self.universe.prefect.runs.values()
        states = [state for run in runs for state in run.states if state.timestamp >= NOW]
        return [s.message for s in states] + [x.message for x in self.universe.prefect.log_lines]

    def swept(self, times: int = 2) -> None:
        """Sweep: each comes to its end, or raises an error that has it come again."""
        for _ in range(times):
            self.universe.passes(10 * MINUTE)
            with suppress(PrefectSpotError):
                assert isinstance(sweep(self.world, {}), SweepReport)
        self.universe.records().acquire(self.run_id, self.universe.now, LEASE)


def stand(tables: Tables, story: Mapping[str, Any], detail: Mapping[str, Any]) -> Stand:
    universe = tables.universe(Policy(mode=story["mode"], rates=RATES))
    prefect = universe.prefect
    run_id = prefect.create_run(tags=story["tags"], job_variables=story["variables"])
    prefect.worker_picks_up(run_id)
    prefect.engine_starts(run_id)
    run = prefect.runs[run_id]
    if story["child"] is not None:
        child = prefect.runs[prefect.create_child(run_id)]
        child.name = story["child"]
        child.states[-1] = replace(child.state, name=story["child"])
    before = NOW - timedelta(seconds=story["seconds"])
    run.name, run.infrastructure_pid = story["name"], story["pid"]
    said = {"type": story["kind"], "name": story["state"], "message": story["message"]}
    run.states[-1] = replace(run.state, **said)
    for each in prefect.runs.values():
        each.states = [replace(state, timestamp=before) for state in each.states]
        each.expected_start = before
    run.ended_at = before if story["kind"] in FINAL else None
    described = make_event(detail)["detail"]
    if story["is_tagged"]:
        described["tags"] = [{"key": FLOW_RUN_ID_TAG, "value": str(run_id)}]
        described.pop("overrides", None)
    task = parse_task(described)
    if isinstance(task, Task):
        universe.tasks[task.arn] = task
    return Stand(universe, run_id, Lines())


@often
@given(story=stories, detail=details())
@example(story=ORDINARY, detail={})
@example(story=ORDINARY, detail={"stopCode": "Other", "stoppedReason": HOSTILE[1]})
@example(story=ORDINARY, detail={"stopCode": HOSTILE[1], "stoppedReason": HOSTILE[5]})
@example(story=ORDINARY, detail={"cpu": "9" * 30, "availabilityZone": HOSTILE[0]})
@example(story=ORDINARY, detail={"createdAt": None, "executionStoppedAt": None})
@example(story=ORDINARY | {"kind": StateType.CANCELLING}, detail={"stoppedReason": HOSTILE[1]})
@example(story=ORDINARY | {"kind": StateType.CRASHED, "child": HOSTILE[1]}, detail={})
@example(
    story=ORDINARY | {"kind": StateType.CRASHED, "message": NO_CAPACITY_REASON + HOSTILE[1]},
    detail={"taskArn": None},
)
def test_whatever_a_run_and_its_task_hold_a_sweep_comes_to_its_end(
    tables: Tables, story: dict[str, Any], detail: dict[str, Any]
) -> None:
    here = stand(tables, story, detail)
    here.swept()
    assert len(here.told) < 50_000, "foreign text was not cut"
    for message in here.messages:
        assert message.isprintable()
        assert len(message) <= LONGEST_LINE
    assert [tag for tag in here.run.tags if tag not in OURS] == [
        tag for tag in story["tags"] if tag not in OURS
    ]
    before = {name: v for name, v in story["variables"].items() if name not in CAPACITY}
    after = {name: v for name, v in here.run.job_variables.items() if name not in CAPACITY}
    assert repr(after) == repr(before)


def test_the_ordinary_story_is_one_that_sweep_repairs(tables: Tables) -> None:
    here = stand(tables, ORDINARY, {})
    here.swept(1)
    assert here.universe.prefect.is_due(here.run_id)
    assert here.universe.prefect.artifacts


foreign_pids = st.sampled_from(
    [
        CLUSTER_ARN.replace("prefect-spot-dev", "others"),
        CLUSTER_ARN.replace("prefect-spot-dev", "prefect-spot-dev "),
        f"{CLUSTER_ARN}/cluster",
        "others",
    ]
).map(lambda cluster: f"{cluster}::{TASK_ARN}")


@often
@given(story=stories, detail=details(), pid=foreign_pids)
def test_a_run_in_a_foreign_cluster_is_not_touched(
    tables: Tables, story: dict[str, Any], detail: dict[str, Any], pid: str
) -> None:
    here = stand(tables, story | {"pid": pid}, detail)
    states = list(here.run.states)
    here.swept()
    assert here.run.states == states
    assert not {"propose_state", "change_run", "write_log"} & set(here.universe.prefect.calls)


@often
@given(
    reason=hostile_mixtures,
    zone=hostile_mixtures,
    arn=marked_arns,
    state=hostile_mixtures,
    kind=st.sampled_from([StateType.RUNNING, StateType.CRASHED, StateType.PENDING]),
    mode=st.sampled_from(Mode),
    tags=st.sampled_from([[], ["spot-retries:0"], ["spot:never-rerun"]]),
)
def test_no_foreign_text_becomes_markup(
    tables: Tables,
    reason: str,
    zone: str,
    arn: str,
    state: str,
    kind: StateType,
    mode: Mode,
    tags: list[str],
) -> None:
    story = {"kind": kind, "state": state, "name": state, "mode": mode, "tags": tags}
    detail = {
        "stoppedReason": reason,
        "availabilityZone": zone,
        "taskArn": f"{TASK_ARN}{arn}",
        "lastStatus": "STOPPED",
    }
    here = stand(tables, ORDINARY | story | {"pid": None}, detail)
    here.swept(1)
    artifacts = here.universe.prefect.artifacts
    assert artifacts, "nothing was told: this shows nothing"
    for artifact in artifacts:
        found = [token.type for token in tokens(artifact.markdown)]
        assert set(found) <= NO_MARKUP | TABLE
        assert {name: found.count(name) for name in ARTIFACT} == ARTIFACT
        assert {token.type for token in tokens(artifact.description)} <= NO_MARKUP
        for text in (artifact.markdown, artifact.description):
            assert not LINKS_ITSELF.search(text)
            assert not re.search(r"<(script|a|img|h1|code|pre|li|hr|del)\b", PARSER.render(text))
