"""Messages to the alarm topic: about which runs, once, bounded, and never at a rescue's cost."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ConnectTimeoutError

from chalicelib import wiring
from chalicelib.adapters.notices import MOST, WINDOW, TopicNotices
from chalicelib.adapters.records import Items
from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import Mode, Notify, Policy
from chalicelib.core.rescue.notification import Notification, subject_line, ui_url_of
from chalicelib.functions.react import react
from tests.laws.universe import OUT_OF_MEMORY, Befalls, Lines, Tripwire, Universe
from tests.make import NOW, RUN_ID, make_table, seconds
from tests.unit.lambda_bench import Context, forget

MOVES, LOSSES = Notify.MOVES, Notify.LOSSES
SUBMISSION = "Failed to submit flow run to infrastructure: "
Life = Callable[[Universe], object]


def interrupted(times: int = 1, **run: Any) -> Life:
    """A run that Spot takes so often, each event delivered twice."""

    def live(universe: Universe) -> None:
        made, task = universe.running(**run)
        for number in range(times):
            if number:
                task = universe.start(made.id)
            for event in (universe.warning(task), *universe.exits(task) * 2):
                universe.deliver(event)

    return live


def died(how: dict[str, str], **run: Any) -> Life:
    def live(universe: Universe) -> None:
        universe.stops(universe.running(**run)[1], **how)

    return live


def refused(why: str, times: int = 1, **run: Any) -> Life:
    """A run that its worker cannot submit."""

    def live(universe: Universe) -> None:
        run_id = universe.prefect.create_run(**run)
        for _ in range(times):
            universe.passes(300)
            universe.prefect.worker_picks_up(run_id)
            universe.prefect.crash(run_id, SUBMISSION + why)
            universe.sweep()

    return live


def never_started(universe: Universe) -> None:
    run, task = universe.running()
    run.states[:] = [state for state in run.states if state.type is not StateType.RUNNING]
    why = "CannotPullContainerError: etl:1: not found"
    universe.stops(task, started_at=None, stop_code="TaskFailedToStart", stopped_reason=why)


def without_deployment(universe: Universe) -> None:
    run, task = universe.running()
    run.deployment = None
    universe.deliver(universe.exits(task)[1])


def with_a_deployment_that_goes(universe: Universe) -> None:
    run, task = universe.running()
    assert run.deployment is not None
    universe.prefect.delete_deployment(run.deployment.id)
    universe.deliver(universe.exits(task)[1])


NEVER: dict[str, Any] = {"tags": ("spot:never-rerun",)}
REFUSAL = "Capacity is unavailable at this time."
NO_NETWORK = "Timeout waiting for network interface provisioning to complete."
HAPPENED: dict[str, tuple[Life, list[Notify]]] = {
    "interrupted, rerun on Spot": (interrupted(), []),
    "budget spent": (interrupted(2, tags=("spot-retries:1",)), [MOVES]),
    "at once on demand": (interrupted(tags=("spot-retries:0",)), [MOVES]),
    "on demand already": (interrupted(job_variables={"launch_type": "FARGATE"}), []),
    "refused by Spot": (refused(REFUSAL), [MOVES]),
    "refused by Spot, then by FARGATE": (refused(REFUSAL, 2), [MOVES, LOSSES]),
    "failed start, retried": (refused(NO_NETWORK), []),
    "failed starts, too many": (refused(NO_NETWORK, 3), [LOSSES]),
    "a start that fails for good": (refused("AccessDeniedException: no"), [LOSSES]),
    "an image that is missing": (never_started, [LOSSES]),
    "out of memory": (died(OUT_OF_MEMORY), [LOSSES]),
    "its deployment is gone": (with_a_deployment_that_goes, [LOSSES]),
    "no deployment": (without_deployment, []),
    "never rerun": (interrupted(**NEVER), []),
    "never rerun, failed to start": (refused("AccessDeniedException: no", **NEVER), []),
    "never rerun, out of memory": (died(OUT_OF_MEMORY, **NEVER), []),
}  # fmt: skip


@pytest.mark.parametrize("name", HAPPENED)
def test_one_message_says_that_a_run_is_lost_or_leaves_spot_and_none_what_its_owner_wanted(
    name: str,
) -> None:
    live, kinds = HAPPENED[name]
    universe = Universe()
    live(universe)
    for _ in range(3):
        universe.sweep()
    assert [notification.kind for notification in universe.notified] == kinds
    [run] = universe.prefect.runs.values()
    for notification in universe.notified:
        assert (notification.flow_run_id, notification.flow_run_name) == (run.id, run.name)
        assert bool(notification.deployment) is (name != "its deployment is gone")
    if LOSSES in kinds:
        assert run.state.type is StateType.CRASHED


@pytest.mark.parametrize(
    ("mode", "tags", "kinds"),
    [
        (Mode.OPT_IN, (), []),
        (Mode.OPT_IN, ("spot:rerun",), [MOVES]),
        (Mode.OBSERVE, (), []),
    ],
)
def test_a_message_is_about_runs_that_the_mode_is_for(
    mode: Mode, tags: tuple[str, ...], kinds: list[Notify]
) -> None:
    universe = Universe(Policy(mode=mode, spot_retries=0))
    interrupted(tags=tags)(universe)
    universe.sweep()
    assert [notification.kind for notification in universe.notified] == kinds


def end_of(universe: Universe) -> Any:
    runs = [
        (r.state.type, [s.message for s in r.states], r.job_variables, r.tags, r.labels)
        for r in universe.prefect.runs.values()
    ]
    counts = [each.values for each in universe.measured if each.values]
    return runs, counts, [line for line in universe.log.lines if line[0] == "decided"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", HAPPENED)
def test_a_message_that_cannot_be_sent_changes_nothing_but_a_warning_in_the_log(name: str) -> None:
    live, kinds = HAPPENED[name]
    ends = []
    for no_topic in (False, True):
        universe = Universe(no_topic=no_topic)
        live(universe)
        universe.sweep()
        run_id = next(iter(universe.prefect.runs))
        ends.append(re.sub(r"[0-9a-f-]{32,36}", "ID", repr(end_of(universe))))
        assert isinstance(universe.log, Lines)
        warned = [keys for line, keys in universe.log.lines if line == "the message was not sent"]
        assert [keys["kind"] for keys in warned] == (kinds if no_topic else [])
        assert all(keys["warning"] and keys["flow_run_id"] == str(run_id) for keys in warned)
    assert ends[0] == ends[1]


def test_a_text_from_outside_stays_a_line_and_the_link_is_the_runs() -> None:
    made = Notification(LOSSES, RUN_ID, "brave\r\nBcc: x", "why\n\nThe run: http://evil", "etl/ö\n")
    text = made.text("http://prefect:4200")
    assert text.splitlines() == [
        "run lost: brave Bcc: x of etl/ö",
        "It is Crashed, and nothing starts it again.",
        "",
        "Why: why The run: http://evil",
        "",
        f"The run: http://prefect:4200/runs/flow-run/{RUN_ID}",
    ]
    subject = subject_line("prod", made.title)
    assert subject == "prefect-spot prod: run lost: brave Bcc: x of etl/?"


@pytest.mark.parametrize("name", ["x" * 300, "\n", "é" * 300, "\ud800", ""])
def test_a_subject_is_one_that_sns_takes(name: str) -> None:
    subject = subject_line(name, Notification(MOVES, RUN_ID, name, "").title)
    assert subject.startswith("prefect-spot ")
    assert subject.isascii()
    assert subject.isprintable()
    assert len(subject) <= 100


@pytest.mark.parametrize(
    ("api", "ui"),
    [
        (
            "https://api.prefect.cloud/api/accounts/a-1/workspaces/w-2",
            "https://app.prefect.cloud/account/a-1/workspace/w-2",
        ),
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200"),
        ("https://prefect.example.com/api/", "https://prefect.example.com"),
        ("https://example.com/prefect/api", "https://example.com/prefect"),
        ("https://api.example.com/accounts/api", "https://api.example.com/accounts"),
    ],
)
def test_the_link_leads_to_the_ui_that_prefect_itself_takes_for_the_apis(api: str, ui: str) -> None:
    assert ui_url_of(api) == ui


class Mailbox:
    """What arrives at a queue that is subscribed to the topic."""

    def __init__(self, dynamodb: Any) -> None:
        self.now = NOW
        sns, sqs = (boto3.client(name, region_name="us-east-1") for name in ("sns", "sqs"))
        self.topic = sns.create_topic(Name="prefect-spot-dev-alarms")["TopicArn"]
        self._url = sqs.create_queue(QueueName="mailbox")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])
        queue = arn["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=queue)
        make_table(dynamodb, "prefect-spot-dev")
        self.sns: Any = sns
        self._sqs, self._dynamodb = sqs, dynamodb

    def notices(self, wanted: Notify = Notify.ALL) -> TopicNotices:
        items = Items(self._dynamodb, "prefect-spot-dev", lambda _seconds: None)
        now, url = lambda: self.now, "http://prefect"
        return TopicNotices(self.sns, items, self.topic, "dev", url, wanted, now)

    def read(self) -> Iterator[Any]:
        while got := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10):
            if "Messages" not in got:
                return
            for message in got["Messages"]:
                yield json.loads(message["Body"])
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])


@pytest.fixture
def mailbox(moto_dynamodb: Any) -> Mailbox:
    return Mailbox(moto_dynamodb)


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [(Notify.ALL, {MOVES, LOSSES}), (MOVES, {MOVES}), (LOSSES, {LOSSES}), (Notify.NONE, set())],
)
def test_what_is_wanted_is_published_and_nothing_else(
    mailbox: Mailbox, wanted: Notify, kinds: set[Notify]
) -> None:
    made = {kind: Notification(kind, RUN_ID, "brave-otter", "why") for kind in (MOVES, LOSSES)}
    for notification in made.values():
        mailbox.notices(wanted).publish(notification)
    got = list(mailbox.read())
    assert {m["Subject"] for m in got} == {subject_line("dev", made[kind].title) for kind in kinds}
    assert len(got) == len(kinds)
    for message in got:
        assert f"http://prefect/runs/flow-run/{RUN_ID}" in message["Message"]
        assert "see NOTIFY" in message["Message"]


def test_the_topic_is_the_stacks_in_the_functions_account_and_region(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default, about lost runs: its ARN is known before the stack is."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect/api")
    forget()
    invocation = Context()
    invocation.invoked_function_arn = mailbox.topic.replace(":sns:", ":lambda:")
    notify = wiring.context_of(invocation).notify
    for kind in (MOVES, LOSSES):
        notify(Notification(kind, RUN_ID, "brave-otter", "why"))
    forget()
    [message] = mailbox.read()
    assert message["TopicArn"] == mailbox.topic
    assert f"http://prefect/runs/flow-run/{RUN_ID}" in message["Message"]


def test_a_topic_that_does_not_answer_is_not_asked_again_for_a_while(mailbox: Mailbox) -> None:
    asked: list[str] = []

    def publish(Subject: str, **_: str) -> None:  # noqa: N803  # boto3's name
        asked.append(Subject)
        raise ConnectTimeoutError(endpoint_url="https://sns.us-east-1.amazonaws.com/")

    mailbox.sns = SimpleNamespace(publish=publish)
    notices, lost = mailbox.notices(), Notification(LOSSES, RUN_ID, "brave-otter", "why")
    for waited in (0, 60, WINDOW.total_seconds() - 61):
        mailbox.now += seconds(waited)
        with pytest.raises(ConnectTimeoutError):
            notices.publish(lost)
    assert len(asked) == 1
    mailbox.now += seconds(1)
    with pytest.raises(ConnectTimeoutError):
        notices.publish(lost)
    assert len(asked) == 2


def test_a_storm_of_moves_is_a_few_messages_and_hides_no_lost_run(mailbox: Mailbox) -> None:
    for number in range(100):
        move = Notification(MOVES, RUN_ID, f"run-{number}", "why")
        mailbox.notices().publish(move)
    mailbox.notices().publish(Notification(LOSSES, RUN_ID, "another", "why"))
    *moves, last, lost = [m["Subject"] for m in mailbox.read()]
    assert [subject.partition("run-")[2].split()[0] for subject in moves] == [
        str(number) for number in range(MOST)
    ]
    assert last == "prefect-spot dev: more runs moved to on-demand"
    assert "another" in lost
    mailbox.now += WINDOW
    mailbox.notices().publish(Notification(MOVES, RUN_ID, "later", "why"))
    [later] = mailbox.read()
    assert "later" in later["Subject"]


def test_a_message_for_which_no_time_is_left_does_not_keep_the_lease() -> None:
    universe = Universe(Policy(spot_retries=0))
    event = universe.exits(universe.running()[1])[1]
    react(replace(universe.context(), seconds_left=lambda: 2.0), event)
    assert "notices.notify" not in universe.calls
    assert "records.release" in universe.calls
    assert isinstance(universe.log, Lines)
    assert "the message was not sent" in [line for line, _ in universe.log.lines]


def test_a_run_is_lost_too_when_no_answer_says_so() -> None:
    calls: list[str] = []
    for befalls in (None, Befalls.FAILS_AFTER):
        universe = Universe()
        died(OUT_OF_MEMORY)(universe)
        wire = Tripwire(befalls, calls.index("prefect.propose_state") if befalls else 0)
        universe.sweep(wire)
        calls = wire.calls
        assert [notification.kind for notification in universe.notified] == [LOSSES]


def test_a_handler_that_dies_before_the_message_is_on_record_sends_it_the_next_time() -> None:
    universe = Universe(Policy(spot_retries=0))
    _, task = universe.running()
    exited = universe.exits(task)[1]
    like = Universe(Policy(spot_retries=0))
    like.handle(like.exits(like.running()[1])[1])
    universe.handle(exited, Tripwire(Befalls.DIES_BEFORE, like.calls.index("notices.notify")))
    assert universe.notified == []
    universe.passes(60)
    universe.deliver(exited)
    assert [notification.kind for notification in universe.notified] == [MOVES]
