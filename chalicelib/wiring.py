"""Joins the parts for one invocation: settings, AWS clients, Prefect, clock, logger.

The only place that reads the environment and the clock. What is costly to make is made once per
Lambda environment and kept for its later invocations.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID, uuid4

import boto3
import urllib3
from aws_lambda_powertools import Logger

import infra
from chalicelib.adapters.bills import BillTable
from chalicelib.adapters.breaker import BreakerTable
from chalicelib.adapters.cloudformation import CloudFormationStacks
from chalicelib.adapters.delivery import AwsDeliveries
from chalicelib.adapters.ecs import EcsTasks
from chalicelib.adapters.http import JsonHttp
from chalicelib.adapters.metrics import EmfMetrics
from chalicelib.adapters.network import Ec2Networks
from chalicelib.adapters.parameters import SsmParameters
from chalicelib.adapters.prefect import PrefectRest
from chalicelib.adapters.secrets import PrefectAuthorization
from chalicelib.adapters.service_linked_role import EcsServiceLinkedRole
from chalicelib.adapters.table import RunTable
from chalicelib.adapters.work_pools import PrefectWorkPools
from chalicelib.core.provision_world import ProvisionWorld
from chalicelib.core.provisioning import Desired
from chalicelib.core.rates import Rates, read_table, with_own
from chalicelib.core.world import World, attempt, results
from chalicelib.errors import SettingError
from chalicelib.provision_settings import desired_of, read_provision_settings
from chalicelib.settings import Settings, policy_of, read_settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_ecs import ECSClient

CALLS_AT_ONCE: Final = 6
"""Connections to Prefect that one invocation uses: a rescue tells people by as many requests."""

SPARE_SECONDS: Final = 3.0
"""Left of an invocation when the last request to Prefect must be over, to write and to log."""

SECONDS_FOR_AWS: Final = 10.0
"""Left of an invocation of `provision` when Prefect must have answered: for AWS's part."""

LEASE_MARGIN: Final = timedelta(seconds=5)
"""A lease outlives its invocation by this, and ends well before Lambda's first retry at 60 s."""


class LambdaContext(Protocol):
    """What Lambda tells about an invocation."""

    aws_request_id: str
    invoked_function_arn: str

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda ends this invocation."""


def start_cold() -> None:
    """Check the settings, where this runs as a Lambda; `chalice deploy` imports the app as well.

    Raises:
        SettingError: names the setting that is missing or wrong.
    """
    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        read_provision_settings(os.environ, _settings())
        _rates()


class Outcome(Protocol):
    """What a function came to."""

    @property
    def summary(self) -> Mapping[str, object]:
        """For Lambda's records."""


def answer(
    function: Callable[[World, object], Outcome], event: object, context: LambdaContext
) -> Mapping[str, object]:
    """Call a function with the world as it is now; return what it came to, for Lambda's records."""
    return _logged(lambda: function(_world(context), event), context)


def answer_provisioning(
    function: Callable[[ProvisionWorld, object], Outcome], event: object, context: LambdaContext
) -> Mapping[str, object]:
    """Do the same for the function that provisions, in a world of its own."""
    return _logged(lambda: function(_provision_world(context), event), context)


def _logged(call: Callable[[], Outcome], context: LambdaContext) -> Mapping[str, object]:
    logger = _logger()
    logger.clear_state()
    logger.append_keys(request_id=context.aws_request_id)
    try:
        return call().summary
    except Exception as error:
        logger.exception("to be called again", error_type=type(error).__name__)
        raise


