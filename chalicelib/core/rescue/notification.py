"""The message about a run that is lost, or moved to on-demand: what it says, and when it is due.

A run is *lost* when it ends Crashed because its task died, or never started, and nothing starts it
again, for any reason but its owner's own: no deployment, `spot:never-rerun`, not opted in. A *move*
is its one change from Spot to FARGATE. Both are seen by what a handling of the run did, at its end:
so a message never changes a decision.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from chalicelib.core.model.flow_run import FailedStart, FlowRun, Interruption, RunRecord
from chalicelib.core.model.policy import Mode, Notify, reason_not_to_rerun
from chalicelib.core.model.text import one_line
from chalicelib.core.rescue.actions import Decision, Verdict
from chalicelib.core.rescue.orphans import LONG_AGO, explain, is_annotated
from chalicelib.core.rescue.snapshot import Subject

SUBJECT_LENGTH: Final = 100
"""ASCII characters that SNS takes as a subject (SNS API reference, Publish)."""
TEXT_LENGTH: Final = 1_000
_CLOUD: Final = "https://api.prefect.cloud/"


@dataclass(frozen=True, slots=True)
class Notification:
    """A message about one run. `why` is text from outside; `deployment`: flow/deployment."""

    kind: Notify
    flow_run_id: UUID
    flow_run_name: str
    why: str
    deployment: str = ""

    @property
    def title(self) -> str:
        """What happened, in a line; what is cut of a long one are names."""
        what = "run lost" if self.kind is Notify.LOSSES else "run moved to on-demand"
        of = f" of {one_line(self.deployment)}" if self.deployment else ""
        return f"{what}: {one_line(self.flow_run_name)}{of}"

    def text(self, ui_url: str) -> str:
        """Return the message, with a link to the run."""
        means = "It leaves Spot, and goes on on FARGATE."
        if self.kind is Notify.LOSSES:
            means = "It is Crashed, and nothing starts it again."
        why = f"Why: {one_line(self.why, TEXT_LENGTH)}"
        url = f"The run: {ui_url}/runs/flow-run/{self.flow_run_id}"
        return f"{self.title}\n{means}\n\n{why}\n\n{url}\n"


def notification_of(
    subject: Subject,
    run: FlowRun,
    before: RunRecord,
    after: RunRecord,
    decision: Decision,
    mode: Mode,
    *,
    ended: bool,
) -> Notification | None:
    """Return the message about what one handling of a run did; None for none, as in observe mode.

    `before` and `after`: the run's record at its begin and end: what is on record is reported when
    its outcome is annotated, so once. `ended`: it ended the run, for a death that is not recorded.
    """
    key, verdict, why = subject.arn, decision.verdict, decision.reason
    annotated = is_annotated(after, key) and not is_annotated(before, key)
    is_new = annotated or (ended and key not in {**after.interruptions, **after.failed_starts})
    if mode is Mode.OBSERVE or not is_new:
        return None
    if verdict is Verdict.FINISH_RERUN and _is_move(key, after):
        return Notification(Notify.MOVES, run.id, run.name, why)
    if verdict is not Verdict.MARK_CRASHED or reason_not_to_rerun(run, mode):
        return None
    if key in after.failed_starts:
        why = f"{explain(subject)}. Not started again: {why}"
    return Notification(Notify.LOSSES, run.id, run.name, why)


def subject_line(stage: str, what: str) -> str:
    """Return text as the subject of a message."""
    line = one_line(f"prefect-spot {one_line(stage)}: {what}", 2 * SUBJECT_LENGTH)
    return line.encode("ascii", "replace").decode()[:SUBJECT_LENGTH]


def ui_url_of(api_url: str) -> str:
    """Return the address of the UI that Prefect itself takes for that API's."""
    url = api_url.rstrip("/")
    if url.startswith(_CLOUD):
        url = url.replace("://api.", "://app.", 1).replace("/api/", "/", 1)
        return url.replace("/accounts/", "/account/").replace("/workspaces/", "/workspace/")
    return url.removesuffix("/api")


def _is_move(key: str, record: RunRecord) -> bool:
    """Whether the rerun left Spot as the first; a guard may have had it leave before its start."""
    interruptions, failed = record.interruptions.items(), record.failed_starts.items()
    left = [(i.recorded_at or LONG_AGO, of) for of, i in interruptions if _leaves(i, i.rerun_on)]
    left += [(f.recorded_at or LONG_AGO, of) for of, f in failed if _leaves(f, f.retry_on)]
    return record.moved is None and bool(left) and min(left)[1] == key


def _leaves(end: Interruption | FailedStart, to: str) -> bool:
    return (end.capacity, to) == (FARGATE_SPOT, FARGATE)
