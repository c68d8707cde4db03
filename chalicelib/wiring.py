"""Joins the parts for one invocation: settings, AWS clients, Prefect, clock, log.

The only place that reads the environment and the clock. What is costly to make is made once per
Lambda environment and kept for its later invocations; what an event may not need is loaded and made
at its first use.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from uuid import UUID, uuid4

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config

import infra
from chalicelib.adapters.aws import EcsTasks, EmfMetrics
from chalicelib.adapters.credentials import PrefectAuthorization, certificates, custom_headers
from chalicelib.adapters.not_before import NotBefore
from chalicelib.adapters.prefect_api import PrefectRest
from chalicelib.adapters.prefect_client import Connections, JsonHttp
from chalicelib.adapters.records import Items, RunTable
from chalicelib.core.model.policy import Pause
from chalicelib.core.model.pricing import Rates, rates_of
from chalicelib.core.ports import Context
from chalicelib.errors import (
    NOT_PROVISIONED,
    PrefectNotNowError,
    PrefectSpotError,
    SettingError,
    lacks_table,
)
from chalicelib.settings import Settings, policy_of, read_clusters, read_settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from chalicelib.adapters.bills import BillTable
    from chalicelib.adapters.notices import TopicNotices

CALLS_AT_ONCE: Final = 6
"""Connections to Prefect that one invocation uses: a rescue annotates by as many requests."""
SPARE_SECONDS: Final = 3.0
"""Left of an invocation when the last request to Prefect must be over, to write and to log."""
AWS_CONFIG: Final = Config(
    user_agent="prefect-spot", parameter_validation=False, account_id_endpoint_mode="disabled"
)
"""For what is asked at each event: botocore makes up its user agent anew for each call, and checks
arguments that the service checks as well."""
SNS_CONFIG: Final = Config(
    connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 2, "mode": "standard"}
)
"""A message must not keep a rescue: in a VPC, there may be no way to SNS."""
LEASE_MARGIN: Final = timedelta(seconds=5)
"""A lease outlives its invocation by this, and ends well before Lambda's first retry at 60 s."""
PAUSE_KEPT_SECONDS: Final = 10
"""How long the answer is used whether the stage is paused, by one Lambda environment."""
C = TypeVar("C")


class LambdaContext(Protocol):
    """What Lambda says about an invocation."""

    aws_request_id: str
    invoked_function_arn: str

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda ends this invocation."""


def start_cold() -> None:
    """Check the settings in a Lambda: `chalice deploy` imports the app too. Raises SettingError."""
    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        _rates()
        _dynamodb()


def clusters_of_stage() -> tuple[str, ...]:
    """Return ECS_CLUSTER's names and ARNs, which a rule needs at deploy. Raises SettingError."""
    return read_clusters(os.environ)


class Outcome(Protocol):
    """What a function returns."""

    @property
    def summary(self) -> Mapping[str, object]:
        """The Lambda's answer."""


def answer(
    function: Callable[[C, object], Outcome],
    make_context: Callable[[LambdaContext], C],
    event: object,
    lambda_context: LambdaContext,
) -> Mapping[str, object]:
    """Call a function with the context of this invocation; return its answer, or log its error.

    A table that is missing or not yet active is one that `provision` has not created so far: no
    error, which the alarms created beside it would count at once. When Prefect asked for more time
    than there is, the event is left to `sweep`.
    """
    log = log_of_function()
    log.clear_state()
    log.append_keys(request_id=lambda_context.aws_request_id)
    try:
        return function(make_context(lambda_context), event).summary
    except PrefectNotNowError as error:
        until = error.until.isoformat()
        log.warning("Prefect asked for time", until=until, lasts=error.lasts, reason=error.what)
        if error.lasts:
            raise
        return {"postponed_until": until}
    except Exception as error:
        if lacks_table(error):
            reason = f"there is no table {settings().stack_name}: nothing was done"
            log.warning(NOT_PROVISIONED, reason=reason, next_step="wait, or run spotctl status")
            return {"state": NOT_PROVISIONED, "reason": reason}
        log.exception("the invocation failed", error_type=type(error).__name__)
        raise