def _world(context: LambdaContext) -> World:
    settings = _settings()
    ends_at = time.monotonic() + context.get_remaining_time_in_millis() / 1000

    def seconds_left() -> float:
        return ends_at - SPARE_SECONDS - time.monotonic()

    def prefect_until(deadline: Callable[[], float]) -> PrefectRest:
        return PrefectRest(
            api_url=settings.prefect_api_url,
            authorization=_authorization(),
            deadline=deadline,
            pool=_pool(),
            deployment_names=_deployment_names(),
        )

    def hurried(seconds: float) -> PrefectRest:
        until = time.monotonic() + seconds
        return prefect_until(lambda: min(seconds_left(), until - time.monotonic()))

    return World(
        prefect=prefect_until(seconds_left),
        records=RunTable(_dynamodb(), settings.table_name, owner=_owner(context)),
        bills=BillTable(_dynamodb(), settings.table_name),
        breakers=BreakerTable(_dynamodb(), settings.table_name, settings.work_pool),
        tasks=EcsTasks(_ecs()),
        log=_logger(),
        now=lambda: datetime.now(UTC),
        lease=timedelta(milliseconds=context.get_remaining_time_in_millis()) + LEASE_MARGIN,
        policy=policy_of(settings, _rates()),
        clusters=settings.ecs_clusters,
        work_pool=settings.work_pool,
        grace=timedelta(seconds=settings.sweep_grace_seconds),
        seconds_left=seconds_left,
        pause=time.sleep,
        together=_together,
        measure=EmfMetrics(settings.stage, settings.work_pool).measure,
        hurried=hurried,
        account=context.invoked_function_arn.split(":")[4],
    )


def _together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make the calls at once, and wait for all: Lambda would freeze one that is still under way."""
    return results(list(_threads().map(attempt, calls)))


def _provision_world(context: LambdaContext) -> ProvisionWorld:
    """Make all of it anew: what is called every few minutes keeps nothing warm."""
    ends_at = time.monotonic() + context.get_remaining_time_in_millis() / 1000

    def seconds_left() -> float:
        return ends_at - SECONDS_FOR_AWS - time.monotonic()

    http = JsonHttp(
        _settings().prefect_api_url, _authorization(), deadline=seconds_left, pool=_pool()
    )
    return ProvisionWorld(
        desired=_desired(),
        stacks=CloudFormationStacks(boto3.client("cloudformation")),
        networks=Ec2Networks(boto3.client("ec2")),
        parameters=SsmParameters(boto3.client("ssm")),
        service_linked_role=EcsServiceLinkedRole(boto3.client("iam")),
        deliveries=AwsDeliveries(
            boto3.client("events"),
            boto3.client("lambda"),
            arn_prefix=":".join(context.invoked_function_arn.split(":")[:6]) + ":",
        ),
        work_pools=PrefectWorkPools(http),
        log=_logger(),
    )


def _owner(context: LambdaContext) -> str:
    """Name this very try: Lambda's later tries of the same event carry the same request id."""
    return f"{context.aws_request_id}/{uuid4()}"


@cache
def _settings() -> Settings:
    return read_settings(os.environ)


@cache
def _desired() -> Desired:
    return desired_of(
        _settings(),
        read_provision_settings(os.environ, _settings()),
        template=infra.load("stack.json"),
        pool_template=infra.load("base-job-template.json"),
    )


@cache
def _logger() -> Logger:
    return Logger(service="prefect-spot", level=os.environ.get("LOG_LEVEL") or "INFO")


@cache
def _authorization() -> Callable[[bool], str | None]:
    settings = _settings()
    if not (settings.prefect_api_key_parameter or settings.prefect_api_auth_string_parameter):
        return lambda _fresh: None
    return PrefectAuthorization(
        boto3.client("ssm"),
        api_key_parameter=settings.prefect_api_key_parameter,
        auth_string_parameter=settings.prefect_api_auth_string_parameter,
    )


@cache
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(num_pools=2, maxsize=CALLS_AT_ONCE)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="prefect")


@cache
def _dynamodb() -> "DynamoDBClient":
    return boto3.client("dynamodb")


@cache
def _ecs() -> "ECSClient":
    return boto3.client("ecs")


@cache
def _rates() -> Rates:
    try:
        return with_own(read_table(infra.load("prices.json")), _settings().rates)
    except ValueError as error:
        raise SettingError(f"RATES do not go with the shipped rates: {error}") from None


@cache
def _deployment_names() -> dict[UUID, str]:
    return {}
