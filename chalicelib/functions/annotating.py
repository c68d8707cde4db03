"""What people see of a handling: the annotation on the run, and the message to the alarm topic."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final
from uuid import UUID

from chalicelib.core.model.flow_run import FlowRun, RunChange
from chalicelib.core.ports import Context, Prefect
from chalicelib.core.rescue.actions import Annotation
from chalicelib.core.rescue.notification import Notification
from chalicelib.errors import PrefectSpotError

SECONDS_TO_SEND: Final = 4.0
"""Left for Prefect, at least: where SNS does not answer, a message takes longer than the seconds
that are spared to write and to log, and the run's lease would outlive the invocation."""


def annotate(context: Context, annotation: Annotation) -> None:
    """Add an annotation to its run. Raises PrefectSpotError when some of it failed."""
    prefect, run_id = context.prefect, annotation.log.flow_run_id
    calls = [partial(prefect.write_log, annotation.log)]
    if annotation.artifact is not None:
        calls.append(partial(prefect.write_artifact, annotation.artifact))
    if annotation.events:
        calls.append(partial(prefect.emit_events, annotation.events))
    if annotation.labels is not None:
        calls.append(partial(prefect.add_labels, run_id, annotation.labels))
    if annotation.tags:
        calls.append(partial(_add_tags, prefect, run_id, annotation.tags))
    context.gather(calls)


def notify(context: Context, run: FlowRun, notification: Notification) -> None:
    """Send a message about a run. Raises nothing: what it is about has happened."""
    with suppress(PrefectSpotError):
        if run.deployment_id is not None:
            name = context.prefect.read_deployment_name(run.deployment_id)
            notification = replace(notification, deployment=name)
    try:
        if context.seconds_left() < SECONDS_TO_SEND:
            raise TimeoutError("the invocation ends too soon")
        context.notify(notification)
    except Exception:
        context.log.warning(
            "the message was not sent",
            kind=notification.kind.value,
            flow_run_id=str(run.id),
            exc_info=True,
        )


def _add_tags(prefect: Prefect, flow_run_id: UUID, tags: Sequence[str]) -> None:
    fresh = prefect.read_run(flow_run_id)
    missing = [tag for tag in tags if fresh and tag not in fresh.tags]
    if fresh and missing:
        prefect.change_run(flow_run_id, RunChange(tags=(*fresh.tags, *missing)))
