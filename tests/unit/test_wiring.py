"""What an invocation is given: calls that are made at the same time, and one credential."""

import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, NoReturn

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from moto import mock_aws

from chalicelib import wiring
from chalicelib.adapters.records import RunTable
from chalicelib.core.metrics import Measured, Metric
from chalicelib.core.model.policy import Pause
from chalicelib.errors import (
    LAMBDA_RETRIES,
    LeaseHeldError,
    PrefectNotNowError,
    PrefectUnavailableError,
)
from chalicelib.functions.meter import meter
from chalicelib.functions.react import react
from chalicelib.functions.sweep import sweep
from tests.make import NOW, RUN_ID, make_event, make_table
from tests.unit.emf import printed_data
from tests.unit.lambda_bench import Context, forget
from tests.unit.scripted_server import ScriptedServer, answer, silence


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The wiring reads its settings anew, before the test and after it."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    forget()
    yield monkeypatch
    forget()


def test_calls_are_made_at_the_same_time_and_answered_in_order() -> None:
    all_there = threading.Barrier(3, timeout=10)
    calls = [lambda: (all_there.wait(), "a")[1], lambda: (all_there.wait(), "b")[1]]
    assert wiring._gather([*calls, lambda: (all_there.wait(), "c")[1]]) == ["a", "b", "c"]


def test_a_logged_error_of_ours_has_its_next_step_under_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_context: None, _event: object) -> NoReturn:
        raise LeaseHeldError("another handler holds the lease", next_step=LAMBDA_RETRIES)

    lines = io.StringIO()
    for handler in wiring.log_of_function().handlers:
        monkeypatch.setattr(handler, "stream", lines)
    with pytest.raises(LeaseHeldError) as raised:
        wiring.answer(fails, lambda _: None, {}, Context())
    record = json.loads(lines.getvalue())
    assert record["next_step"] == LAMBDA_RETRIES
    assert record["error_type"] == "LeaseHeldError"
    said = "another handler holds the lease. Next step: none: Lambda retries the event"
    assert record["exception"].endswith(said)
    assert str(raised.value) == said, "Lambda puts this into the failure queue"


