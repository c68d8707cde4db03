"""Provisional."""

from dataclasses import dataclass
from enum import StrEnum


class StartFailureKind(StrEnum):
    """Provisional."""

    REFUSAL = "refusal"
    PASSING = "passing"
    LASTING = "lasting"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Provisional."""

    kind: StartFailureKind
    what: str
    remedy: str


def is_submission_failure(message: str) -> bool:
    """Provisional."""
    return "submitted to infrastructure" in message or "Failed to submit flow run" in message


def start_failure_of(reason: str) -> StartFailure:
    """Provisional."""
    text = reason.lower()
    if "capacity is unavailable" in text:
        kind = StartFailureKind.REFUSAL
    elif "not found" in text or "inactive" in text:
        kind = StartFailureKind.LASTING
    elif "timeout" in text or "throttl" in text or "429" in text:
        kind = StartFailureKind.PASSING
    else:
        kind = StartFailureKind.UNKNOWN
    return StartFailure(kind, "its start failed", "look at it")
