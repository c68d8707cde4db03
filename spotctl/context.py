"""Everything a command may touch: the project, AWS, Prefect and the clock.

The only place of `spotctl` that reads the clock and the operator's own environment.
"""

import base64
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import NoRegionError

from chalicelib.adapters.credentials import PrefectAuthorization
from chalicelib.adapters.prefect_client import Authorization
from spotctl.chalice import chalice
from spotctl.prefect import OperatorsPrefect
from spotctl.project import Project

LONGEST_INVOCATION_SECONDS: Final = 900
"""How long Lambda lets a function run at most: so long is waited for an answer."""

_PREFECT_SECONDS: Final = 20.0


class Aws:
    """boto3 clients with the operator's own credentials, made when they are first asked for."""

    def __init__(self) -> None:
        self.region: Final = boto3.Session().region_name or ""
        self._clients: dict[str, Any] = {}

    @cached_property
    def account(self) -> str:
        """The account id, from STS. Raises botocore's errors, without credentials too."""
        return str(self.client("sts").get_caller_identity()["Account"])

    def client(self, service: str) -> Any:
        """Return the client of a service."""
        if service not in self._clients:
            # An invocation is not to be sent twice because its answer takes long.
            config = (
                Config(
                    read_timeout=LONGEST_INVOCATION_SECONDS + 5,
                    retries={"total_max_attempts": 1},
                )
                if service == "lambda"
                else None
            )
            self._clients[service] = boto3.client(  # type: ignore[call-overload]  # any service name
                service, region_name=self.region, config=config
            )
        return self._clients[service]


@dataclass(frozen=True)
class Context:
    """What a command is given. `pause` waits so many seconds."""

    project: Project
    aws: Aws
    now: Callable[[], datetime]
    pause: Callable[[float], None]
    environment: Mapping[str, str]
    """The operator's own: their Prefect credential, if they have one there."""
    chalice: Callable[[str, Callable[[str], None]], int]
    """Runs Chalice's `deploy` or `delete` for the stage; see `chalice.py`."""

    @cached_property
    def prefect(self) -> OperatorsPrefect:
        """The Prefect API that the stage's Lambdas use, asked from the operator's machine."""
        return OperatorsPrefect(
            self.project.settings.prefect_api_url,
            _authorization(self.project, self.aws, self.environment),
            deadline=lambda: _PREFECT_SECONDS,
            sleep=self.pause,
        )


def open_context(project: Project) -> Context:
    """Join the parts for one command.

    Raises botocore's errors where AWS cannot be asked at all: no region, no valid credentials.
    """
    aws = Aws()
    if not aws.region:
        raise NoRegionError
    aws.account  # noqa: B018  # asked here, so that it fails here
    return Context(
        project=project,
        aws=aws,
        now=lambda: datetime.now(UTC),
        pause=time.sleep,
        environment=os.environ,
        chalice=partial(chalice, project),
    )


def _authorization(project: Project, aws: Aws, environment: Mapping[str, str]) -> Authorization:
    """Take the operator's own credential; where it is missing or refused, the Lambdas' from SSM."""
    settings = project.settings
    own = None
    if key := environment.get("PREFECT_API_KEY"):
        own = f"Bearer {key}"
    elif pair := environment.get("PREFECT_API_AUTH_STRING"):
        own = f"Basic {base64.b64encode(pair.encode()).decode()}"
    if not (settings.prefect_api_key_parameter or settings.prefect_api_auth_string_parameter):
        return lambda _fresh: own

    @cache
    def of_the_lambdas() -> PrefectAuthorization:
        return PrefectAuthorization(
            aws.client("ssm"),
            api_key_parameter=settings.prefect_api_key_parameter,
            auth_string_parameter=settings.prefect_api_auth_string_parameter,
        )

    return lambda fresh: own if own and not fresh else of_the_lambdas()(fresh)
