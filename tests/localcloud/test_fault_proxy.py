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
    always,
    either,
    first,
    fraction,
    matching,
    no_fault,
    nth,
    throttle,
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


def ask(
    proxy: FaultProxy, path: str = "/x", seconds: float = 5, target: str = ""
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=seconds)
    try:
        connection.request("POST", path, b'{"n": 1}', {"X-Amz-Target": target})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def faults_of(plan: Plan, *paths: str) -> list[Fault | None]:
    return [plan(ProxiedRequest("GET", path, {}, b"")) for path in paths]


def test_without_a_plan_nothing_is_changed_and_the_connection_is_kept(
    proxy: FaultProxy, upstream: ScriptedServer
) -> None:
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=5)
    sockets = set()
    for method in ("POST", "PATCH"):
        connection.request(method, "/a?b=%20c", b'{"n": 1}', {"X-Mine": "7"})
        sockets.add(connection.sock)
        response = connection.getresponse()
        assert (response.status, response.read()) == (201, b'{"said": "hello"}')
        assert response.headers["X-Served-By"] == "me"
    connection.close()
    assert len(sockets) == 1
    for seen, method in zip(upstream.seen, ("POST", "PATCH"), strict=True):
        assert (seen.method, seen.path, seen.body) == (method, "/a?b=%20c", {"n": 1})
        assert ("x-mine", "7") in {(k.lower(), v) for k, v in seen.headers.items()}


def test_an_answer_comes_in_place_of_the_upstreams_and_every_request_is_noted(
    proxy: FaultProxy, upstream: ScriptedServer
) -> None:
    busy = Answer(429, {"Retry-After": "2"}, b"slow down")
    proxy.plan = matching(r"GetItem\n.*\"n\": 1", always(busy))
    ask(proxy, "/good")
    response, body = ask(proxy, "/bad", target="DynamoDB_1.GetItem")
    assert (response.status, response.headers["Retry-After"], body) == (429, "2", b"slow down")
    assert [seen.path for seen in upstream.seen] == ["/good"]
    assert proxy.exchanges == [
        Exchange("POST", "/good", "", None, 201),
        Exchange("POST", "/bad", "DynamoDB_1.GetItem", busy, 429),
    ]


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


@pytest.mark.parametrize(("fault", "arrived"), [(Reset(), 0), (LoseAnswer(), 1)])
def test_a_reset_connection_carries_no_answer_whether_the_request_took_effect_or_not(
    proxy: FaultProxy, upstream: ScriptedServer, fault: Fault, arrived: int
) -> None:
    proxy.plan = always(fault)
    with pytest.raises(ConnectionResetError):
        ask(proxy)
    assert len(upstream.seen) == arrived
    assert proxy.exchanges[0].status is None


@pytest.mark.parametrize("length", [5, 1000])
def test_a_cut_answer_promises_more_than_comes(
    proxy: FaultProxy, upstream: ScriptedServer, length: int
) -> None:
    proxy.plan = always(Cut(length))
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(proxy)
    assert caught.value.partial == b'{"said": "hello"}'[:length]
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("code", "service", "operation"),
    [
        ("ProvisionedThroughputExceededException", "dynamodb", "list_tables"),
        ("ThrottlingException", "ecs", "list_clusters"),
    ],
    ids=["JSON 1.0", "JSON 1.1"],
)
def test_throttling_is_understood_by_boto(
    proxy: FaultProxy, upstream: ScriptedServer, code: str, service: Any, operation: str
) -> None:
    proxy.plan = always(throttle(code))
    client: Any = boto3.session.Session().client(
        service,
        endpoint_url=proxy.url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 2}),
    )
    with pytest.raises(ClientError) as caught:
        getattr(client, operation)()
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 1, "it was not retried"
    assert upstream.seen == []


def test_an_upstream_that_is_gone_is_no_planned_fault() -> None:
    with ScriptedServer([answer()]) as gone:
        url = gone.url
    with FaultProxy(url) as proxy:
        assert ask(proxy)[0].status == 502
        assert len(proxy.errors) == 1


def test_closing_lets_go_of_what_hangs(upstream: ScriptedServer) -> None:
    ended = threading.Event()
    hanging = FaultProxy(upstream.url)
    hanging.plan = always(Hang(3600))

    def wait_in_vain() -> None:
        with pytest.raises(http.client.RemoteDisconnected):
            ask(hanging, seconds=30)
        ended.set()

    with hanging:
        threading.Thread(target=wait_in_vain, daemon=True).start()
        while not hanging.exchanges:
            time.sleep(0.01)
    assert ended.wait(5)


def test_plans_count_only_what_they_are_asked_about() -> None:
    assert faults_of(no_fault, "/a") == [None]
    assert faults_of(first(2, SORRY), "/a", "/a", "/a") == [SORRY, SORRY, None]
    mixed = matching("GET /b", nth(2, SORRY))
    assert faults_of(mixed, "/a", "/b", "/a", "/b", "/b") == [None, None, None, SORRY, None]


def test_of_several_plans_the_first_fault_counts_and_all_are_asked() -> None:
    both = either(nth(1, SORRY), nth(1, Reset()), nth(2, Reset()))
    assert faults_of(both, "/a", "/a") == [SORRY, Reset()]


def test_a_fraction_is_a_matter_of_the_seed_alone() -> None:
    paths = ["/a"] * 1000
    once, again = (faults_of(fraction(7, 0.2, SORRY), *paths) for _ in range(2))
    other = faults_of(fraction(8, 0.2, SORRY), *paths)
    assert once == again != other
    assert 150 < once.count(SORRY) < 250