def context_of(
    lambda_context: LambdaContext, pause: Callable[[float], None] = time.sleep
) -> Context:
    """Return the context of an invocation; `pause` waits so many seconds before a retry."""
    chosen = settings()
    not_before().begin()
    seconds = lambda_context.get_remaining_time_in_millis() / 1000
    seconds_left = countdown(seconds - SPARE_SECONDS)

    def prefect(deadline: Callable[[], float]) -> PrefectRest:
        return PrefectRest(_http(deadline, pause), _deployment_names())

    arn = lambda_context.invoked_function_arn.split(":")
    # Lambda's retries of an event carry the same request id.
    owner = f"{lambda_context.aws_request_id}/{uuid4()}"
    return Context(
        prefect=prefect(seconds_left),
        with_timeout=lambda most: prefect(countdown(min(most, seconds_left()))),
        records=RunTable(_dynamodb(), chosen.stack_name, owner),
        bills=_late(_bills),
        bills_in_time=_late(_bills_in_time),
        tasks=_late(_tasks),
        log=log_of_function(),
        now=_now,
        lease=timedelta(seconds=seconds) + LEASE_MARGIN,
        policy=policy_of(chosen, _rates()),
        clusters=chosen.ecs_clusters,
        account=arn[4],
        region=arn[3],
        work_pools=chosen.work_pools,
        grace=timedelta(seconds=chosen.sweep_grace_seconds),
        pending_grace=timedelta(seconds=chosen.pending_grace_seconds),
        seconds_left=seconds_left,
        pause=pause,
        gather=_gather,
        measure=EmfMetrics(
            chosen.stage, chosen.work_pools, by_deployment=chosen.deployment_metrics
        ).measure,
        paused=lambda: _pause_at(int(time.time() // PAUSE_KEPT_SECONDS)),
        notify=lambda notification: _notices(tuple(arn[:5])).publish(notification),
    )


def countdown(seconds: float) -> Callable[[], float]:
    """Return a clock that says how many of the seconds are left."""
    until = time.monotonic() + seconds
    return lambda: until - time.monotonic()


def _gather(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make the calls at once, and wait for all: Lambda would freeze one that is still under way."""
    futures = [_threads().submit(call) for call in calls]
    wait(futures)
    return [future.result() for future in futures]


def _late(make: Callable[[], object]) -> Any:
    """Return a port that is made when it is first called."""

    class Late:
        def __getattr__(self, method: str) -> Any:
            return getattr(make(), method)

    return Late()


@cache
def settings() -> Settings:
    """Return the settings, read once. Raises SettingError."""
    return read_settings(os.environ)


@cache
def log_of_function() -> Logger:
    """Return the log, at LOG_LEVEL; a logged error of ours shows its next step under a key."""
    log = Logger(service="prefect-spot", level=os.environ.get("LOG_LEVEL") or "INFO")
    log.addFilter(_add_next_step)
    return log


def _add_next_step(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, PrefectSpotError):
        record.next_step = error.next_step
    return True


@cache
def authorization() -> PrefectAuthorization:
    """Return what makes the Authorization header."""
    return PrefectAuthorization(
        _ssm(),
        api_key_parameter=settings().prefect_api_key_parameter,
        auth_string_parameter=settings().prefect_api_auth_string_parameter,
    )


@cache
def _ssm() -> Any:
    # Two threads may ask for the first header at once, and boto3 must not make two clients at once.
    lock, make = Lock(), cache(lambda: boto3.client("ssm"))

    def locked() -> object:
        with lock:
            return make()

    return _late(locked)


@cache
def connections() -> Connections:
    """Return the connections to Prefect."""
    return make_connections(not_before())


def make_connections(not_before: NotBefore | None = None) -> Connections:
    """Make connections to Prefect; without `not_before`, none waits for what the table says."""
    chosen = settings()
    return Connections(
        chosen.prefect_api_url,
        CALLS_AT_ONCE,
        not_before,
        headers=custom_headers(_ssm(), chosen.prefect_custom_headers_parameter),
        trust=certificates(_ssm(), chosen.prefect_ca_certificate_parameter),
    )


@cache
def not_before() -> NotBefore:
    """Return what keeps until when no request is sent, in this environment and in the table."""
    table = RunTable(_dynamodb(), settings().stack_name, "")
    return NotBefore(_now, table.read_not_now, table.save_not_now)


def _now() -> datetime:
    return datetime.now(UTC)


def _http(deadline: Callable[[], float], pause: Callable[[float], None] = time.sleep) -> JsonHttp:
    url = settings().prefect_api_url
    return JsonHttp(url, authorization(), deadline, connections=connections(), sleep=pause)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="prefect")


@cache
def _dynamodb() -> "DynamoDBClient":
    return boto3.client("dynamodb", config=AWS_CONFIG)


@lru_cache(maxsize=1)
def _pause_at(_moment: int) -> Pause | None:
    return RunTable(_dynamodb(), settings().stack_name, "").read_pause()


@cache
def _bills() -> "BillTable":
    from chalicelib.adapters.bills import BillTable  # 5 ms of a cold start's 220, in CPU

    return BillTable(_dynamodb(), settings().stack_name)


@cache
def _bills_in_time() -> "BillTable":
    from chalicelib.adapters.bills import BillTable

    # At most 2 s and one attempt for each of a fact's few requests.
    once = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})
    return BillTable(boto3.client("dynamodb", config=AWS_CONFIG.merge(once)), settings().stack_name)


@cache
def _notices(of_function: tuple[str, ...]) -> "TopicNotices":
    """Return what sends messages; `of_function`: the ARN's beginning, up to the account."""
    from chalicelib.adapters.notices import TopicNotices  # few events need it
    from chalicelib.core.rescue.notification import ui_url_of

    chosen, (_, partition, _, region, account) = settings(), of_function
    config = AWS_CONFIG.merge(SNS_CONFIG)
    return TopicNotices(
        boto3.client("sns", config=config),
        Items(_dynamodb(), chosen.stack_name, time.sleep),
        f"arn:{partition}:sns:{region}:{account}:{chosen.stack_name}-alarms",
        chosen.stage,
        ui_url_of(chosen.prefect_api_url),
        chosen.notify,
        _now,
    )


@cache
def _tasks() -> EcsTasks:
    return EcsTasks(boto3.client("ecs", config=AWS_CONFIG))


@cache
def _deployment_names() -> dict[UUID, str]:
    return {}


@cache
def _rates() -> Rates:
    chosen, table = settings(), infra.load("prices.json")
    try:
        return rates_of(table, chosen.rates, chosen.assumed_spot_discount)
    except ValueError as error:
        raise SettingError(
            f"RATES contradict the shipped rates: {error}",
            next_step="correct RATES in .chalice/config.json, then run spotctl deploy",
        ) from None
