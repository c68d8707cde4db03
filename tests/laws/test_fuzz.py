"""Whatever comes as an event, and whatever Prefect and ECS hold: an answer, and no foreign markup.

Hypothesis makes up an event, the run it is about, what people and automations put on it, its child,
and its task as ECS describes it. `react` answers with a verdict or an error of ours; `sweep` comes
to its end.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from chalicelib.core.model.ecs_task import FLOW_RUN_ID_TAG, Task, parse_task
from chalicelib.core.model.flow_run import FINAL_STATES, StateType
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.rescue.actions import Decision, Verdict
from chalicelib.errors import PrefectSpotError
from chalicelib.functions.react import react
from chalicelib.functions.sweep import sweep
from chalicelib.functions.sweep_report import SweepReport
from tests.laws.universe import LEASE, Lines, Universe
from tests.make import ACCOUNT, CLUSTER_ARN, NOW, RATES, RUN_ID, TASK_ARN, make_event, seconds

often = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))

LONGEST_LINE = 1000
OURS = {"spot-interrupted", "spot-on-demand"}
CAPACITY = {"launch_type", "capacity_provider_strategy"}
MINUTE, HOUR = 60, 3600
REFUSED = "Failed to submit flow run to infrastructure: Capacity is unavailable at this time."
PID = f"{CLUSTER_ARN}::{TASK_ARN}"

MARKUP = (
    "|</td><script>alert(1)</script><img src=x onerror=alert(1)>",
    "\n\n# Title\n\n- list\n\n> quote\n\n---\n\n    code\n\n```\ncode\n```\n",
    "[x](javascript:alert(1)) ![i](http://evil.example/i.png) [r]\n\n[r]: http://evil.example",
    "<https://evil.example> https://evil.example www.evil.example a@evil.example",
    "`code` **bold** _em_ ~~gone~~ $$x$$ &lt;b&gt; &#60;script&#62; \\",
)
HOSTILE = (
    *MARKUP,
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

any_text = st.text(st.characters(exclude_categories=()), max_size=60)
hostile = st.integers(0, len(HOSTILE) - 1).map(HOSTILE.__getitem__)
texts = any_text | hostile | st.lists(hostile | any_text, max_size=4).map("".join)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


pairs = optional(name=texts, value=texts, key=texts)
own_variable = st.just({"name": "PREFECT__FLOW_RUN_ID", "value": str(RUN_ID)})
environments = st.lists(pairs | own_variable | jsons, max_size=4)
shaped: Mapping[str, st.SearchStrategy[Any]] = {
    "taskArn": texts.map(lambda text: f"{TASK_ARN}{text}"),
    "attributes": st.lists(
        pairs | texts.map(lambda text: {"name": "ecs.cpu-architecture", "value": text}), max_size=3
    ),
    "tags": st.lists(pairs, max_size=3),
    "containers": st.lists(optional(name=texts, lastStatus=texts, x=jsons), max_size=3),
    "overrides": optional(
        containerOverrides=st.lists(optional(environment=environments), max_size=3)
    ),
}
FIELDS = (*make_event()["detail"], "stoppedAt", "stoppingAt", "attributes", "tags", "group")
details = optional(**{name: shaped.get(name, st.nothing()) | texts | jsons for name in FIELDS})
"""The changes to an ordinary event's detail: some fields get what they should not hold."""

stored_texts = texts.map(lambda text: text.encode(errors="replace").decode())
"""What a database gives back: JSON's halves of surrogate pairs are in none."""


@dataclass(frozen=True)
class Story:
    """What Prefect holds of the run, and for how long it has; an ordinary run, interrupted."""

    kind: StateType = StateType.RUNNING
    state: str = "Running"
    message: str = ""
    name: str = "brave-otter"
    tags: list[str] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    pid: str | None = PID
    mode: Mode = Mode.RESCUE
    seconds: int = 10 * MINUTE
    is_tagged: bool = True
    child: str | None = None


own_tags = texts | st.sampled_from(["spot-retries:0", "spot:rerun", "spot:never-rerun"])
stories = st.builds(
    Story,
    kind=st.sampled_from(StateType),
    state=texts | st.sampled_from(["AwaitingRetry", "Running"]),
    message=texts | st.just(REFUSED),
    name=texts,
    tags=st.lists(own_tags, max_size=3),
    variables=st.dictionaries(texts, jsons, max_size=3),
    pid=st.none() | stored_texts | st.just(PID),
    mode=st.sampled_from(Mode),
    seconds=st.sampled_from([MINUTE, 10 * MINUTE, HOUR + 5 * MINUTE]),
    is_tagged=st.booleans(),
    child=st.none() | texts,
)


