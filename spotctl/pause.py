"""Whether the stage is paused, as its table has it."""

from chalicelib.adapters.records import RunTable
from spotctl.context import Context
from spotctl.errors import RefusedError, find


def records(context: Context) -> RunTable:
    """Return the stage's table."""
    return RunTable(context.aws.client("dynamodb"), context.project.stack, owner="spotctl")


def refuse_while_paused(context: Context) -> None:
    """Raise RefusedError where a command is of no use: nothing reacts. Also botocore's errors."""
    missing = context.aws.client("dynamodb").exceptions.ResourceNotFoundException
    if pause := find(records(context).read_pause, missing):
        raise RefusedError(f"the stage is {pause}", next_step="run spotctl resume")
