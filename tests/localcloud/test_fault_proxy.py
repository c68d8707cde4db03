"""The fault proxy: invisible without a plan, and with one exactly as bad as planned."""

import http.client
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from localcloud.fault_proxy import (
    Answer,
    Cut,
    Exchange,
    Fault,
    FaultProxy,
    Hang,
    LoseAnswer,
    Plan,
    ProxiedRequest,
    Reset,
    Throttle,
    always,
    either,
    first,
    fraction,
    matching,
    no_fault,
    nth,
)
from tests.unit.scripted_server import ScriptedServer, answer

SORRY = Answer(503)


@pytest.fixture
def upstream() -> Iterator[ScriptedServer]:
    with ScriptedServer([answer(201, {"said": "hello"}, X_Served_By="me")]) as server:
        yield server


@pytest.fixture
def proxy(upstream: ScriptedServer) -> Iterator[FaultProxy]:
    with FaultProxy(upstream.url) as proxy:
        yield proxy
        assert proxy.errors == []


def connect(proxy: FaultProxy, seconds: float = 5) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=seconds)


def ask(
    proxy: FaultProxy, path: str = "/x", seconds: float = 5
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = connect(proxy, seconds)
    try:
        connection.request("POST", path, b'{"n": 1}', {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def faults_of(plan: Plan, *paths: str) -> list[Fault | None]:
    return [plan(ProxiedRequest("GET", path, {}, b"")) for path in paths]


def test_without_a_plan_nothing_is_changed(proxy: FaultProxy, upstream: ScriptedServer) -> None:
    connection = connect(proxy)
    for method in ("POST", "PATCH"):
        connection.request(method, "/a?b=%20c", b'{"n": 1}', {"X-Mine": "7"})
        response = connection.getresponse()
        assert (response.status, response.read()) == (201, b'{"said": "hello"}')
        assert response.headers["X-Served-By"] == "me"
    connection.close()
    for seen, method in zip(upstream.seen, ("POST", "PATCH"), strict=True):
        assert (seen.method, seen.path, seen.body) == (method, "/a?b=%20c", {"n": 1})
        assert ("x-mine", "7") in {(k.lower(), v) for k, v in seen.headers.items()}


def test_a_connection_to_the_proxy_is_kept_alive(proxy: FaultProxy) -> None:
    connection = connect(proxy)
    sockets = set()
    for _ in range(3):
        connection.request("GET", "/")
        sockets.add(connection.sock)
        connection.getresponse().read()
    connection.close()
    assert len(sockets) == 1


def test_requests_are_noted_in_the_order_of_their_coming(proxy: FaultProxy) -> None:
    proxy.plan = matching("POST /bad", always(SORRY))
    ask(proxy, "/good")
    ask(proxy, "/bad")
    assert proxy.exchanges == [
        Exchange("POST", "/good", "", None, 201),
        Exchange("POST", "/bad", "", SORRY, 503),
    ]


def test_an_answer_comes_in_place_of_the_upstreams(
    proxy: FaultProxy, upstream: ScriptedServer
) -> None:
    proxy.plan = always(Answer(429, {"Retry-After": "2"}, b"slow down"))
    response, body = ask(proxy)
    assert (response.status, response.headers["Retry-After"], body) == (429, "2", b"slow down")
    assert upstream.seen == []


def test_a_hanging_request_is_answered_by_nothing_and_then_closed(
    proxy: FaultProxy, upstream: ScriptedServer
) -> None:
    proxy.plan = always(Hang(0.5))
    with pytest.raises(TimeoutError):
        ask(proxy, seconds=0.1)
    began = time.monotonic()
    with pytest.raises(http.client.RemoteDisconnected):
        ask(proxy)
    assert time.monotonic() - began >= 0.5
    assert upstream.seen == []


def test_a_reset_request_does_not_reach_the_upstream(
    proxy: FaultProxy, upstream: ScriptedServer
) -> None:
    proxy.plan = always(Reset())
    with pytest.raises(ConnectionResetError):
        ask(proxy)
    assert upstream.seen == []
    assert proxy.exchanges[0].status is None


def test_a_lost_answer_has_had_its_effect(proxy: FaultProxy, upstream: ScriptedServer) -> None:
    proxy.plan = always(LoseAnswer())
    with pytest.raises(ConnectionResetError):
        ask(proxy)
    assert len(upstream.seen) == 1
    assert proxy.exchanges[0].status is None


@pytest.mark.parametrize("length", [0, 5, 1000])
def test_a_cut_answer_promises_more_than_comes(
    proxy: FaultProxy, upstream: ScriptedServer, length: int
) -> None:
    proxy.plan = always(Cut(length))
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(proxy)
    assert caught.value.partial == b'{"said": "hello"}'[:length]
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("code", "service", "operation", "arguments"),
    [
        ("ProvisionedThroughputExceededException", "dynamodb", "list_tables", {}),
        ("ThrottlingException", "ecs", "list_clusters", {}),
        ("ThrottlingException", "cloudformation", "describe_stacks", {}),
        ("ThrottlingException", "lambda", "get_function", {"FunctionName": "x"}),
    ],
    ids=["JSON 1.0", "JSON 1.1", "query", "REST JSON"],
)
def test_throttling_is_understood_by_boto(
    proxy: FaultProxy,
    upstream: ScriptedServer,
    code: str,
    service: Any,
    operation: str,
    arguments: dict[str, str],
) -> None:
    proxy.plan = always(Throttle(code))
    client: Any = boto3.session.Session().client(
        service,
        endpoint_url=proxy.url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 2}),
    )
    with pytest.raises(ClientError) as caught:
        getattr(client, operation)(**arguments)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 1, "it was not retried"
    assert upstream.seen == []


