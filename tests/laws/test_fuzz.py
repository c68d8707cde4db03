"""Whatever comes as an event, and whatever Prefect and ECS hold: an answer, and no foreign markup.

Hypothesis makes up an event, the run it is about, what people and automations put on it, its child,
and its task as ECS describes it. `react` answers with a verdict or an error of ours; `sweep` comes
to its end.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from chalicelib.core.model.ecs_task import FLOW_RUN_ID_TAG, NO_CAPACITY_REASON, Task, parse_task
from chalicelib.core.model.flow_run import FINAL_STATES, StateType
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.rescue.actions import Decision, Verdict
from chalicelib.errors import PrefectSpotError
from chalicelib.functions.react import react
from chalicelib.functions.sweep import SweepReport, sweep
from tests.laws.guarded import RATES
from tests.laws.universe import LEASE, Lines, Universe
from tests.make import ACCOUNT, CLUSTER_ARN, NOW, RUN_ID, TASK_ARN, make_event

often = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))

LONGEST_LINE = 1000
OURS = {"spot-interrupted", "spot-on-demand"}
CAPACITY = {"launch_type", "capacity_provider_strategy"}
MINUTE, HOUR = 60, 3600

HOSTILE = (
    "|</td><script>alert(1)</script><img src=x onerror=alert(1)>",
    "\n\n# Title\n\n- list\n\n> quote\n\n---\n\n    code\n\n```\ncode\n```\n",
    "[x](javascript:alert(1)) ![i](http://evil.example/i.png) [r]\n\n[r]: http://evil.example",
    "<https://evil.example> https://evil.example www.evil.example a@evil.example",
    "`code` **bold** _em_ ~~gone~~ $$x$$ &lt;b&gt; &#60;script&#62; \\",
    "\\<b>\\\\<i>\\\\\\<u> \x00\x1b[31m\u202e\u2028\ud800\U0001f525",
    "{{ job.secret }} ${AWS_SECRET} %s {0} ' OR 1=1 --",
    "9" * 5000,
    "999999999999999999999999999999",
    "-1",
    "x" * 300_000,
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-23:59",
    "{11111111-2222-4333-8444-555555555555}",
    "prefect-spot drill",
    "Your Spot Task was interrupted",
    "FARGATE",
    "RUNNING",
    "STOPPED",
)

texts = st.text(st.characters(exclude_categories=()), max_size=60) | st.sampled_from(HOSTILE)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
jsons = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
ORDINARY: Mapping[str, Any] = make_event()["detail"]
FIELDS = (*ORDINARY, "stoppedAt", "stoppingAt", "attributes", "tags", "group")

pairs = st.fixed_dictionaries({}, optional={"name": texts, "value": texts, "key": texts})
attributes = pairs | st.just({"name": "ecs.cpu-architecture", "value": HOSTILE[0]})
containers = st.fixed_dictionaries({}, optional={"name": texts, "lastStatus": texts, "x": jsons})
own_variable = st.just({"name": "PREFECT__FLOW_RUN_ID", "value": str(RUN_ID)})
overrides = st.fixed_dictionaries(
    {"containerOverrides": st.lists(
        st.fixed_dictionaries({"environment": st.lists(pairs | own_variable | jsons, max_size=4)}),
        max_size=3,
    )}
)  # fmt: skip
shaped: Mapping[str, st.SearchStrategy[Any]] = {
    "attributes": st.lists(attributes, max_size=3),
    "tags": st.lists(pairs, max_size=3),
    "containers": st.lists(containers, max_size=3),
    "overrides": overrides,
}


@st.composite
def details(draw: st.DrawFn) -> dict[str, Any]:
    """The changes to an ordinary event's detail: some fields get what they should not hold."""
    names = draw(st.lists(st.sampled_from(FIELDS), unique=True, max_size=6))
    return {name: draw(shaped.get(name, st.nothing()) | texts | jsons) for name in names}


stored_texts = texts.map(lambda text: text.encode(errors="replace").decode())
"""What a database gives back: JSON's halves of surrogate pairs are in none."""