def universe_of(story: Story, detail: Mapping[str, Any]) -> Universe:
    """A universe with RUN_ID as the story has it, and its task as the detail has it."""
    universe = Universe(Policy(mode=story.mode, rates=RATES))
    prefect = universe.prefect
    run_id = prefect.create_run(tags=story.tags, job_variables=story.variables)
    prefect.worker_picks_up(run_id)
    prefect.engine_starts(run_id)
    run = prefect.runs[RUN_ID] = prefect.runs.pop(run_id)
    run.id, run.name, run.infrastructure_pid = RUN_ID, story.name, story.pid
    if story.child is not None:
        child = prefect.runs[prefect.create_child(RUN_ID)]
        child.name = story.child
        child.states[-1] = replace(child.state, name=story.child)
    run.states[-1] = replace(run.state, type=story.kind, name=story.state, message=story.message)
    before = NOW - seconds(story.seconds)
    for each in prefect.runs.values():
        each.states = [replace(state, timestamp=before) for state in each.states]
        each.expected_start = before
    run.ended_at = before if story.kind in FINAL_STATES else None
    described = make_event(detail)["detail"]
    if story.is_tagged:
        described["tags"] = [{"key": FLOW_RUN_ID_TAG, "value": str(RUN_ID)}]
        described.pop("overrides", None)
    task = parse_task(described)
    if isinstance(task, Task):
        universe.tasks[task.arn] = task
    return universe


def reacts(universe: Universe, detail: Mapping[str, Any]) -> None:
    """`react` answers twice, the second time an event that holds nothing but its detail."""
    bare = make_event({**detail, "lastStatus": "STOPPED"})
    bare = {name: bare[name] for name in ("source", "detail-type", "detail")}
    for event in (make_event(detail), bare):
        with suppress(PrefectSpotError):
            decision: object = react(universe.context(), event)
            assert isinstance(decision, Decision)
            assert isinstance(decision.verdict, Verdict)


def sweeps(universe: Universe, _detail: Mapping[str, Any]) -> None:
    for _ in range(2):
        universe.passes(10 * MINUTE)
        with suppress(PrefectSpotError):
            assert isinstance(sweep(universe.context(), {}), SweepReport)


# What people see. Prefect renders an artifact's description as Markdown too.

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
LINKS_ITSELF = re.compile(r"(?:https?|ftp|mailto|javascript):|www\.|\w@\w", re.IGNORECASE)
"""What renderers of GitHub's dialect turn into a link without any markup around it."""

ARTIFACT = {"heading": 1, "table": 1, "tr": 6, "th": 2, "td": 10, "strong": 2}
NO_MARKUP = {"inline", "text", "text_special", "paragraph_open", "paragraph_close"}
PARTS = ("table", "thead", "tbody", "tr", "th", "td", "heading", "strong")
TABLE = {f"{part}_{end}" for part in PARTS for end in ("open", "close")}


def tokens(markdown: str) -> list[str]:
    blocks = PARSER.parse(markdown)
    children: list[Token] = [child for block in blocks for child in block.children or []]
    return [token.type for token in blocks + children]


def assert_nothing_foreign_is_markup(universe: Universe) -> None:
    for artifact in universe.prefect.artifacts:
        found = tokens(artifact.markdown)
        assert set(found) <= NO_MARKUP | TABLE
        assert {name: found.count(f"{name}_open") for name in ARTIFACT} == ARTIFACT
        assert set(tokens(artifact.description)) <= NO_MARKUP
        for text in (artifact.markdown, artifact.description):
            assert not LINKS_ITSELF.search(text)
            rendered = PARSER.render(text)
            assert not re.search(r"<(script|a|img|h1|h3|code|pre|li|hr|blockquote|del)\b", rendered)


def assert_short_and_printable(universe: Universe) -> None:
    """All that we wrote, anywhere, as it goes over the wire: UTF-8 or an error."""
    prefect, log = universe.prefect, universe.log
    assert isinstance(log, Lines)
    written = [prefect.log_lines, prefect.artifacts, *prefect.events.values(), log.lines]
    encoded = json.dumps(written, default=str, ensure_ascii=False).encode()
    assert len(encoded.decode()) < 50_000, "foreign text was not cut"
    states = [state for run in prefect.runs.values() for state in run.states]
    messages = [state.message for state in states if state.timestamp >= NOW]
    for message in [*messages, *(line.message for line in prefect.log_lines)]:
        assert message.isprintable()
        assert len(message) <= LONGEST_LINE


