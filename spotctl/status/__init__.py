"""`spotctl status`: every part, its state, and the next step.

One file per group of parts. In each, `read` asks AWS or Prefect and returns what it found as
values, and `rows` judges them, without I/O.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.core.provision.pool_template import wrong_type
from chalicelib.errors import PrefectSpotError
from spotctl.context import Context
from spotctl.errors import explain
from spotctl.output import Exit, Output, Row, State, csv_of_rows, exit_of, failed, table_of_rows
from spotctl.prefect import WorkPool
from spotctl.status import (
    deployments,
    handler,
    observers,
    prefect_side,
    provisioning,
    stack,
    stopped,
)

T = TypeVar("T")

_ODD: Final = (AttributeError, LookupError, TypeError, ValueError)
"""What comes of values of others that are not of the form they should have."""


def status(context: Context) -> list[Row]:
    """Return the rows of all parts. A part that cannot be read is a failed row, and no error."""
    project, mode = context.project, context.project.settings.mode
    in_prefect = _try("Prefect", lambda: prefect_side.read(context))
    rows = [
        *_rows("stack", lambda: stack.rows(stack.read(context), project)),
        *_rows("provision", lambda: provisioning.rows(provisioning.read(context))),
        *_rows("handler", lambda: handler.rows(handler.read(context), project)),
        *(
            [in_prefect]
            if isinstance(in_prefect, Row)
            else _rows("Prefect", lambda: prefect_side.rows(in_prefect, project))
        ),
        *_rows("flows", lambda: stopped.rows_of_flows(context)),
        *_rows("other observers", lambda: observers.rows(observers.read(context), mode)),
    ]
    if isinstance(in_prefect, Row):
        return rows
    for pool in in_prefect.pools:
        if pool.found and not wrong_type(pool.found.type, is_full=not project.is_rescue_only):
            judge = partial(_deployments, context, pool.found, in_prefect)
            rows += _rows("deployments", judge)
    return rows


def _deployments(context: Context, pool: WorkPool, found: prefect_side.Found) -> list[Row]:
    read = deployments.read(context, pool, found.version)
    first, *rest = deployments.rows(read, context.project)
    return [prefect_side.of_one_of_several(first, pool.name, len(found.pools) > 1), *rest]


def show_status(context: Context, output: Output, rows: list[Row]) -> Exit:
    """Print the rows; return their exit code."""
    verdict = exit_of(rows)
    title = f"prefect-spot, stage {context.project.stage}, {context.aws.region}"
    output.result(
        {
            "stage": context.project.stage,
            "region": context.aws.region,
            "ok": verdict is Exit.OK,
            "warnings": sum(row.state is State.WARNING for row in rows),
            "rows": rows,
        },
        lambda: table_of_rows(title, rows),
        lambda: csv_of_rows(rows),
    )
    return verdict


def _rows(part: str, judge: Callable[[], list[Row]]) -> list[Row]:
    judged = _try(part, judge)
    return [judged] if isinstance(judged, Row) else judged


def _try(part: str, read: Callable[[], T]) -> T | Row:
    try:
        return read()
    except (BotoCoreError, ClientError, PrefectSpotError) as error:
        what, next_step = explain(error)
        return failed(part, f"it cannot be read: {what}", next_step)
    except _ODD as error:
        what = f"it is of an odd form: {type(error).__name__}: {error}"
        return failed(part, what, "correct it, such as the pool's base job template in Prefect")
