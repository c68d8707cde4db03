"""Whatever comes as an event, `react` gives a verdict or an error of ours, and no foreign markup.

In process, with Prefect's twin and a table of one record; Hypothesis makes up the events and the
run they are about.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from chalicelib.core.actions import Decision, Verdict
from chalicelib.core.record import RunRecord
from chalicelib.core.run import StateType
from chalicelib.core.situation import Mode, Policy
from chalicelib.core.world import World
from chalicelib.errors import PrefectSpotError
from chalicelib.functions.react import react
from tests.make import ACCOUNT, CLUSTER_ARN, NOW, RUN_ID, TASK_ARN, make_event, make_rate
from tests.twin.prefect import InMemoryPrefect
from tests.unit.test_react import Described, Lines, NoBills, OneRecord

often = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

RATES = {
    ("us-east-1", "x86_64", capacity): make_rate(capacity, "0.0128", "0.0014")
    for capacity in ("FARGATE", "FARGATE_SPOT")
}
LONGEST_LINE = 1000

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


@dataclass
class Stand:
    """A run in some state, with names that somebody chose, and the world around it."""

    prefect: InMemoryPrefect
    records: OneRecord
    tasks: Described
    log: Lines
    world: World

    @property
    def told(self) -> str:
        """All that we wrote, anywhere, as it goes over the wire: UTF-8 or an error."""
        prefect = self.prefect
        written = [prefect.log_lines, prefect.artifacts, *prefect.events.values(), self.log.lines]
        return json.dumps(written, default=str, ensure_ascii=False).encode().decode()

    @property
    def messages(self) -> list[str]:
        ours = [run.states for run in self.prefect.runs.values()]
        states = [state for states in ours for state in states if state.timestamp >= NOW]
        return [line.message for line in self.prefect.log_lines] + [s.message for s in states]


runs = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(StateType),
        "state": texts | st.just("Running"),
        "name": texts,
        "tags": st.lists(texts | st.sampled_from(["spot-retries:0", "spot:rerun"]), max_size=3),
        "variables": st.dictionaries(texts, jsons, max_size=3),
        "pid": st.none() | texts | st.just(f"{CLUSTER_ARN}::{TASK_ARN}"),
        "mode": st.sampled_from(Mode),
    }
)
ORDINARY_RUN: dict[str, Any] = {
    "kind": StateType.RUNNING,
    "state": "Running",
    "name": "brave-otter",
    "tags": [],
    "variables": {},
    "pid": None,
    "mode": Mode.RESCUE,
}


def stand(about: Mapping[str, Any]) -> Stand:
    prefect = InMemoryPrefect(lambda: NOW)
    run_id = prefect.create_run(tags=about["tags"], job_variables=about["variables"])
    prefect.worker_picks_up(run_id)
    prefect.engine_starts(run_id)
    run = prefect.runs.pop(run_id)
    prefect.runs[RUN_ID] = run
    run.id, run.name, run.infrastructure_pid = RUN_ID, about["name"], about["pid"]
    run.states = [
        replace(state, timestamp=NOW - timedelta(seconds=125 - i))
        for i, state in enumerate(run.states)
    ]
    run.states[-1] = replace(run.state, type=about["kind"], name=about["state"])
    prefect.calls.clear()
    records, tasks, log = OneRecord(RunRecord(RUN_ID)), Described(), Lines()
    world = World(
        prefect=prefect,
        records=records,
        bills=NoBills(),
        tasks=tasks,
        log=log,
        now=lambda: NOW,
        lease=timedelta(seconds=35),
        policy=Policy(mode=about["mode"], rates=RATES),
        clusters=("prefect-spot-dev",),
        account=ACCOUNT,
    )
    return Stand(prefect, records, tasks, log, world)


def answered(stand: Stand, event: object) -> None:
    """Have `react` answer: with a verdict, or an error that has Lambda call again."""
    with suppress(PrefectSpotError):
        decision: object = react(stand.world, event)
        assert isinstance(decision, Decision)
        assert isinstance(decision.verdict, Verdict)
    assert not stand.records.held


@often
@given(event=jsons)
@example(event=[])
@example(event={"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": []})
def test_any_json_is_ignored_and_costs_nothing(event: object) -> None:
    here = stand(ORDINARY_RUN)
    assert react(here.world, event).verdict is Verdict.IGNORE
    assert (here.prefect.calls, here.records.reads, here.tasks.asked) == ([], 0, [])


@often
@given(detail=details(), about=runs)
@example(detail={"cpu": "9" * 5000}, about=ORDINARY_RUN)
@example(detail={"cpu": "9" * 30}, about=ORDINARY_RUN | {"mode": Mode.OBSERVE})
@example(detail={"executionStoppedAt": "9999-12-31T23:59:59Z"}, about=ORDINARY_RUN)
@example(detail={"taskArn": f"{TASK_ARN}\ud800"}, about=ORDINARY_RUN)
@example(detail={"taskArn": f"{TASK_ARN}{'x' * 300_000}"}, about=ORDINARY_RUN)
@example(detail={"stoppedReason": HOSTILE[1]}, about=ORDINARY_RUN | {"state": HOSTILE[1]})
@example(detail={}, about=ORDINARY_RUN | {"kind": StateType.COMPLETED, "state": HOSTILE[1]})
@example(detail={}, about=ORDINARY_RUN | {"kind": StateType.COMPLETED, "state": "x" * 300_000})
def test_whatever_stands_in_the_fields_there_is_a_verdict(
    detail: dict[str, Any], about: dict[str, Any]
) -> None:
    here = stand(about)
    answered(here, make_event(detail))
    bare = make_event({**detail, "lastStatus": "STOPPED"})
    answered(here, {name: bare[name] for name in ("source", "detail-type", "detail")})
    assert len(here.told) < 50_000, "foreign text was not cut"
    for message in here.messages:
        assert message.isprintable()
        assert len(message) <= LONGEST_LINE


foreign_clusters = texts.map(lambda text: f"{CLUSTER_ARN}{text or '2'}") | st.sampled_from(
    [
        "prefect-spot",
        CLUSTER_ARN.upper(),
        CLUSTER_ARN.replace("cluster/", "cluster/cluster-"),
        CLUSTER_ARN.replace("prefect-spot-dev", "prefect-spot-dev "),
        f"{CLUSTER_ARN}/cluster",
    ]
)


@often
@given(detail=details(), about=runs, cluster=foreign_clusters)
def test_nothing_is_touched_for_a_foreign_cluster(
    detail: dict[str, Any], about: dict[str, Any], cluster: str
) -> None:
    here = stand(about)
    decision = react(here.world, make_event({**detail, "clusterArn": cluster}))
    assert decision.verdict is Verdict.IGNORE
    assert (here.prefect.calls, here.records.reads, here.tasks.asked) == ([], 0, [])


@often
@given(detail=details(), about=runs, account=st.from_regex(r"[0-9]{12}", fullmatch=True))
def test_nothing_is_touched_for_a_foreign_account(
    detail: dict[str, Any], about: dict[str, Any], account: str
) -> None:
    here = stand(about)
    arn = TASK_ARN.replace(ACCOUNT, account if account != ACCOUNT else "0" * 12)
    assert react(here.world, make_event({**detail, "taskArn": arn})).verdict is Verdict.IGNORE
    assert (here.prefect.calls, here.records.reads, here.tasks.asked) == ([], 0, [])


@often
@given(detail=details(), about=runs)
def test_what_is_the_users_own_is_put_back_as_it_was(
    detail: dict[str, Any], about: dict[str, Any]
) -> None:
    here = stand(about)
    answered(here, make_event(detail))
    run = here.prefect.runs[RUN_ID]
    ours = {"spot-interrupted", "spot-on-demand"}
    assert [tag for tag in run.tags if tag not in ours] == [
        x for x in about["tags"] if x not in ours
    ]
    capacity = ("launch_type", "capacity_provider_strategy")
    before = {k: v for k, v in about["variables"].items() if k not in capacity}
    after = {k: v for k, v in run.job_variables.items() if k not in capacity}
    assert repr(after) == repr(before)


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


@often
@given(
    reason=hostile_mixtures,
    zone=hostile_mixtures,
    task=marked_arns,
    state=hostile_mixtures,
    kind=st.sampled_from([StateType.RUNNING, StateType.COMPLETED, StateType.PAUSED]),
    architecture=hostile_mixtures,
    status=st.sampled_from(["RUNNING", "STOPPED"]),
    mode=st.sampled_from(Mode),
)
@example(
    reason=HOSTILE[3],
    zone=HOSTILE[3],
    task="|www.evil.example|",
    state=HOSTILE[3],
    kind=StateType.COMPLETED,
    architecture="",
    status="STOPPED",
    mode=Mode.RESCUE,
)
def test_no_foreign_text_becomes_markup(
    reason: str,
    zone: str,
    task: str,
    state: str,
    kind: StateType,
    architecture: str,
    status: str,
    mode: Mode,
) -> None:
    here = stand(ORDINARY_RUN | {"kind": kind, "state": state, "mode": mode})
    detail = {
        "stoppedReason": reason,
        "availabilityZone": zone,
        "taskArn": f"{TASK_ARN}{task}",
        "attributes": [{"name": "ecs.cpu-architecture", "value": architecture}],
        "lastStatus": status,
    }
    answered(here, make_event(detail))
    for artifact in here.prefect.artifacts:
        found = [token.type for token in tokens(artifact.markdown)]
        assert set(found) <= NO_MARKUP | TABLE
        assert {name: found.count(name) for name in ARTIFACT} == ARTIFACT
        assert not LINKS_ITSELF.search(artifact.markdown)
        assert {token.type for token in tokens(artifact.description)} <= NO_MARKUP
        assert not LINKS_ITSELF.search(artifact.description)
        rendered = PARSER.render(artifact.markdown) + PARSER.render(artifact.description)
        assert not re.search(r"<(script|a|img|h1|h3|code|pre|li|hr|blockquote|del)\b", rendered)


def test_the_markup_test_sees_an_artifact_and_would_see_markup() -> None:
    here = stand(ORDINARY_RUN)
    answered(here, make_event())
    assert len(here.prefect.artifacts) == 1
    for text in HOSTILE[:5]:
        assert not {token.type for token in tokens(text)} <= NO_MARKUP | TABLE or (
            LINKS_ITSELF.search(text)
        )