def test_what_aws_is_asked_for_can_be_told(proxy: FaultProxy) -> None:
    proxy.plan = matching(r"GetItem\n.*the-key", nth(1, SORRY))
    connection = connect(proxy)
    connection.request("POST", "/", b'{"k": "the-key"}', {"X-Amz-Target": "DynamoDB_1.GetItem"})
    assert connection.getresponse().status == 503
    connection.close()
    assert proxy.exchanges[0].target == "DynamoDB_1.GetItem"


def test_an_upstream_that_is_gone_is_no_planned_fault() -> None:
    with ScriptedServer([answer()]) as gone:
        url = gone.url
    with FaultProxy(url) as proxy:
        assert ask(proxy)[0].status == 502
        assert len(proxy.errors) == 1


def test_closing_lets_go_of_what_hangs(upstream: ScriptedServer) -> None:
    ended = threading.Event()
    hanging = FaultProxy(upstream.url, always(Hang(3600)))

    def wait_in_vain() -> None:
        with pytest.raises(http.client.RemoteDisconnected):
            ask(hanging, seconds=30)
        ended.set()

    with hanging:
        threading.Thread(target=wait_in_vain, daemon=True).start()
        while not hanging.exchanges:
            time.sleep(0.01)
    assert ended.wait(5)


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "http://127.0.0.1:1/api", "127.0.0.1:1"])
def test_an_upstream_that_cannot_be_stood_in_for_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        FaultProxy(url)


def test_plans_count_only_what_they_are_asked_about() -> None:
    assert faults_of(no_fault, "/a") == [None]
    assert faults_of(nth(2, SORRY), "/a", "/a", "/a") == [None, SORRY, None]
    assert faults_of(first(2, SORRY), "/a", "/a", "/a") == [SORRY, SORRY, None]
    mixed = matching("GET /b", nth(2, SORRY))
    assert faults_of(mixed, "/a", "/b", "/a", "/b") == [None, None, None, SORRY]


def test_of_several_plans_the_first_fault_counts_and_all_are_asked() -> None:
    both = either(nth(1, SORRY), nth(1, Reset()), nth(2, Reset()))
    assert faults_of(both, "/a", "/a") == [SORRY, Reset()]


def test_a_fraction_is_a_matter_of_the_seed_alone() -> None:
    paths = ["/a"] * 1000
    once, again = (faults_of(fraction(7, 0.2, SORRY), *paths) for _ in range(2))
    other = faults_of(fraction(8, 0.2, SORRY), *paths)
    assert once == again != other
    assert 150 < once.count(SORRY) < 250
