"""Reads the record from the stack's table, and replays it. The only I/O of `replay`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from chalicelib.adapters.bills import BillTable
from chalicelib.adapters.table import RunTable
from chalicelib.core.record import RunRecord
from chalicelib.core.situation import Mode, Policy
from chalicelib.settings import Settings
from spotctl.errors import RefusedError
from spotctl.project import read_project
from spotctl.replay.again import as_recorded, replay
from spotctl.replay.figures import figures_of, not_known
from spotctl.replay.history import RecordedRun, interrupted_runs, join, runs_of
from spotctl.replay.settings import refuse_observe, values_of
from spotctl.replay.show import Replay
from spotctl.report import days_since
from spotctl.world import World

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MOST_DAYS = 90
"""As far back as bills and records are kept."""

_AT_ONCE = 100
