"""AWS on the laptop: moto's server in this process, with what moto lacks added to it.

Deployments, Lambdas, the worker and the tests talk to it over HTTP like to AWS; Fargate, Lambda
and EventBridge of this package look straight into moto's backends.
"""

import hmac
import json
import logging
import secrets
import threading
from http import HTTPStatus
from typing import Any, Protocol, Self
from urllib.parse import parse_qsl, urlsplit

import boto3
from botocore.config import Config
from moto.awslambda.models import LambdaBackend, lambda_backends
from moto.core.config import default_user_config
from moto.ecs.models import EC2ContainerServiceBackend, ecs_backends
from moto.events.models import EventsBackend, events_backends
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

from localcloud import moto_additions
from localcloud.cloudformation import requests as cloudformation_requests
from localcloud.cloudformation.operations import CloudFormation
from localcloud.guard import GuardedHandler

PROVEN_BY = "X-Amz-Security-Token"
"""The header, or in a presigned URL the parameter, by which a client of this run is known."""


class Aws(Protocol):
    """What leads to one account of an AWS in one region: this one, or one that others emulate."""

    def client(self, name: str) -> Any:
        """Return a boto3 client of the named service."""

    def environment(self) -> dict[str, str]:
        """Return what a child process needs to meet this AWS, and never a real one."""


class EmulatedAws:
    """One emulated account in one region, for as long as the `with` block lasts.

    moto's state belongs to the process, so at most one may be open at a time. It answers only to
    its session token, which is made anew each time, and to no web page.
    """

    region = "us-east-1"
    account = "123456789012"

    def __init__(self) -> None:
        self._session_token = secrets.token_hex(16)
        self._server: BaseWSGIServer | None = None
        self._clients: dict[str, Any] = {}
        self._clients_lock = threading.Lock()  # creating boto3 clients is not thread-safe
        self.cloudformation = CloudFormation(self.client, self.account, self.region)
        self.calls, self.requests = moto_additions.calls, moto_additions.requests

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line per request
        default_user_config["iam"]["load_aws_managed_policies"] = True
        moto_additions.install()
        self.calls.clear()
        self.requests.clear()
        cloudformation_requests.connect(self.cloudformation)
        # What a handler has to know, its class does: werkzeug makes one for each connection.
        handler = type("_Handler", (_Handler,), {"session_token": self._session_token})
        moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, moto, threaded=True, request_handler=handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cloudformation.close()
        cloudformation_requests.connect(None)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        moto_api_backend.reset()

    @property
    def endpoint_url(self) -> str:
        """The address every AWS client of the embedded cloud is to use."""
        assert self._server is not None, "only within the `with` block"
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self) -> dict[str, str]:
        """Return what a child process needs to meet this AWS, and never a real one."""
        return environment_of(self.endpoint_url, self._session_token)

    def client(self, name: str) -> Any:
        """Return a boto3 client of the named service; one per service, shared by all threads."""
        with self._clients_lock:
            if name not in self._clients:
                self._clients[name] = boto3.session.Session().client(  # type: ignore[call-overload]  # any service name
                    name,
                    endpoint_url=self.endpoint_url,
                    region_name=self.region,
                    aws_access_key_id="testing",
                    aws_secret_access_key="testing",  # noqa: S106  # moto takes any
                    aws_session_token=self._session_token,
                    config=Config(proxies={}),  # none of the host's
                )
            return self._clients[name]

    def send(self, queue_arn: str, message: object) -> None:
        """Send a message, as JSON, to the SQS queue of that ARN."""
        sqs = self.client("sqs")
        queue_url = sqs.get_queue_url(QueueName=queue_arn.split(":sqs:")[1].split(":")[-1])
        sqs.send_message(QueueUrl=queue_url["QueueUrl"], MessageBody=json.dumps(message))

    @property
    def ecs(self) -> EC2ContainerServiceBackend:
        """ECS as moto keeps it: its clusters, services and tasks."""
        return ecs_backends[self.account][self.region]

    @property
    def events(self) -> EventsBackend:
        """EventBridge as moto keeps it: its rules and targets."""
        return events_backends[self.account][self.region]

    @property
    def lambdas(self) -> LambdaBackend:
        """Lambda as moto keeps it: the deployed functions' code and configuration."""
        return lambda_backends[self.account][self.region]


class _Handler(GuardedHandler, MotoRequestHandler):
    """Lets nothing pass to moto but what has the session token, its API for tests included."""

    session_token: str

    def parse_request(self) -> bool:
        """Return whether moto is to answer."""
        if not super().parse_request():
            return False
        in_query = [v for k, v in _query(self.path) if k.lower() == PROVEN_BY.lower()]
        given = [*self.headers.get_all(PROVEN_BY, []), *in_query]
        expected = self.session_token.encode()
        is_ours = [hmac.compare_digest(g.encode(), expected) for g in given] == [True]
        if not is_ours:
            self.refuse(HTTPStatus.UNAUTHORIZED, f"{PROVEN_BY} is not that of this run")
        return is_ours


def _query(target: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(target).query)


def environment_of(endpoint_url: str, session_token: str) -> dict[str, str]:
    """Return what leads a process's AWS clients to an emulated AWS, and never to a real one."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_SESSION_TOKEN": session_token,
        "AWS_DEFAULT_REGION": EmulatedAws.region,
        "AWS_REGION": EmulatedAws.region,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
