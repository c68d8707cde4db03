"""Lambda on the laptop: what `chalice deploy` put into moto runs here, with Lambda's retry rules.

Each function has a queue and a few execution environments: started when needed, reused warm,
replaced after a death, a timeout, or a change of code or configuration.
"""

import json
import logging
import random
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from moto.awslambda.exceptions import UnknownFunctionException
from moto.awslambda.models import LambdaFunction

from localcloud import moto_additions
from localcloud.aws import EmulatedAws
from localcloud.lambda_environment import ExecutionEnvironment, FunctionConfig, Outcome
from localcloud.moto_additions import LambdaAnswer, LambdaHooks
from localcloud.processes import Supervisor

RETRY_SECONDS = (60.0, 120.0)  # after the first and the second failed try of an asynchronous event

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Invocation(Outcome):
    """One try of one event; an environment's first try also has in `logs` what init printed."""

    function: str
    request_id: str
    attempt: int
    event: Any


@dataclass(frozen=True)
class _Request:
    function: str
    event: Any
    request_id: str
    attempt: int = 1


class LambdaService:
    """Invokes the functions that moto's Lambda backend holds, as long as the `with` block lasts.

    `retry_scale` multiplies the 60 and 120 s Lambda waits before its two more tries.
    `concurrency` is how many environments each function may have, unless fewer are reserved for it.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        aws: EmulatedAws,
        runtime_python: Path,
        *,
        retry_scale: float,
        concurrency: int = 2,
    ) -> None:
        self.invocations: list[Invocation] = []
        self.exhausted: list[Invocation] = []
        self._supervisor = supervisor
        self._aws = aws
        self._runtime_python = runtime_python
        self._retry_scale = retry_scale
        self._concurrency = concurrency
        # By function and size; a thread per environment.
        self._pools: dict[tuple[str, int], ThreadPoolExecutor] = {}
        self._idle: defaultdict[str, list[ExecutionEnvironment]] = defaultdict(list)
        self._busy: set[ExecutionEnvironment] = set()
        # Asynchronous events as text, by request id; those waiting for another try included.
        self._unsettled: dict[str, str] = {}
        self._changed = threading.Condition()
        self._stopped = False

    def __enter__(self) -> Self:
        """Answer AWS's own Invoke as well."""
        moto_additions.connect_lambda(LambdaHooks(self._answer_to_invoke, self.invoke_async))
        return self

    def __exit__(self, *_: object) -> None:
        """End all environments; events that wait are dropped."""
        moto_additions.connect_lambda(None)
        with self._changed:
            self._stopped = True
            environments = [*self._busy, *(e for idle in self._idle.values() for e in idle)]
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        for environment in environments:
            environment.end()
        for pool in self._pools.values():
            pool.shutdown()

    def invoke(self, function_name: str, payload: Any) -> Invocation:
        """Invoke synchronously: one try. Raises UnknownFunctionException."""
        request = _Request(function_name, payload, str(uuid.uuid4()))
        return self._pool(function_name).submit(self._try, request).result()

    def _answer_to_invoke(self, function_name: str, payload: object) -> LambdaAnswer:
        invocation = self.invoke(function_name, payload)
        if invocation.status == "ok":
            return LambdaAnswer(invocation.answer)
        return LambdaAnswer(invocation.error, failed=True)

    def invoke_async(self, function_name: str, event: Any) -> str:
        """Queue an event and return its request id, the same on each of its up to three tries.

        Raises UnknownFunctionException.
        """
        pool, request = self._pool(function_name), _Request(function_name, event, str(uuid.uuid4()))
        with self._changed:
            self._unsettled[request.request_id] = json.dumps(event)
        pool.submit(self._settle, request)
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
        """Kill an environment during an invocation; return whether there was one."""
        with self._changed:
            busy = sorted(self._busy, key=id)
        if not busy:
            return False
        chance.choice(busy).end()
        return True

    def _pool(self, function_name: str) -> ThreadPoolExecutor:
        """Return a function's pool: another one once another concurrency is reserved for it."""
        reserved = self._function(function_name).reserved_concurrency
        pool = function_name, min(self._concurrency, int(reserved or self._concurrency))
        with self._changed:
            if self._stopped:
                raise RuntimeError("the emulated Lambda is stopped")
            if pool not in self._pools:
                self._pools[pool] = ThreadPoolExecutor(pool[1], function_name)
            return self._pools[pool]

    def _try(self, request: _Request) -> Invocation:
        try:
            config = FunctionConfig.of(self._function(request.function))
            with self._environment(config) as environment:
                outcome = environment.run(request.request_id, json.dumps(request.event).encode())
        except Exception as error:  # deleted meanwhile, or a zip that is none: AWS's own failure
            _log.exception("embedded Lambda: %s could not be run", request.function)
            described = {"errorType": type(error).__name__, "errorMessage": str(error)}
            outcome = Outcome("error", 0.0, [], error=described)
        invocation = Invocation(**vars(request), **vars(outcome))
        self.invocations.append(invocation)
        return invocation

    @contextmanager
    def _environment(self, config: FunctionConfig) -> Iterator[ExecutionEnvironment]:
        """Lend an idle environment of this very configuration, or a new one."""
        with self._changed:
            idle = self._idle.pop(config.name, [])
            usable = [e for e in idle if e.is_alive and e.config == config]
            self._idle[config.name] = usable[:-1]
        for outdated in set(idle) - set(usable):
            outdated.end()
        environment = (
            usable[-1]
            if usable
            else ExecutionEnvironment(self._supervisor, self._aws, self._runtime_python, config)
        )
        with self._changed:
            self._busy.add(environment)
        try:
            if self._stopped:  # which did not see this one
                raise RuntimeError("the emulated Lambda is stopped")
            yield environment
        finally:
            with self._changed:
                self._busy.discard(environment)
                if is_reusable := environment.is_alive and not self._stopped:
                    self._idle[config.name].append(environment)
            if not is_reusable:
                environment.end()

    def _settle(self, request: _Request) -> None:
        """Try an asynchronous event; on failure retry it as Lambda does, or give it up."""
        invocation = self._try(request)
        config = self._event_invoke_config(request.function)
        retries = config.get("MaximumRetryAttempts", len(RETRY_SECONDS))
        if invocation.status != "ok" and request.attempt <= retries:
            self._retry(request)
            return
        try:
            if invocation.status != "ok":
                self.exhausted.append(invocation)
                self._send_to_destination(config, invocation)
        except Exception:
            _log.exception("embedded Lambda: %s has no destination", request.function)
        finally:
            with self._changed:
                del self._unsettled[request.request_id]
                self._changed.notify_all()

    def _retry(self, request: _Request) -> None:
        following = replace(request, attempt=request.attempt + 1)
        pools = [pool for (name, _), pool in self._pools.items() if name == request.function]

        def submit() -> None:
            with suppress(RuntimeError):  # stopped meanwhile
                pools[-1].submit(self._settle, following)

        timer = threading.Timer(RETRY_SECONDS[request.attempt - 1] * self._retry_scale, submit)
        timer.daemon = True
        timer.start()

    def _send_to_destination(self, config: dict[str, Any], invocation: Invocation) -> None:
        arn = config.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        if not arn:
            return
        message = {
            "requestContext": {
                "requestId": invocation.request_id,
                "functionArn": f"{self._function(invocation.function).function_arn}:$LATEST",
                "condition": "RetriesExhausted",
                "approximateInvokeCount": invocation.attempt,
            },
            "requestPayload": invocation.event,
            "responsePayload": invocation.error,
        }
        self._aws.send(arn, message)

    def _event_invoke_config(self, function_name: str) -> dict[str, Any]:
        try:
            configs = self._function(function_name).event_invoke_config
        except UnknownFunctionException:  # deleted meanwhile
            return {}
        return configs[-1].config if configs else {}  # moto appends where AWS replaces

    def _function(self, name: str) -> LambdaFunction:
        return self._aws.lambdas.get_function(name)
