"""Invokes a function and waits for its answer."""

import json
from dataclasses import dataclass
from typing import Any

from spotctl.context import Context


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function answered; `error` is empty when it did not fail."""

    value: Any
    error: str = ""


def invoke(context: Context, function_name: str, payload: bytes) -> Answer:
    """Invoke synchronously, once. Raises botocore's errors; a function's own becomes `error`."""
    answer = context.aws.client("lambda").invoke(
        FunctionName=function_name, InvocationType="RequestResponse", Payload=payload
    )
    body = answer["Payload"].read()
    try:
        value = json.loads(body) if body else None
    except ValueError:
        return Answer(None, f"{function_name} answered something that is not JSON")
    if not answer.get("FunctionError"):
        return Answer(value)
    told = value if isinstance(value, dict) else {}
    kind, message = told.get("errorType", "Error"), told.get("errorMessage", "no message")
    return Answer(value, f"{kind}: {message}")
