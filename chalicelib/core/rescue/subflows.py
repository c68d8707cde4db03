"""Own retries of the runs that a flow starts in its own process, when that is interrupted.

Such a subflow keeps its run, and `run_count`, when its parent is rerun (PrefectHQ/prefect#23152).
Prefect compares that count with `retries`; so each start that an interruption took raises the
subflow's `retries` by one, as it does the run's.
"""

from dataclasses import replace

from chalicelib.core.model.flow_run import FlowRun, RunChange, StateType
from chalicelib.core.model.record_size import MOST_BYTES, fitting
from chalicelib.core.rescue.actions import ChangeSubflow
from chalicelib.core.rescue.snapshot import Snapshot


def record_subflows(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with it on record which starts of its subflows were lost.

    The record has of each the retries it had at first, then the `run_count` of each lost start;
    those met last, where there are more than the table takes.
    """
    known = dict(snapshot.record.subflows)
    for subflow in snapshot.remains.subflows if snapshot.remains else ():
        retries, count = subflow.policy.retries, subflow.run_count
        if retries is None or not _lost_start(snapshot, subflow):
            continue
        own, *lost = known.pop(str(subflow.id), (retries,))
        known[str(subflow.id)] = (own, *sorted({*lost, count}))
    subflows = fitting(known, MOST_BYTES // 4)
    return replace(snapshot, record=replace(snapshot.record, subflows=subflows))


def change_subflows(recorded: Snapshot) -> list[ChangeSubflow]:
    """Return what gives each subflow as many own retries as it would have had."""
    changes = []
    for subflow in recorded.remains.subflows if recorded.remains else ():
        own, *lost = recorded.record.subflows.get(str(subflow.id), (subflow.policy.retries,))
        if own is not None and own + len(lost) != subflow.policy.retries:
            policy = replace(subflow.policy, retries=own + len(lost))
            changes.append(ChangeSubflow(subflow.id, RunChange(policy=policy)))
    return changes


def _lost_start(snapshot: Snapshot, subflow: FlowRun) -> bool:
    """Whether it ran, or waits for a retry of its own that SIGTERM cost it."""
    warned_at = snapshot.interruption.warned_at if snapshot.interruption else None
    waits = subflow.state.type is StateType.SCHEDULED
    failed_by_signal = waits and warned_at is not None and subflow.state.timestamp >= warned_at
    return subflow.state.type is StateType.RUNNING or failed_by_signal
