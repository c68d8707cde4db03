"""What a web page, or another user of this machine, sends to the embedded cloud is not answered."""

import base64
import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from lab.bench.servers import fresh_aws
from localcloud.aws import EmulatedAws
from localcloud.cloud import LAMBDA_PYTHON, new_auth_string
from localcloud.deployment import run_program
from localcloud.fault_proxy import FaultProxy
from localcloud.lambda_environment import ExecutionEnvironment, FunctionConfig
from localcloud.prefect_api import PrefectApi
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Supervisor
from tests.contract.conftest import OLDEST_PYTHON
from tests.localcloud.test_lambdas import zip_of
from tests.unit.scripted_server import ScriptedServer
from tests.unit.scripted_server import answer as scripted_answer

PREFECTS = {"Prefect": None, "the oldest Prefect": OLDEST_PYTHON}
Headers = Sequence[tuple[str, str]]

SIGNED = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/ssm/aws4_request, Signature=x"
EVIL = "http://evil.example"
PREFLIGHT = [("Origin", EVIL), ("Access-Control-Request-Method", "POST")]
WEBSOCKET = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


@dataclass
class Server:
    """One that runs, an ordinary request to it without a host, and whether that had an effect."""

    url: str
    headers: Headers
    body: bytes
    had_effect: Callable[[], bool]
    target: str = "/"
    refuses_by: Sequence[int] = (403,)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def send(
        self, *headers: tuple[str, str], method: str = "POST", target: str = "", host: str = "own"
    ) -> tuple[HTTPResponse, bytes]:
        """Send the request with more headers; `host`: "own", "none", or what the header says."""
        with closing(HTTPConnection(self.host, timeout=30)) as connection:
            target = target or self.target
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            hosts = {"own": [("Host", self.host)], "none": []}.get(host, [("Host", host)])
            for name, value in (*hosts, *self.headers, *headers):
                connection.putheader(name, value)
            if self.body:
                connection.putheader("Content-Length", str(len(self.body)))
            connection.endheaders(self.body)
            answer = connection.getresponse()
            return answer, answer.read()


def put_parameter(aws: EmulatedAws, url: str) -> Server:
    """One that changes AWS, as its own clients send it."""
    ssm = aws.client("ssm")
    if ssm.describe_parameters()["Parameters"]:
        ssm.delete_parameters(Names=["planted"])
    headers = [
        ("Authorization", SIGNED),
        ("X-Amz-Target", "AmazonSSM.PutParameter"),
        ("Content-Type", "application/x-amz-json-1.1"),
        ("X-Amz-Security-Token", aws.environment()["AWS_SESSION_TOKEN"]),
    ]
    body = json.dumps(
        {"Name": "planted", "Value": "x", "Type": "String", "Overwrite": True}
    ).encode()
    return Server(url, headers, body, lambda: bool(ssm.describe_parameters()["Parameters"]))


UVICORNS_OWN = (403, 400, 405)
"""Its answers to no host or two, and to OPTIONS, included."""


def create_flow(server: PrefectServer, auth_string: str) -> Server:
    """As a client with the password sends it, which is refused even so where a page sends it."""
    basic = base64.b64encode(auth_string.encode()).decode()
    headers = [("Authorization", f"Basic {basic}"), ("Content-Type", "application/json")]
    prefect = PrefectApi(server.api_url, auth_string)
    return Server(
        server.ui_url,
        headers,
        b'{"name": "planted"}',
        lambda: bool(prefect.send("POST", "/flows/filter", {})),
        "/api/flows/",
        UVICORNS_OWN,
    )


@contextmanager
def started(name: str, aws: EmulatedAws, supervisor: Supervisor) -> Iterator[Server]:
    if name == "moto":
        yield put_parameter(aws, aws.endpoint_url)
    elif name == "fault proxy":
        with FaultProxy(aws.endpoint_url) as proxy:
            yield put_parameter(aws, proxy.url)
            assert proxy.errors == []
    elif name == "script":
        with ScriptedServer([scripted_answer()]) as script:
            yield Server(script.url, [], b"{}", lambda: bool(script.seen))
    elif name in PREFECTS:
        folder, auth_string = supervisor.folder / name, new_auth_string()
        with PrefectServer(
            folder, supervisor.spawn, python=PREFECTS[name], auth_string=auth_string
        ) as prefect:
            yield create_flow(prefect, auth_string)
    else:
        with fresh_aws(supervisor) as stand_in:
            target = [("X-Amz-Target", "AmazonSQS.GetQueueUrl")]
            body = json.dumps({"QueueName": "q"}).encode()
            asked = lambda: stand_in.requests("GetQueueUrl") > 0  # noqa: E731
            yield Server(stand_in.url, target, body, asked, refuses_by=UVICORNS_OWN)


