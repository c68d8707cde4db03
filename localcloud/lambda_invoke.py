"""Invoke of the AWS API, for moto's Lambda: as it comes, it wants Docker.

Whoever runs the functions connects here; without anybody connected, Invoke stays as moto makes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moto.awslambda.models import LambdaFunction


@dataclass(frozen=True)
class LambdaAnswer:
    """What a function answered to a synchronous invocation; `failed`: with an error."""

    payload: object
    failed: bool = False


@dataclass(frozen=True)
class LambdaHooks:
    """How moto's Lambda reaches the one who runs the functions, by their names."""

    invoke: Callable[[str, object], LambdaAnswer]
    invoke_async: Callable[[str, object], object]


_motos_own: Any = LambdaFunction.invoke
_function: Any = LambdaFunction


def connect(hooks: LambdaHooks | None) -> None:
    """Hand invocations to `hooks`, or with None back to moto."""

    def invoke(self: LambdaFunction, body: str, request_headers: Any, answer_headers: Any) -> Any:
        assert hooks is not None
        event = json.loads(body) if body else {}
        if request_headers.get("X-Amz-Invocation-Type") == "Event":
            hooks.invoke_async(self.function_name, event)
            return b""
        answer = hooks.invoke(self.function_name, event)
        if answer.failed:
            answer_headers["x-amz-function-error"] = "Unhandled"
        return json.dumps(answer.payload).encode()

    _function.invoke = invoke if hooks else _motos_own
