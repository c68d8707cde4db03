"""How many of the account's concurrent executions are reserved for a function.

`.chalice/config.json` reserves none, since Lambda refuses that on a new account, and the first
deploy would fail; and what is not in there, each deploy takes away.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

KEPT_UNRESERVED: Final = 100
"""Executions that Lambda keeps for functions that reserve none: API reference of Lambda,
PutFunctionConcurrency. Accounts with a quota of 10 or 50 are reported to be refused with that as
the least, so they can reserve nothing."""


@dataclass(frozen=True, slots=True)
class PutConcurrency:
    """Reserve so many of the account's concurrent executions for a function: its most, too."""

    function: str
    reserved: int


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Concurrent executions: the account's `quota`, and what of it no function has reserved.

    `reserved`: by the functions that are deployed, None for nothing. 0 holds a function.
    """

    quota: int = 0
    unreserved: int = 0
    reserved: Mapping[str, int | None] = field(default_factory=dict)


def concurrency_steps(
    wanted: Mapping[str, int], found: Concurrency
) -> tuple[tuple[PutConcurrency, ...], tuple[str, str] | None]:
    """Return the steps that reserve what is wanted, and what does not fit, with the next step.

    `wanted`: by the functions, 0 for nothing. Whatever a function has reserved stays, 0 as well,
    by which an operator, or `spotctl teardown`, holds one.
    """
    steps: list[PutConcurrency] = []
    short: dict[str, int] = {}
    left = found.unreserved
    for function, number in wanted.items():
        if not number or found.reserved.get(function, 0) is not None:
            continue
        if left - number < KEPT_UNRESERVED:
            short[function] = number
        else:
            steps.append(PutConcurrency(function, number))
            left -= number
    if not short:
        return tuple(steps), None
    quota = found.quota + sum(short.values()) + KEPT_UNRESERVED - left
    what = f"the account leaves {left} of {found.quota} concurrent executions unreserved, and"
    what += f" Lambda keeps {KEPT_UNRESERVED}: no reserved concurrency for {' and '.join(short)}"
    next_step = f"ask for a quota of {quota} or more (Service Quotas, AWS Lambda, Concurrent"
    return tuple(steps), (what, f"{next_step} executions)")
