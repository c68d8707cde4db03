"""Lambda on the laptop: what `chalice deploy` put into moto runs here, with Lambda's retry rules.

Each function has a queue and a few execution environments: started when needed, reused warm,
replaced after a death, a timeout, or a change of code or configuration.
"""

from __future__ import annotations

import json
import logging
import queue
import random
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.awslambda.exceptions import UnknownFunctionException
from moto.awslambda.models import LambdaFunction

from localcloud import lambda_invoke
from localcloud.aws import EmulatedAws
from localcloud.lambda_environment import (
    ExecutionEnvironment,
    FunctionConfig,
    Outcome,
    Status,
)
from localcloud.lambda_invoke import LambdaAnswer, LambdaHooks
from localcloud.processes import Household

RETRY_SECONDS = (60.0, 120.0)  # after the first and the second failed try of an asynchronous event

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Invocation:
    """One try of one event."""

    function: str
    request_id: str
    attempt: int
    event: Any
    status: Status
    answer: Any
    error: dict[str, Any] | None
    seconds: float
    """Of the handler, without init."""
    logs: list[str]
    """What it printed; an environment's first try also has what init printed."""


@dataclass(frozen=True)
class _Request:
    function: str
    event: Any
    request_id: str
    attempt: int = 1
    reply: queue.SimpleQueue[Invocation] | None = None  # None: asynchronous


class _Fleet:
    """One function's queue and its idle environments."""

    def __init__(self) -> None:
        self.requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self.idle: list[ExecutionEnvironment] = []