stories = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(StateType),
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
ORDINARY_STORY: dict[str, Any] = {
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
    """One run of a story, in a universe of its own, and an event about its task."""

    universe: Universe
    detail: Mapping[str, Any]
    log: Lines

    @property
    def run(self) -> Any:
        return self.universe.prefect.runs[RUN_ID]

    @property
    def calls(self) -> list[str]:
        """Of the newest handler."""
        assert self.universe.wire is not None
        return self.universe.wire.calls

    @property
    def written(self) -> str:
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


def stand(story: Mapping[str, Any], detail: Mapping[str, Any]) -> Stand:
    policy, log = Policy(mode=story["mode"], rates=RATES), Lines()
    universe = Universe(policy, log=log)
    prefect = universe.prefect
    run_id = prefect.create_run(tags=story["tags"], job_variables=story["variables"])
    prefect.worker_picks_up(run_id)
    prefect.engine_starts(run_id)
    run = prefect.runs[RUN_ID] = prefect.runs.pop(run_id)
    run.id, run.name, run.infrastructure_pid = RUN_ID, story["name"], story["pid"]
    if story["child"] is not None:
        child = prefect.runs[prefect.create_child(RUN_ID)]
        child.name = story["child"]
        child.states[-1] = replace(child.state, name=story["child"])
    said = {"type": story["kind"], "name": story["state"], "message": story["message"]}
    run.states[-1] = replace(run.state, **said)
    before = NOW - timedelta(seconds=story["seconds"])
    for each in prefect.runs.values():
        each.states = [replace(state, timestamp=before) for state in each.states]
        each.expected_start = before
    run.ended_at = before if story["kind"] in FINAL_STATES else None
    described = make_event(detail)["detail"]
    if story["is_tagged"]:
        described["tags"] = [{"key": FLOW_RUN_ID_TAG, "value": str(RUN_ID)}]
        described.pop("overrides", None)
    task = parse_task(described)
    if isinstance(task, Task):
        universe.tasks[task.arn] = task
    return Stand(universe, detail, log)


def reacts(here: Stand) -> None:
    """`react` answers twice, the second time an event that holds nothing but its detail."""
    bare = make_event({**here.detail, "lastStatus": "STOPPED"})
    bare = {name: bare[name] for name in ("source", "detail-type", "detail")}
    for event in (make_event(here.detail), bare):
        with suppress(PrefectSpotError):
            decision: object = react(here.universe.context(), event)
            assert isinstance(decision, Decision)
            assert isinstance(decision.verdict, Verdict)


def sweeps(here: Stand) -> None:
    for _ in range(2):
        here.universe.passes(10 * MINUTE)
        with suppress(PrefectSpotError):
            assert isinstance(sweep(here.universe.context(), {}), SweepReport)


handlers = pytest.mark.parametrize("handler", [reacts, sweeps])


@handlers
@often
@given(story=stories, detail=details())
@example(story=ORDINARY_STORY, detail={"cpu": "9" * 5000})
@example(story=ORDINARY_STORY | {"mode": Mode.OBSERVE}, detail={"cpu": "9" * 30})
@example(story=ORDINARY_STORY, detail={"executionStoppedAt": "9999-12-31T23:59:59Z"})
@example(story=ORDINARY_STORY, detail={"createdAt": None, "executionStoppedAt": None})
@example(story=ORDINARY_STORY, detail={"taskArn": f"{TASK_ARN}\ud800"})
@example(story=ORDINARY_STORY, detail={"taskArn": f"{TASK_ARN}{'x' * 300_000}"})
@example(story=ORDINARY_STORY, detail={"stopCode": HOSTILE[1], "stoppedReason": HOSTILE[5]})
@example(story=ORDINARY_STORY | {"state": HOSTILE[1]}, detail={"stoppedReason": HOSTILE[1]})
@example(
    story=ORDINARY_STORY | {"kind": StateType.COMPLETED, "state": "x" * 300_000},
    detail={"availabilityZone": HOSTILE[0]},
)
@example(
    story=ORDINARY_STORY | {"kind": StateType.CANCELLING}, detail={"stoppedReason": HOSTILE[1]}
)
@example(story=ORDINARY_STORY | {"kind": StateType.CRASHED, "child": HOSTILE[1]}, detail={})
@example(
    story=ORDINARY_STORY | {"kind": StateType.CRASHED, "message": NO_CAPACITY_REASON + HOSTILE[1]},
    detail={"taskArn": None},
)
def test_whatever_stands_in_events_runs_and_tasks_there_is_an_answer(
    handler: Callable[[Stand], None], story: dict[str, Any], detail: dict[str, Any]
) -> None:
    here = stand(story, detail)
    handler(here)
    here.universe.records().acquire(RUN_ID, here.universe.now, LEASE)  # it was given back
    assert len(here.written) < 50_000, "foreign text was not cut"
    for message in here.messages:
        assert message.isprintable()
        assert len(message) <= LONGEST_LINE
    own = [tag for tag in story["tags"] if tag not in OURS]
    assert [tag for tag in here.run.tags if tag not in OURS] == own
    before = {name: v for name, v in story["variables"].items() if name not in CAPACITY}
    after = {name: v for name, v in here.run.job_variables.items() if name not in CAPACITY}
    assert repr(after) == repr(before)


@often
@given(event=jsons)
@example(event=[])
@example(event={"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": []})
def test_any_json_is_ignored_and_costs_nothing(event: object) -> None:
    here = stand(ORDINARY_STORY, {})
    assert react(here.universe.context(), event).verdict is Verdict.IGNORE
    assert here.calls == []


foreign_clusters = st.sampled_from(
    [
        "prefect-spot",
        CLUSTER_ARN.upper(),
        CLUSTER_ARN.replace("cluster/", "cluster/cluster-"),
        CLUSTER_ARN.replace("prefect-spot-dev", "prefect-spot-dev "),
        f"{CLUSTER_ARN}/cluster",
    ]
)
foreign_accounts = st.from_regex(r"[1-9][0-9]{11}", fullmatch=True).filter(ACCOUNT.__ne__)
foreigners = (
    (foreign_clusters | texts.map(lambda text: f"{CLUSTER_ARN}{text or '2'}")).map(
        lambda cluster: {"clusterArn": cluster}
    )
) | foreign_accounts.map(lambda account: {"taskArn": TASK_ARN.replace(ACCOUNT, account)})


@often
@given(story=stories, detail=details(), foreign=foreigners)
def test_an_event_of_a_foreign_cluster_or_account_costs_nothing(
    story: dict[str, Any], detail: dict[str, Any], foreign: dict[str, str]
) -> None:
    here = stand(story, {})
    event = make_event({**detail, **foreign})
    assert react(here.universe.context(), event).verdict is Verdict.IGNORE
    assert here.calls == []


@often
@given(story=stories, detail=details(), cluster=foreign_clusters)
def test_sweep_does_not_touch_a_run_in_a_foreign_cluster(
    story: dict[str, Any], detail: dict[str, Any], cluster: str
) -> None:
    here = stand(story | {"pid": f"{cluster}::{TASK_ARN}"}, detail)
    states = list(here.run.states)
    sweeps(here)
    assert here.run.states == states
    assert not {"propose_state", "change_run", "write_log"} & set(here.universe.prefect.calls)


# What people see. Prefect renders an artifact's description as Markdown too.

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
LINKS_ITSELF = re.compile(r"(?:https?|ftp|mailto|javascript):|www\.|\w@\w", re.IGNORECASE)
"""What renderers of GitHub's dialect turn into a link without any markup around it."""

ARTIFACT = {
    "heading_open": 1,
    "table_open": 1,
    "tr_open": 7,
    "th_open": 2,
    "td_open": 12,
    "strong_open": 2,
}
NO_MARKUP = {"inline", "text", "text_special", "paragraph_open", "paragraph_close"}
PARTS = ("table", "thead", "tbody", "tr", "th", "td", "heading", "strong")
TABLE = {f"{part}_{end}" for part in PARTS for end in ("open", "close")}


def tokens(markdown: str) -> list[Token]:
    blocks = PARSER.parse(markdown)
    return blocks + [child for block in blocks for child in block.children or []]


marked_arns = st.sampled_from(
    ["", "|<b>x</b>|", "[x](http://y)", "`_*#~", "www.evil.example", "a@b"]
)
hostile_mixtures = st.lists(st.sampled_from(HOSTILE) | texts, min_size=1, max_size=4).map("".join)


@handlers
@often
@given(
    reason=hostile_mixtures,
    zone=hostile_mixtures,
    arn=marked_arns,
    state=hostile_mixtures,
    kind=st.sampled_from(
        [StateType.RUNNING, StateType.COMPLETED, StateType.PAUSED, StateType.CRASHED]
    ),
    architecture=hostile_mixtures,
    status=st.sampled_from(["RUNNING", "STOPPED"]),
    mode=st.sampled_from(Mode),
    tags=st.sampled_from([[], ["spot-retries:0"], ["spot:never-rerun"]]),
)
@example(
    reason=HOSTILE[3],
    zone=HOSTILE[3],
    arn="|www.evil.example|",
    state=HOSTILE[3],
    kind=StateType.COMPLETED,
    architecture="",
    status="STOPPED",
    mode=Mode.RESCUE,
    tags=[],
)
def test_no_foreign_text_becomes_markup(
    handler: Callable[[Stand], None],
    reason: str,
    zone: str,
    arn: str,
    architecture: str,
    status: str,
    **story: Any,
) -> None:
    detail = {
        "stoppedReason": reason,
        "availabilityZone": zone,
        "taskArn": f"{TASK_ARN}{arn}",
        "attributes": [{"name": "ecs.cpu-architecture", "value": architecture}],
        "lastStatus": status,
    }
    here = stand(ORDINARY_STORY | story | {"name": story["state"], "pid": None}, detail)
    handler(here)
    for artifact in here.universe.prefect.artifacts:
        found = [token.type for token in tokens(artifact.markdown)]
        assert set(found) <= NO_MARKUP | TABLE
        assert {name: found.count(name) for name in ARTIFACT} == ARTIFACT
        assert {token.type for token in tokens(artifact.description)} <= NO_MARKUP
        for text in (artifact.markdown, artifact.description):
            assert not LINKS_ITSELF.search(text)
            rendered = PARSER.render(text)
            assert not re.search(r"<(script|a|img|h1|h3|code|pre|li|hr|blockquote|del)\b", rendered)


@handlers
def test_the_ordinary_story_is_annotated_and_markup_would_be_seen(
    handler: Callable[[Stand], None],
) -> None:
    here = stand(ORDINARY_STORY, {})
    handler(here)
    assert here.universe.prefect.is_due(RUN_ID)
    assert here.universe.prefect.artifacts
    for text in HOSTILE[:5]:
        assert not {token.type for token in tokens(text)} <= NO_MARKUP | TABLE or (
            LINKS_ITSELF.search(text)
        )
