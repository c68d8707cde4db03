"""Everything a command may touch: the project, AWS, Prefect, Chalice, the clock, the terminal.

The only place of `spotctl` that reads the clock and the operator's environment.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import NoRegionError

from chalicelib.adapters.prefect_client import JsonHttp
from spotctl import bytecode
from spotctl.credential import authorization
from spotctl.errors import RefusedError
from spotctl.prefect import OperatorPrefect
from spotctl.project import Project

LONGEST_INVOCATION_SECONDS: Final = 900
"""Lambda's longest timeout: an answer is waited for that long."""

_ONE_LONG_TRY: Final = Config(
    read_timeout=LONGEST_INVOCATION_SECONDS + 5, retries={"total_max_attempts": 1}
)
"""An invocation that takes long must not be sent twice."""

_PREFECT_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function returned, out of JSON. `error` is empty where it did not fail."""

    value: Any
    error: str = ""


class Aws:
    """boto3 clients with the operator's credentials, created when they are first needed."""

    def __init__(
        self,
        profile: str = "",
        region: str = "",
        detail: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """`profile` and `region`: empty for the environment's. `detail` gets a line per request.

        Raises botocore's ProfileNotFound.
        """
        session = boto3.Session(profile_name=profile or None, region_name=region or None)
        self.region: Final = session.region_name or ""
        self._make: Any = session.client if profile else boto3.client
        self._detail = detail
        self._clients: dict[str, Any] = {}

    @cached_property
    def caller(self) -> str:
        """The operator's ARN, from STS. Raises botocore's errors, without credentials too."""
        return str(self.client("sts").get_caller_identity()["Arn"])

    @property
    def account(self) -> str:
        """The account id in it."""
        return self.caller.split(":")[4]

    def client(self, service: str) -> Any:
        """Return the client of a service."""
        if service not in self._clients:
            config = _ONE_LONG_TRY if service == "lambda" else None
            client = self._make(service, region_name=self.region, config=config)
            client.meta.events.register("before-call", self._show_call)
            self._clients[service] = client
        return self._clients[service]

    def _show_call(self, model: Any, **_others: object) -> None:
        self._detail(f"AWS: {model.service_model.service_name} {model.name}")

    def invoke(self, function_name: str, event: object) -> Answer:
        """Invoke a function once, and wait for its answer.

        `event` is serialized as JSON. Raises botocore's errors; the function's own becomes `error`.
        """
        answer = self.client("lambda").invoke(
            FunctionName=function_name,
            InvocationType="RequestResponse",
            Payload=json.dumps(event).encode(),
        )
        body = answer["Payload"].read()
        try:
            value = json.loads(body) if body else None
        except ValueError:
            return Answer(None, f"{function_name} returned something that is not JSON")
        if not answer.get("FunctionError"):
            return Answer(value)
        error = value if isinstance(value, dict) else {}
        kind, message = error.get("errorType", "Error"), error.get("errorMessage", "no message")
        return Answer(value, f"{kind}: {message}")


@dataclass(frozen=True)
class Context:
    """What a command works with. `now` is in UTC; `pause` waits so many seconds."""

    project: Project
    aws: Aws
    now: Callable[[], datetime]
    pause: Callable[[float], None]
    environment: Mapping[str, str]
    """The operator's own: their Prefect credential, if it is set there."""
    progress: Callable[[str], None]
    """Prints a line about the work in progress."""
    chalice: Callable[[str], int]
    """Runs Chalice's `deploy` or `delete` for the stage; see `run_chalice`."""
    send_key_to: str = ""
    """An address that the operator confirmed for a credential: see `spotctl/credential.py`."""
    own_key: bool = False
    """Whether only the operator's own Prefect credential is used."""
    detail: Callable[[str], None] = lambda _line: None
    """Prints a line with --verbose."""

    @property
    def about(self) -> str:
        """What is worked on: stage, account and region. Raises botocore's errors."""
        return f"stage {self.project.stage} in account {self.aws.account}, {self.aws.region}"

    @cached_property
    def prefect(self) -> OperatorPrefect:
        """The Prefect API that the stage's Lambdas use, reached from the operator's machine."""
        settings = self.project.settings
        if self.own_key:
            settings = replace(
                settings, prefect_api_key_parameter="", prefect_api_auth_string_parameter=""
            )
        url = settings.prefect_api_url
        allowed = authorization(
            settings,
            self.aws.client,
            self.project.function_name("react"),
            self.environment,
            self.send_key_to,
            self.progress,
        )
        # Each request has its own seconds, its retries included.
        http = _ShownHttp(url, allowed, lambda: _PREFECT_SECONDS, sleep=self.pause)
        http.detail = self.detail
        return OperatorPrefect(http)


class _ShownHttp(JsonHttp):
    """Shows each request."""

    detail: Callable[[str], None]

    def send(self, method: str, path: str, *given: Any, **named: Any) -> object:
        """Send as JsonHttp does."""
        self.detail(f"Prefect: {method} {path}")
        return super().send(method, path, *given, **named)

    def get(self, path: str, **query: str) -> object:
        """Read as JsonHttp does."""
        self.detail(f"Prefect: GET {path}")
        return super().get(path, **query)


def open_context(
    project: Project,
    progress: Callable[[str], None],
    send_key_to: str = "",
    profile: str = "",
    region: str = "",
    own_key: bool = False,
    detail: Callable[[str], None] = lambda _line: None,
) -> Context:
    """Return the context of one command. `progress` prints a line; the others: see its fields.

    Raises botocore's errors where AWS cannot be used at all: no region, no valid credentials.
    """
    aws = Aws(profile, region, detail)
    if not aws.region:
        raise NoRegionError
    aws.account  # noqa: B018  # read here, so that missing credentials fail here
    return Context(
        project=project,
        aws=aws,
        now=lambda: datetime.now(UTC),
        pause=time.sleep,
        environment=os.environ,
        progress=progress,
        chalice=lambda command: run_chalice(project, command, progress, profile, aws.region),
        send_key_to=send_key_to,
        own_key=own_key,
        detail=detail,
    )


def run_chalice(
    project: Project,
    command: str,
    progress: Callable[[str], None],
    profile: str = "",
    region: str = "",
) -> int:
    """Run `chalice deploy` or `chalice delete` for the stage; return its exit code.

    Its output goes to `progress`, a line at a time. What is deployed contains its bytecode. A
    `profile` is passed as an option: it then wins over keys in the environment, as here. Raises
    RefusedError: Chalice is not installed beside this Python, or the app cannot be imported.
    """
    program = Path(sys.executable).parent / "chalice"
    if not program.exists():
        raise RefusedError(
            f"there is no {program}", next_step="run spotctl with the project's own Python"
        )
    try:
        with (
            bytecode.packed(project.folder) if command == "deploy" else nullcontext(),
            subprocess.Popen(  # noqa: S603  # our own Chalice, with a stage of our config
                [
                    *(str(program), command, "--stage", project.stage),
                    *(("--profile", profile) if profile else ()),
                ],
                cwd=project.folder,
                env={**os.environ, **({"AWS_DEFAULT_REGION": region} if region else {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process,
        ):
            for line in process.stdout or ():
                progress(line.rstrip())
            return process.wait()
    except bytecode.AppError as error:
        raise RefusedError(
            f"the app cannot be imported: {error}", next_step="run `make check`, which shows it"
        ) from None