class LambdaService:
    """Invokes the functions that moto's Lambda backend holds, until `stop()`.

    `retry_scale` multiplies the 60 and 120 s Lambda waits before its two more tries.
    `concurrency` is how many environments each function may have, unless fewer are reserved for it.
    """

    def __init__(
        self,
        household: Household,
        aws: EmulatedAws,
        runtime_python: Path,
        *,
        retry_scale: float,
        concurrency: int = 2,
    ) -> None:
        self.invocations: list[Invocation] = []
        self.exhausted: list[Invocation] = []
        self._household = household
        self._aws = aws
        self._runtime_python = runtime_python
        self._retry_scale = retry_scale
        self._concurrency = concurrency
        self._fleets: dict[str, _Fleet] = {}
        self._workers: list[threading.Thread] = []
        self._environments: set[ExecutionEnvironment] = set()
        self._timers: set[threading.Timer] = set()
        # Asynchronous events as text, by request id; those waiting for another try included.
        self._unsettled: dict[str, str] = {}
        self._changed = threading.Condition()
        self._stopped = False

    def __enter__(self) -> LambdaService:
        """Answer AWS's own Invoke as well."""
        lambda_invoke.connect(LambdaHooks(self._answer_to_invoke, self.invoke_async))
        return self

    def __exit__(self, *_: object) -> None:
        lambda_invoke.connect(None)
        self.stop()

    def invoke(self, function_name: str, payload: Any) -> Invocation:
        """Invoke synchronously: one try. Raises LookupError for an unknown function."""
        reply: queue.SimpleQueue[Invocation] = queue.SimpleQueue()
        self._function(function_name)
        self._submit(_Request(function_name, payload, str(uuid.uuid4()), reply=reply))
        return reply.get()

    def _answer_to_invoke(self, function_name: str, payload: object) -> LambdaAnswer:
        invocation = self.invoke(function_name, payload)
        if invocation.status == "ok":
            return LambdaAnswer(invocation.answer)
        return LambdaAnswer(invocation.error, failed=True)

    def invoke_async(self, function_name: str, event: Any) -> str:
        """Queue an event and return its request id, the same on each of its up to three tries.

        Raises LookupError for an unknown function.
        """
        self._function(function_name)
        request = _Request(function_name, event, str(uuid.uuid4()))
        with self._changed:
            self._unsettled[request.request_id] = json.dumps(event)
        self._submit(request)
        return request.request_id

    def wait_idle(self, timeout: float, about: str = "") -> None:
        """Wait until every asynchronous event that holds `about` succeeded or is exhausted.

        Raises TimeoutError after `timeout` seconds.
        """

        def under_way() -> int:
            return sum(about in text for text in self._unsettled.values())

        with self._changed:
            if not self._changed.wait_for(lambda: not under_way(), timeout):
                raise TimeoutError(f"{under_way()} events still under way after {timeout} s")

    def kill_one_at_work(self, chance: random.Random) -> bool:
        """Kill an environment in the midst of an invocation; return whether there was one."""
        with self._changed:
            idle = [e for fleet in self._fleets.values() for e in fleet.idle]
            at_work = sorted((e for e in self._environments if e not in idle), key=id)
        if not at_work:
            return False
        chance.choice(at_work).end()
        return True

    def stop(self) -> None:
        """End all environments; events that wait are dropped."""
        with self._changed:
            self._stopped = True
            for timer in self._timers:
                timer.cancel()
            environments = list(self._environments)
        for fleet in self._fleets.values():
            for _ in range(self._concurrency):
                fleet.requests.put(None)
        for environment in environments:
            environment.end()
        for worker in self._workers:
            worker.join(timeout=10)

    def _submit(self, request: _Request) -> None:
        with self._changed:
            if self._stopped:
                raise RuntimeError("the emulated Lambda is stopped")
            fleet = self._fleets.get(request.function)
            if fleet is None:
                fleet = self._fleets[request.function] = _Fleet()
                for _ in range(self._concurrency_of(request.function)):
                    worker = threading.Thread(target=self._work, args=(fleet,), daemon=True)
                    self._workers.append(worker)
                    worker.start()
        fleet.requests.put(request)

    def _concurrency_of(self, function_name: str) -> int:
        """What is reserved is read at the function's first event, and then stays."""
        reserved = self._function(function_name).reserved_concurrency
        return min(self._concurrency, int(reserved or self._concurrency))

    def _work(self, fleet: _Fleet) -> None:
        while (request := fleet.requests.get()) is not None and not self._stopped:
            try:
                self._settle(request, self._try(fleet, request))
            except Exception:
                _log.exception("embedded Lambda: %s", request.function)

    def _try(self, fleet: _Fleet, request: _Request) -> Invocation:
        try:
            config = FunctionConfig.of(self._function(request.function))
            environment = self._environment(fleet, config)
            outcome = environment.run(request.request_id, json.dumps(request.event).encode())
        except Exception as error:  # deleted meanwhile, or a zip that is none: AWS's own failure
            _log.exception("embedded Lambda: %s could not be run", request.function)
            described = {"errorType": type(error).__name__, "errorMessage": str(error)}
            outcome = Outcome("error", 0.0, [], error=described)
        else:
            self._put_back(fleet, environment)
        invocation = Invocation(
            request.function, request.request_id, request.attempt, request.event, **vars(outcome)
        )
        self.invocations.append(invocation)
        return invocation

    def _environment(self, fleet: _Fleet, config: FunctionConfig) -> ExecutionEnvironment:
        """Take an idle environment of this very configuration, or start one."""
        with self._changed:
            idle, fleet.idle = fleet.idle, []
            usable = [e for e in idle if e.is_alive and e.config == config]
            fleet.idle = usable[:-1]
        for environment in idle:
            if environment not in usable:
                self._end(environment)
        if usable:
            return usable[-1]
        environment = ExecutionEnvironment(self._household, self._aws, self._runtime_python, config)
        with self._changed:
            self._environments.add(environment)
            if not self._stopped:
                return environment
        self._end(environment)
        raise RuntimeError("the emulated Lambda is stopped")

    def _put_back(self, fleet: _Fleet, environment: ExecutionEnvironment) -> None:
        with self._changed:
            if environment.is_alive:
                fleet.idle.append(environment)
            else:
                self._environments.discard(environment)

    def _end(self, environment: ExecutionEnvironment) -> None:
        with self._changed:
            self._environments.discard(environment)
        environment.end()

    def _settle(self, request: _Request, invocation: Invocation) -> None:
        """Answer the caller, or retry as Lambda retries asynchronous events, or give up."""
        if request.reply is not None:
            request.reply.put(invocation)
            return
        config = self._event_invoke_config(request.function)
        retries = config.get("MaximumRetryAttempts", len(RETRY_SECONDS))
        if invocation.status != "ok" and request.attempt <= retries:
            self._retry(request)
            return
        try:
            if invocation.status != "ok":
                self.exhausted.append(invocation)
                self._send_to_destination(config, invocation)
        finally:
            with self._changed:
                del self._unsettled[request.request_id]
                self._changed.notify_all()

    def _retry(self, request: _Request) -> None:
        following = _Request(
            request.function, request.event, request.request_id, request.attempt + 1
        )

        def submit() -> None:
            with self._changed:
                self._timers.discard(timer)
                if self._stopped:
                    return
            self._submit(following)

        seconds = RETRY_SECONDS[request.attempt - 1] * self._retry_scale
        timer = threading.Timer(seconds, submit)
        timer.daemon = True
        with self._changed:
            self._timers.add(timer)
        timer.start()

    def _send_to_destination(self, config: dict[str, Any], invocation: Invocation) -> None:
        arn = config.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        if not arn:
            return
        if ":sqs:" not in arn:
            _log.error("embedded Lambda: only SQS destinations are emulated, not %s", arn)
            return
        sqs = self._aws.client("sqs")
        message = {
            "version": "1.0",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "requestContext": {
                "requestId": invocation.request_id,
                "functionArn": f"{self._function(invocation.function).function_arn}:$LATEST",
                "condition": "RetriesExhausted",
                "approximateInvokeCount": invocation.attempt,
            },
            "requestPayload": invocation.event,
            "responseContext": {
                "statusCode": 200,
                "executedVersion": "$LATEST",
                "functionError": "Unhandled",
            },
            "responsePayload": invocation.error,
        }
        queue_url = sqs.get_queue_url(QueueName=arn.split(":")[-1])["QueueUrl"]
        sqs.send_message(QueueUrl=queue_url, MessageBody=json.dumps(message))

    def _event_invoke_config(self, function_name: str) -> dict[str, Any]:
        try:
            configs = self._function(function_name).event_invoke_config
        except LookupError:
            return {}
        return configs[-1].config if configs else {}  # moto appends where AWS replaces

    def _function(self, name: str) -> LambdaFunction:
        try:
            return self._aws.lambdas.get_function(name)
        except UnknownFunctionException as error:
            raise LookupError(f"no Lambda function {name} is deployed: {error}") from error