Test = Callable[..., None]
EXAMPLES: list[tuple[Story, dict[str, Any]]] = [
    (Story(), {"cpu": "9" * 5000}),
    (Story(mode=Mode.OBSERVE), {"cpu": "9" * 30}),
    (Story(), {"executionStoppedAt": "9999-12-31T23:59:59Z"}),
    (Story(), {"createdAt": None, "executionStoppedAt": None}),
    (Story(), {"taskArn": f"{TASK_ARN}\ud800"}),
    (Story(), {"taskArn": f"{TASK_ARN}{'x' * 300_000}"}),
    (Story(pid=None), {"taskArn": f"{TASK_ARN}|www.evil.example|"}),
    (Story(pid=None), {"taskArn": f"{TASK_ARN}|<b>x</b>|`_*#~[x](http://y)a@b"}),
    (Story(), {"stopCode": HOSTILE[1], "stoppedReason": HOSTILE[5]}),
    (Story(kind=StateType.CANCELLING), {"stoppedReason": HOSTILE[1]}),
    (Story(kind=StateType.PENDING, pid="x" * 300_000), {"taskArn": None}),
    (Story(kind=StateType.CRASHED, child=HOSTILE[1]), {}),
    (Story(kind=StateType.CRASHED, message=REFUSED + HOSTILE[1]), {"taskArn": None}),
    *(
        (Story(kind=kind, state=text, name=text), {"stoppedReason": text, "availabilityZone": text})
        for kind in (StateType.RUNNING, StateType.COMPLETED, StateType.PAUSED)
        for text in (*MARKUP, "x" * 300_000)
    ),
]


def with_examples(test: Test) -> Test:
    for story, detail in EXAMPLES:
        test = example(story=story, detail=detail)(test)
    return test


@pytest.mark.parametrize("handler", [reacts, sweeps])
@often
@given(story=stories, detail=details)
@with_examples
def test_whatever_stands_in_events_runs_and_tasks_there_is_an_answer_without_markup(
    handler: Callable[[Universe, Mapping[str, Any]], None], story: Story, detail: dict[str, Any]
) -> None:
    universe = universe_of(story, detail)
    handler(universe, detail)
    universe.records().acquire(RUN_ID, universe.now, LEASE)  # it was released
    assert_short_and_printable(universe)
    assert_nothing_foreign_is_markup(universe)
    run = universe.prefect.runs[RUN_ID]
    assert [t for t in run.tags if t not in OURS] == [t for t in story.tags if t not in OURS]
    before, after = (
        {name: value for name, value in variables.items() if name not in CAPACITY}
        for variables in (story.variables, run.job_variables)
    )
    assert repr(after) == repr(before)


@pytest.mark.parametrize("handler", [reacts, sweeps])
def test_the_ordinary_story_is_annotated_and_markup_would_be_seen(
    handler: Callable[[Universe, Mapping[str, Any]], None],
) -> None:
    universe = universe_of(Story(), {})
    handler(universe, {})
    assert universe.prefect.is_due(RUN_ID)
    assert universe.prefect.artifacts
    for text in MARKUP:
        assert LINKS_ITSELF.search(text) or not set(tokens(text)) <= NO_MARKUP | TABLE


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
foreign_events = st.builds(
    lambda detail, foreign: make_event(detail | foreign),
    details,
    st.fixed_dictionaries(
        {"clusterArn": foreign_clusters | texts.map(f"{CLUSTER_ARN}2{{}}".format)}
    )
    | foreign_accounts.map(lambda account: {"taskArn": TASK_ARN.replace(ACCOUNT, account)}),
)


@often
@given(event=jsons | foreign_events)
@example(event=[])
@example(event={"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": []})
def test_any_json_and_any_event_of_a_foreign_cluster_or_account_is_ignored_and_costs_nothing(
    event: object,
) -> None:
    universe = universe_of(Story(), {})
    assert react(universe.context(), event).verdict is Verdict.IGNORE
    assert universe.calls == []


@often
@given(story=stories, detail=details, cluster=foreign_clusters)
def test_sweep_does_not_touch_a_run_in_a_foreign_cluster(
    story: Story, detail: dict[str, Any], cluster: str
) -> None:
    universe = universe_of(replace(story, pid=f"{cluster}::{TASK_ARN}"), detail)
    states = list(universe.prefect.runs[RUN_ID].states)
    sweeps(universe, detail)
    assert universe.prefect.runs[RUN_ID].states == states
    assert not {"propose_state", "change_run", "write_log"} & set(universe.prefect.calls)