@pytest.fixture(scope="module")
def module_supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with Supervisor.open(tmp_path_factory.mktemp("guard")) as supervisor:
        yield supervisor


@pytest.fixture(scope="module", params=["moto", "fault proxy", "stand-in", "script", *PREFECTS])
def server(
    request: pytest.FixtureRequest, aws: EmulatedAws, module_supervisor: Supervisor
) -> Iterator[Server]:
    """For what is refused; at the end it is seen that the same is answered from a program."""
    with started(request.param, aws, module_supervisor) as server:
        yield server
        for host in ("own", server.host.replace("127.0.0.1", "localhost")):
            answer, body = server.send(host=host)
            assert answer.status in (200, 201), body
        assert server.had_effect()


FOREIGN: dict[str, tuple[Headers, dict[str, str]]] = {
    "a page's request": ([("Origin", EVIL)], {}),
    "a page's form, which sends no preflight": (
        [("Origin", EVIL), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")],
        {},
    ),
    "a page's image": ([("Sec-Fetch-Site", "cross-site")], {"method": "GET"}),
    "a page's script": ([("Sec-Fetch-Site", "same-site")], {"method": "GET"}),
    "two sites": ([("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site")], {}),
    "a sandboxed page": ([("Origin", "null")], {}),
    "an empty origin": ([("Origin", "")], {}),
    "a program's page on another port": ([("origin", "http://127.0.0.1:1")], {}),
    "a browser's extension": ([("ORIGIN", "chrome-extension://abc")], {}),
    "two origins": ([("Origin", "http://127.0.0.1"), ("Origin", EVIL)], {}),
    "a preflight": (PREFLIGHT, {"method": "OPTIONS"}),
    "a preflight to a private network": (
        [*PREFLIGHT, ("Access-Control-Request-Private-Network", "true")],
        {"method": "OPTIONS"},
    ),
    "a page's WebSocket": ([*WEBSOCKET, ("Origin", EVIL)], {"method": "GET"}),
    "a rebound name's WebSocket": (WEBSOCKET, {"method": "GET", "host": "evil.example:PORT"}),
    "a rebound name": ([], {"host": "evil.example:PORT"}),
    "a rebound name, without a port": ([], {"host": "evil.example"}),
    "a name that begins like ours": ([], {"host": "127.0.0.1:PORT.evil.example"}),
    "a name that ends like ours": ([], {"host": "evil.localhost:PORT"}),
    "AWS's own name": ([], {"host": "ssm.us-east-1.amazonaws.com"}),
    "another port": ([], {"host": "127.0.0.1:1"}),
    "no port": ([], {"host": "127.0.0.1"}),
    "a name with a dot at its end": ([], {"host": "localhost.:PORT"}),
    "a name in capitals": ([], {"host": "EVIL.EXAMPLE:PORT"}),
    "every address": ([], {"host": "0.0.0.0:PORT"}),
    "IPv6": ([], {"host": "[::1]:PORT"}),
    "another way to write the address": ([], {"host": "2130706433:PORT"}),
    "a user before the host": ([], {"host": "127.0.0.1:PORT@evil.example"}),
    "two hosts, ours first": ([("Host", "evil.example")], {}),
    "no host": ([], {"host": "none"}),
    "an empty host": ([], {"host": ""}),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_a_web_page_can_send_is_refused_before_it_has_an_effect(
    server: Server, what: str
) -> None:
    headers, options = FOREIGN[what]
    if "Upgrade" in dict(headers):  # where Prefect takes events
        server = replace(server, body=b"", target=server.target.replace("flows/", "events/in"))
    port = server.host.partition(":")[2]
    answer, body = server.send(*headers, **{k: v.replace("PORT", port) for k, v in options.items()})
    assert answer.status in server.refuses_by, body
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    assert not server.had_effect()


OF_THE_UI: dict[str, Headers] = {
    "an address that was typed": [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate")],
    "the UI's own page": [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors")],
    "the UI's own request": [("Origin", "http://127.0.0.1:PORT")],
    "the UI under its other name": [
        ("Origin", "http://localhost:PORT"),
        ("Sec-Fetch-Site", "cross-site"),
    ],
}


@pytest.mark.parametrize("what", OF_THE_UI)
def test_only_the_server_that_has_a_ui_answers_browsers_and_only_those_that_show_it(
    server: Server, what: str
) -> None:
    port = server.host.partition(":")[2]
    headers = [(name, value.replace("PORT", port)) for name, value in OF_THE_UI[what]]
    bare = replace(server, body=b"")
    answer, body = bare.send(*headers, method="GET", target=server.target.partition("flows")[0])
    has_ui = server.target != "/"
    assert answer.status == (404 if has_ui else 403), body


@pytest.mark.parametrize("target", ["http://evil.example/", "http://127.0.0.1/", "*"])
def test_a_target_that_names_its_own_host_is_refused(aws: EmulatedAws, target: str) -> None:
    server = put_parameter(aws, aws.endpoint_url)
    assert server.send(target=target)[0].status == 403
    assert not server.had_effect()


def test_a_large_body_is_refused_with_an_answer_and_not_with_a_reset(aws: EmulatedAws) -> None:
    server = put_parameter(aws, aws.endpoint_url)
    server.body = b" " * 500_000
    assert server.send(("Origin", EVIL))[0].status == 403


@pytest.mark.parametrize(
    ("tokens", "target"),
    [
        ([], "/"),
        ([], "/moto-api/data.json"),
        ([], "/moto-api/reset"),
        ([], "/?Action=ListUsers&Version=2010-05-08"),
        (["testing"], "/"),
        ([""], "/"),
        (["é"], "/"),
        (["testing", "OURS"], "/"),
        (["OURS"], "/?X-Amz-Security-Token=testing"),
        ([], "/?X-Amz-Security-Token=testing"),
    ],
)
def test_aws_answers_only_to_the_session_token_of_this_run(
    aws: EmulatedAws, tokens: list[str], target: str
) -> None:
    """No page and no other user of the machine has it; nor do unsigned calls and moto's API."""
    server = put_parameter(aws, aws.endpoint_url)
    *ours, (name, token) = server.headers
    server.headers = [*ours, *((name, each.replace("OURS", token)) for each in tokens)]
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer, body = server.send(method=method, target=target)
        assert answer.status == 401, body
        assert token.encode() not in body
    assert not server.had_effect()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
def test_no_client_of_the_cloud_goes_through_a_proxy_of_the_hosts(
    aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """It would be sent the session token, and what is to be secret in SSM."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(aws, "_clients", {})
    code = "import boto3; boto3.client('sqs').list_queues()"
    with ScriptedServer([scripted_answer()]) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        aws.client("sqs").list_queues()
        run_program([sys.executable, "-c", code], aws.environment())
        assert proxy.seen == []


def test_a_presigned_url_is_answered(aws: EmulatedAws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="results")
    s3.put_object(Bucket="results", Key="x", Body=b"42")
    url = s3.generate_presigned_url("get_object", {"Bucket": "results", "Key": "x"})
    assert httpx.get(url, trust_env=False).content == b"42"
    assert httpx.get(url.partition("?")[0], trust_env=False).status_code == 401


def test_a_functions_events_are_for_its_own_process_alone(
    supervisor: Supervisor, aws: EmulatedAws, tmp_path: Path
) -> None:
    """Not for a page, nor for a program that found the port: an event holds the flows' secrets."""
    code = """
import os, socket
def handler(event, context):
    global other
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else Linux has to be asked longer
    other.bind(("127.0.0.1", 0))
    other.connect(("127.0.0.1", event))
    return os.environ["AWS_LAMBDA_RUNTIME_API"], other.getsockname()
"""
    config = FunctionConfig(
        name="asks",
        arn="arn:aws:lambda:us-east-1:123456789012:function:asks",
        handler="app.handler",
        timeout_seconds=20,
        memory_mib=128,
        environment=(),
        code_sha256="x",
        code=zip_of(code),
    )
    environment = ExecutionEnvironment(supervisor, aws, LAMBDA_PYTHON, config)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            peer = str(server.getsockname()[1]).encode()
            api, of_its_own = environment.run("1", peer).answer
            url = f"http://{api}/2018-06-01/runtime/invocation"
            for method, what in (("GET", "next"), ("POST", "1/response"), ("POST", "1/error")):
                with pytest.raises(httpx.TransportError):
                    httpx.request(method, f"{url}/{what}", content=b'"forged"', trust_env=False)
            with socket.socket() as client:  # from a port that the function itself uses elsewhere
                client.settimeout(5)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind(tuple(of_its_own))
                client.connect(("127.0.0.1", urlsplit(url).port))
                with suppress(ConnectionError):
                    client.sendall(f"GET {url} HTTP/1.1\r\n\r\n".encode())
                    assert client.recv(1) == b""
            assert environment.run("2", peer).answer[0] == api
    finally:
        environment.end()
