"""Goes through all parts; one that cannot be looked at is a failed row, not the end."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import PrefectSpotError
from spotctl.context import Context
from spotctl.errors import explain
from spotctl.rows import Row, failed
from spotctl.status import deployments, handler, observers, prefect_side, provisioned, stack

T = TypeVar("T")


def status(context: Context) -> list[Row]:
    """Return the rows of all parts. Raises nothing that a part's look may raise."""
    found = _try("Prefect", lambda: prefect_side.look(context))
    pool = None if isinstance(found, Row) else found.pool
    return [
        *_judged("stack", lambda: stack.rows(stack.look(context))),
        *_judged("provision", lambda: provisioned.rows(provisioned.look(context))),
        *_judged("handler", lambda: handler.rows(handler.look(context))),
        *([found] if isinstance(found, Row) else prefect_side.rows(found)),
        *_judged("other observers", lambda: observers.rows(observers.look(context))),
        *(
            _judged(
                "deployments", lambda: deployments.rows(deployments.look(context, pool.template))
            )
            if pool and pool.type == "ecs"
            else ()
        ),
    ]


def _judged(part: str, rows: Callable[[], list[Row]]) -> Iterable[Row]:
    judged = _try(part, rows)
    return [judged] if isinstance(judged, Row) else judged


def _try(part: str, ask: Callable[[], T]) -> T | Row:
    try:
        return ask()
    except (BotoCoreError, ClientError, PrefectSpotError) as error:
        what, step = explain(error)
        return failed(part, f"it cannot be looked at: {what}", step)
