"""A CloudFormation stack as it is: what its status asks for, and why it failed.

`adapters/stack.py` reads it, `core/provision/plan.py` plans by it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Final

from chalicelib.core.model.text import one_line

TEMPLATE_TAG: Final = "prefect-spot:template"
"""The stack's tag with its template's hash; a stack without it is not ours to change."""

MOST_FAILURES: Final = 5
"""How many failed resources are told of: the first is the cause, later ones follow from it."""


class Standing(Enum):
    """What a stack's status asks for."""

    ABSENT = auto()
    """There is none: create it."""
    BUSY = auto()
    """CloudFormation is at work: wait."""
    SETTLED = auto()
    """It stands: update it where it differs."""
    HALF_UPDATED = auto()
    """An update stopped half-way, and nobody rolled it back: update it, whatever it says."""
    BROKEN = auto()
    """It never came up, or was to be deleted anyway: delete it, to create it anew."""
    STUCK = auto()
    """Only a person gets it out of there."""


class Condition(StrEnum):
    """Where all of it stands, in a word: the `state` of the function's answer."""

    READY = "ready"
    PENDING = "pending"
    CREATING = "creating"
    UPDATING = "updating"
    RECOVERING = "recovering"
    DELETING = "deleting"
    BLOCKED = "blocked"
    FAILED = "failed"


STATUSES: Final[Mapping[str, tuple[Standing, Condition]]] = {
    "CREATE_IN_PROGRESS": (Standing.BUSY, Condition.CREATING),
    "CREATE_FAILED": (Standing.BROKEN, Condition.RECOVERING),
    "CREATE_COMPLETE": (Standing.SETTLED, Condition.READY),
    "ROLLBACK_IN_PROGRESS": (Standing.BUSY, Condition.RECOVERING),
    "ROLLBACK_FAILED": (Standing.BROKEN, Condition.RECOVERING),
    "ROLLBACK_COMPLETE": (Standing.BROKEN, Condition.RECOVERING),
    "DELETE_IN_PROGRESS": (Standing.BUSY, Condition.DELETING),
    "DELETE_FAILED": (Standing.BROKEN, Condition.RECOVERING),
    "DELETE_COMPLETE": (Standing.ABSENT, Condition.CREATING),
    "UPDATE_IN_PROGRESS": (Standing.BUSY, Condition.UPDATING),
    "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS": (Standing.BUSY, Condition.UPDATING),
    "UPDATE_COMPLETE": (Standing.SETTLED, Condition.READY),
    "UPDATE_FAILED": (Standing.HALF_UPDATED, Condition.RECOVERING),
    "UPDATE_ROLLBACK_IN_PROGRESS": (Standing.BUSY, Condition.RECOVERING),
    "UPDATE_ROLLBACK_FAILED": (Standing.STUCK, Condition.FAILED),
    "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS": (Standing.BUSY, Condition.RECOVERING),
    "UPDATE_ROLLBACK_COMPLETE": (Standing.SETTLED, Condition.READY),
    "REVIEW_IN_PROGRESS": (Standing.STUCK, Condition.FAILED),
    "IMPORT_IN_PROGRESS": (Standing.BUSY, Condition.UPDATING),
    "IMPORT_COMPLETE": (Standing.SETTLED, Condition.READY),
    "IMPORT_ROLLBACK_IN_PROGRESS": (Standing.BUSY, Condition.RECOVERING),
    "IMPORT_ROLLBACK_FAILED": (Standing.STUCK, Condition.FAILED),
    "IMPORT_ROLLBACK_COMPLETE": (Standing.SETTLED, Condition.READY),
}
"""Every status there is. A rollback without UPDATE in its name is that of a first creation."""

ROLLED_BACK: Final = frozenset({"UPDATE_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"})
"""Where the stack's tags may still be those of the update that failed."""

_BEGINNINGS: Final = frozenset(
    {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "IMPORT_IN_PROGRESS"}
)
_CANCELLED: Final = "cancelled"


@dataclass(frozen=True, slots=True)
class StackEvent:
    """One line of a stack's history. `is_whole`: about the stack itself, not a resource of it."""

    resource: str
    resource_type: str
    status: str
    reason: str
    is_whole: bool


@dataclass(frozen=True, slots=True)
class StackFailure:
    """A resource that failed, and AWS's reason."""

    resource: str
    resource_type: str
    reason: str

    def __str__(self) -> str:
        return f"{self.resource} ({self.resource_type}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack as CloudFormation describes it. `id` is one life's: a successor has another.

    `template_hash`: of the template it has; empty when nobody can tell. `is_ours`: it has our tag.
    """

    id: str
    name: str
    status: str
    template_hash: str = ""
    is_ours: bool = True
    parameters: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[StackFailure, ...] = ()


def standing_of(stack: Stack | None) -> tuple[Standing, Condition]:
    """Return what a stack asks for; a status that is newer than this table, by its ending."""
    if stack is None:
        return Standing.ABSENT, Condition.CREATING
    if stack.status in STATUSES:
        return STATUSES[stack.status]
    if stack.status.endswith("_IN_PROGRESS"):
        return Standing.BUSY, Condition.PENDING
    return Standing.STUCK, Condition.FAILED


def failures_in(newest_first: Iterable[StackEvent]) -> tuple[StackFailure, ...]:
    """Return what failed in the stack's last operation, the cause first.

    Resources that were only cancelled because another one failed are left out.
    """
    failed: list[StackFailure] = []
    for event in newest_first:
        if event.is_whole:
            if event.status in _BEGINNINGS:
                break
            continue
        if event.status.endswith("_FAILED") and _CANCELLED not in event.reason:
            reason = one_line(event.reason, 400)
            failed.append(StackFailure(event.resource, event.resource_type, reason))
    return tuple(reversed(failed))[:MOST_FAILURES]