@pytest.mark.parametrize("lasts", [False, True])
def test_an_invocation_ends_quietly_while_prefect_asks_for_time_unless_that_lasts(
    lasts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda's retries would ask too early; an alarm and the failure queue hear of what lasts."""

    def asked(_context: None, _event: object) -> NoReturn:
        raise PrefectNotNowError("429", next_step="none", until=NOW, lasts=lasts)

    lines = io.StringIO()
    for handler in wiring.log_of_function().handlers:
        monkeypatch.setattr(handler, "stream", lines)
    if lasts:
        with pytest.raises(PrefectNotNowError):
            wiring.answer(asked, lambda _: None, {}, Context())
    else:
        postponed = wiring.answer(asked, lambda _: None, {}, Context())
        assert postponed == {"postponed_until": NOW.isoformat()}
    record = json.loads(lines.getvalue())
    assert (record["level"], record["until"]) == ("WARNING", NOW.isoformat())


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    ("function", "event"),
    [
        (react, make_event()),
        (meter, make_event({"lastStatus": "STOPPED", "stoppedAt": "2026-11-23T12:00:00Z"})),
        (sweep, {"detail-type": "Scheduled Event"}),
        (sweep, {}),
    ],
    ids=["react", "meter", "sweep", "sweep by hand"],
)
def test_while_nothing_is_provisioned_a_function_ends_with_one_clear_line(
    function: Any, event: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error would be retried, and set off the alarms that are created beside the table."""
    lines = io.StringIO()
    for handler in wiring.log_of_function().handlers:
        monkeypatch.setattr(handler, "stream", lines)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    tasks: Any = SimpleNamespace(describe=lambda *_: None)  # in rescue-only there are some by now
    with mock_aws():
        context = replace(wiring.context_of(Context()), tasks=tasks)
        answer = wiring.answer(function, lambda _: context, event, Context())
    reason = "there is no table prefect-spot-dev: nothing was done"
    assert answer == {"state": "not provisioned", "reason": reason}
    [line] = lines.getvalue().splitlines()
    record = json.loads(line)
    assert (record["level"], record["message"]) == ("WARNING", "not provisioned")
    assert record["reason"] == reason
    assert "exception" not in record


@pytest.mark.parametrize(
    ("code", "operation"),
    [
        ("ResourceNotFoundException", "PutTargets"),
        ("ResourceNotFoundException", "GetFunction"),
        ("ClusterNotFoundException", "DescribeTasks"),
        ("ThrottlingException", "GetItem"),
    ],
)
def test_any_other_refusal_of_aws_stays_an_error(code: str, operation: str) -> None:
    def fails(_context: None, _event: object) -> NoReturn:
        raise ClientError({"Error": {"Code": code}}, operation)

    with pytest.raises(ClientError):
        wiring.answer(fails, lambda _: None, {}, Context())


@pytest.mark.usefixtures("settings")
def test_a_lease_outlives_the_invocation_and_requests_end_before_it() -> None:
    context = wiring.context_of(Context(60_000))
    account, region = Context.invoked_function_arn.split(":")[4:2:-1]
    assert context.scope == (("prefect-spot-dev",), account, region)
    assert context.lease == timedelta(seconds=65)
    assert 50 < context.seconds_left() <= 57


def test_a_region_without_a_spot_rate_has_an_assumed_one_unless_rates_has_it(
    settings: pytest.MonkeyPatch,
) -> None:
    spot = ("eu-central-1", "x86_64", "FARGATE_SPOT")
    settings.setenv("ASSUMED_SPOT_DISCOUNT", "0.5")
    rates = wiring.context_of(Context()).policy.rates
    assert (rates[spot].vcpu_hour_usd, rates[spot].is_assumed) == (Decimal("0.02328"), True)
    forget()
    settings.setenv("RATES", f"{'/'.join(spot)}=0.01/0.001")
    rates = wiring.context_of(Context()).policy.rates
    assert (rates[spot].vcpu_hour_usd, rates[spot].is_assumed) == (Decimal("0.01"), False)


@pytest.mark.parametrize("name", [None, "false", "true"])
def test_metrics_are_published_by_deployment_only_where_that_is_set(
    name: str | None, settings: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name:
        settings.setenv("DEPLOYMENT_METRICS", name)
    values = {metric: Decimal(1) for metric in Metric}
    wiring.context_of(Context()).measure(Measured("etl/nightly", values))
    data = printed_data(capsys.readouterr().out)
    by_pool = (("Stage", "dev"), ("WorkPool", "fargate-spot-dev"))
    by_deployment = {(*by_pool, ("Deployment", "etl/nightly"))} if name == "true" else set()
    assert {datum.dimensions for datum in data} == {by_pool} | by_deployment


@pytest.mark.parametrize(
    ("milliseconds_left", "seconds"),
    [pytest.param(60_000, 0.3, id="the hurry"), pytest.param(3_300, 10.0, id="the invocation")],
)
def test_who_asks_in_a_hurry_does_not_wait_for_a_prefect_that_says_nothing(
    milliseconds_left: int, seconds: float, settings: pytest.MonkeyPatch, moto_dynamodb: Any
) -> None:
    make_table(moto_dynamodb, "prefect-spot-dev")
    never = threading.Event()
    with ScriptedServer([silence(never)]) as server:
        settings.setenv("PREFECT_API_URL", f"{server.url}/api")
        with_timeout = wiring.context_of(Context(milliseconds_left)).with_timeout(seconds)
        began = time.monotonic()
        with pytest.raises(PrefectUnavailableError):
            with_timeout.find_completed_runs(RUN_ID, 20)
        assert time.monotonic() - began < 5
        never.set()


def test_a_fact_does_not_wait_for_a_table_that_says_nothing(
    settings: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        settings.setenv(name, "testing")
    never = threading.Event()
    with ScriptedServer([silence(never), answer(400)]) as server:
        settings.setenv("AWS_ENDPOINT_URL_DYNAMODB", server.url)
        with pytest.raises(ReadTimeoutError):
            wiring.context_of(Context()).bills_in_time.read_sums([NOW.date()])
        never.set()


def test_a_pause_is_seen_ten_seconds_later_and_read_once_in_that_time(
    settings: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        settings.setenv(name, "testing")
    now = [time.time() // 10 * 10]
    with mock_aws():
        dynamodb = boto3.client("dynamodb")
        make_table(dynamodb, "prefect-spot-dev")
        settings.setattr(time, "time", lambda: now[0])
        paused = wiring.context_of(Context()).paused
        assert paused() is None
        pause = RunTable(dynamodb, "prefect-spot-dev", "me").pause(Pause(NOW, "an ARN"))
        now[0] += 9
        assert paused() is None
        now[0] += 1
        assert paused() == pause
        now[0] += 9
        dynamodb.delete_table(TableName="prefect-spot-dev")
        assert paused() == pause


def test_all_are_made_before_the_first_failure_is_told() -> None:
    made: list[int] = []
    slow = threading.Event()

    def fails() -> None:
        slow.set()
        raise PrefectUnavailableError("503", next_step="none")

    def comes_late() -> None:
        slow.wait(10)
        time.sleep(0.05)
        made.append(1)

    with pytest.raises(PrefectUnavailableError):
        wiring._gather([fails, comes_late, comes_late])
    assert made == [1, 1]


def test_two_threads_that_ask_first_make_one_client_for_the_credential(
    settings: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def client(service: str) -> object:
        made.append(service)
        time.sleep(0.05)
        return SimpleNamespace(get_parameter=lambda **_: {"Parameter": {"Value": "pnu_secret"}})

    settings.setenv("PREFECT_API_KEY_PARAMETER", "/a/key")
    settings.setattr(boto3, "client", client)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(wiring.authorization(), [False, False])) == ["Bearer pnu_secret"] * 2
    assert made == ["ssm"]
