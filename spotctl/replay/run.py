"""Reads the record from the stage's table, and replays it. The only I/O of `replay`."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from chalicelib.adapters.bills import BillTable
from chalicelib.adapters.records import RunTable
from chalicelib.core.model.flow_run import RunRecord
from chalicelib.settings import ROWS, Settings, policy_of
from spotctl.context import Context
from spotctl.errors import RefusedError
from spotctl.replay.again import as_recorded, replay
from spotctl.replay.figures import figures_of, not_known, nothing_to_decide
from spotctl.replay.history import interrupted_runs, join, runs_of
from spotctl.report import days_since

MOST_DAYS: Final = 90
"""As far back as bills and run records are kept."""

SETTING: Final = "SPOT_RETRIES"
"""The one setting that a replay changes."""

_AT_ONCE: Final = 100
"""Records that DynamoDB returns per request."""


def read_change(option: str | None) -> Mapping[str, str]:
    """Read the value of `--set`, SPOT_RETRIES=n or auto; empty for None.

    Raises RefusedError: says what is accepted.
    """
    if option is None:
        return {}
    name, equals, value = option.partition("=")
    try:
        if not equals or name != SETTING:
            raise ValueError
        ROWS[SETTING.lower()].form.read(value)
    except ValueError:
        raise RefusedError(
            f"--set {option!r} cannot be replayed: accepted is {SETTING}=n or {SETTING}=auto",
            next_step=f"pass --set {SETTING}=2, or another number, or auto",
        ) from None
    return {name: value}


def run_replay(
    context: Context, since: str, changes: Mapping[str, str], changed: Settings
) -> dict[str, Any]:
    """Replay the runs that ended in the period, under the stage's budget and that of `changed`.

    Returns the record, and what becomes of it under either, for JSON. Raises RefusedError: `since`
    is not a period. Also botocore's errors and ThrottledError.
    """
    days = days_since(since, context.now().date(), MOST_DAYS)
    client, project = context.aws.client("dynamodb"), context.project
    billed = runs_of(BillTable(client, project.stack).read_bills(), days[0])
    table, needed = RunTable(client, project.stack, owner=""), interrupted_runs(billed)
    records: dict[UUID, RunRecord] = {}
    for start in range(0, len(needed), _AT_ONCE):
        records |= table.read_many(needed[start : start + _AT_ONCE])
    runs = join(billed, records)
    recorded = figures_of(as_recorded(runs))
    courses = replay(runs, policy_of(changed, {}))
    return {
        "since": days[0],
        "until": days[-1],
        "settings": {SETTING: str(project.settings.spot_retries)},
        "changes": changes,
        "as_recorded": recorded.as_mapping(),
        "same_settings": figures_of(replay(runs, policy_of(project.settings, {}))).as_mapping(),
        "other_settings": figures_of(courses).as_mapping(),
        "nothing_to_decide": nothing_to_decide(courses) if changes else "",
        "not_known": list(not_known(recorded, courses)),
    }
