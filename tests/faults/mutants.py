"""Planted mistakes: each must be noticed by a test, or the tests prove less than they say.

A mutant is the project, copied, with one text replaced; then the tests that ought to notice are run
on the copy, which pass on a copy without a mistake. `make test` runs all of these tests, in memory.
Run as a program: `python -m tests.faults.mutants`; writes `build/mutants.json`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.progress import note

ROOT = Path(__file__).resolve().parent.parent.parent
RESULT = ROOT / "build" / "mutants.json"
IN_MEMORY = ("tests/unit/", "tests/laws/", "tests/faults/")
NOT_COPIED = ("build", "docs")
SECONDS = 600

LAWS = "tests/laws/test_laws.py::test_"
SWEEP = "tests/laws/test_sweep.py::test_"
METER = "tests/laws/test_meter.py::test_"
DECIDE = "tests/unit/test_decide.py::test_"
HTTP = "tests/unit/test_prefect_http.py::test_"
SECRETS = "tests/unit/test_secrets_nowhere.py::test_"
TABLE = "tests/unit/test_table.py::test_"
BILLS = "tests/unit/test_bills_table.py::test_"
ADAPTER = "tests/unit/test_prefect_adapter.py::test_"
ECONOMICS = "tests/unit/test_policy_economics.py::test_"
DEADLINE = "tests/unit/test_policy_deadline.py::test_"
GUARDS = "tests/laws/test_guards.py::test_"
TOGETHER = "tests/faults/test_two_at_once.py::test_every_interleaving_ends_in_one_rerun"
ANYWHERE = "tests/faults/test_kill_anywhere.py::test_wherever_it_happens_the_end_is_the_same"


@dataclass(frozen=True)
class Mutant:
    """One mistake, where it is planted, and the tests that ought to notice."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]

    def plant_in(self, folder: Path) -> None:
        """Make the mistake in a copy of the project. Raises SystemExit unless it fits once."""
        target = folder / self.file
        source = target.read_text()
        if source.count(self.right) != 1:
            raise SystemExit(f"mutant {self.name!r} fits nowhere in {self.file} any more")
        target.write_text(source.replace(self.right, self.wrong))


MUTANTS = (
    Mutant(
        "annotate before record",
        "chalicelib/core/rescue/decide.py",
        "(*save, *decision.actions, *annotate(recorded, ruling))",
        "(*annotate(recorded, ruling), *save, *decision.actions)",
        (ANYWHERE + "[dies: react, warning]",),
    ),
    Mutant(
        "no staleness check",
        "chalicelib/core/rescue/judge.py",
        "if snapshot.newer_task or _restarted_since(snapshot)",
        "if False and _restarted_since(snapshot)",
        (LAWS + "a_stale_event_never_touches_the_run",),
    ),
    Mutant(
        "clocks taken for equal",
        "chalicelib/core/rescue/judge.py",
        "and state.timestamp - exited_at > RESTART_MARGIN",
        "and state.timestamp > exited_at",
        (DECIDE + "the_first_row_that_matches_wins",),
    ),
    Mutant(
        "a mismatch of the pid taken for stale",
        "chalicelib/functions/rescue.py",
        "return noted.created_at > task.created_at",
        "return True",
        (LAWS + "n_interruptions_make_min_n_budget_spot_reruns_and_one_move",),
    ),
    Mutant(
        "rerun at STOPPING",
        "chalicelib/core/model/ecs_task.py",
        'in ("DEPROVISIONING", "STOPPED")',
        'in ("DEPROVISIONING", "STOPPED", "STOPPING")',
        (LAWS + "a_warning_never_changes_the_state",),
    ),
    Mutant(
        "a counter instead of a set",
        "chalicelib/core/rescue/capacity.py",
        "interruption = snapshot.interruption or _new_interruption(snapshot)",
        "interruption = _new_interruption(snapshot)",
        (LAWS + "n_interruptions_make_min_n_budget_spot_reruns_and_one_move",),
    ),
    Mutant(
        "due before change",
        "chalicelib/core/rescue/decide.py",
        "else (Change(change), due)",
        "else (due, Change(change))",
        (ANYWHERE + "[dies: react, rerun on FARGATE]",),
    ),
    Mutant(
        "park due in 30 s",
        "chalicelib/core/rescue/decide.py",
        "PARKED_FOR: Final = timedelta(hours=1)",
        "PARKED_FOR: Final = timedelta(seconds=30)",
        (ANYWHERE + "[dies: react, rerun on FARGATE]",),
    ),
    Mutant(
        "no lease",
        "chalicelib/adapters/records.py",
        "attribute_not_exists(lease_until) OR lease_until < :now",
        "attribute_not_exists(no_such_field) OR lease_until < :now",
        (TABLE + "a_lease_that_is_held_is_not_given_twice",),
    ),
    Mutant(
        "no lease in the twin",
        "tests/twin/tables.py",
        "run.until >= now and run.owner != self.owner",
        "run.until >= now and not run.owner",
        (TOGETHER + "[exit and stop]",),
    ),
    Mutant(
        "no transition id",
        "chalicelib/functions/rescue.py",
        'StateType.SCHEDULED, "AwaitingRetry", message, transition_id, at',
        'StateType.SCHEDULED, "AwaitingRetry", message, None, at',
        (LAWS + "any_order_and_any_duplication_ends_in_exactly_one_rerun",),
    ),
    Mutant(
        "own retries not restored",
        "chalicelib/core/rescue/capacity.py",
        "retries=record.own_retries + record.lost_starts",
        "retries=record.own_retries",
        (LAWS + "n_interruptions_make_min_n_budget_spot_reruns_and_one_move",),
    ),
    Mutant(
        "sweep without grace",
        "chalicelib/functions/sweep.py",
        "return self.context.now() - since > self.context.grace",
        "return True",
        (SWEEP + "events_have_a_grace_before_the_sweep",),
    ),
    Mutant(
        "sweep without the look by tag",
        "chalicelib/functions/sweep.py",
        "return self._tasks.get(run.id, ())",
        "return ()",
        (SWEEP + "a_run_with_a_live_task_is_left_alone_whatever_its_noted_task_says",),
    ),
    Mutant(
        "off Spot where both cost the same",
        "chalicelib/core/policies/economics.py",
        "return spot_usd > on_demand_usd",
        "return spot_usd >= on_demand_usd",
        (ECONOMICS + "where_both_cost_the_same_the_run_stays_on_spot",),
    ),
    Mutant(
        "off Spot where it is cheaper",
        "chalicelib/core/policies/economics.py",
        "return spot_usd > on_demand_usd",
        "return spot_usd < on_demand_usd",
        (ECONOMICS + "it_turns_where_the_expected_costs_meet",),
    ),
    Mutant(
        "too late at the very moment of the deadline",
        "chalicelib/core/policies/deadline.py",
        "StayOnSpot(why) if needed <= left else",
        "StayOnSpot(why) if needed < left else",
        (DEADLINE + "without_persistence_there_must_be_time_for_all_of_it_twice",),
    ),
    Mutant(
        "on Spot only when it is too late",
        "chalicelib/core/policies/deadline.py",
        "StayOnSpot(why) if needed <= left else",
        "return needed_seconds >= left_seconds",
        (DEADLINE + "without_persistence_there_must_be_time_for_all_of_it_twice",),
    ),
    Mutant(
        "a guard that keeps a run on Spot",
        "chalicelib/core/rescue/capacity.py",
        '("", "") if leaves_spot else _advice(snapshot)',
        "_advice(snapshot)\n    leaves_spot = bool(guard)",
        (GUARDS + "whatever_the_facts_a_guard_never_keeps_a_run_on_spot_and_never_fails",),
    ),
    Mutant(
        "facts gathered that no guard needs",
        "chalicelib/functions/policy_facts.py",
        "if not (economics or (Guard.DEADLINE in guards and readable)):",
        "if False:",
        (GUARDS + "a_tag_that_names_no_deadline_costs_no_call_either",),
    ),
    Mutant(
        "a lease that never expires",
        "chalicelib/adapters/records.py",
        "attribute_not_exists(lease_until) OR lease_until < :now",
        "attribute_not_exists(lease_until)",
        (TABLE + "a_lease_that_expired_goes_to_the_next",),
    ),
    Mutant(
        "a cancellation undone",
        "chalicelib/core/rescue/judge.py",
        "if state.type is StateType.CRASHED and rerun.was_cancelling:",
        "if state.type is StateType.CANCELLED and rerun.was_cancelling:",
        (LAWS + "a_cancellation_that_a_dying_engine_hides_is_not_undone",),
    ),
    Mutant(
        "a tag that forbids the rerun not seen",
        "chalicelib/core/rescue/judge.py",
        "        return NotRerun(why)\n    if state.type is StateType.UNKNOWN:",
        '        why = ""\n    if state.type is StateType.UNKNOWN:',
        (DECIDE + "the_first_row_that_matches_wins",),
    ),
    Mutant(
        "a pick-up that is not taken for a new attempt",
        "chalicelib/core/rescue/judge.py",
        "return picked_up or runs_since_long_after",
        "return runs_since_long_after",
        (LAWS + "a_stale_event_never_touches_the_run",),
    ),
    Mutant(
        "a state proposed again that may have been taken",
        "chalicelib/adapters/prefect_client.py",
        "(result.outcome_unknown and not request.repeatable)",
        "(result.outcome_unknown and request.repeatable)",
        (HTTP + "a_proposed_state_is_sent_again_only_when_it_was_surely_not_taken",),
    ),
    Mutant(
        "a task billed before its rerun is decided",
        "chalicelib/functions/meter.py",
        "context.now() - task.exited_at < DECIDED_WITHIN",
        "context.now() - task.exited_at > DECIDED_WITHIN",
        (METER + "before_it_is_decided_it_is_left_to_sweep_and_in_the_end_billed_as_it_is",),
    ),
    Mutant(
        "a task billed for each of its events",
        "chalicelib/adapters/bills.py",
        '"ConditionExpression": "attribute_not_exists(pk)",',
        '"ConditionExpression": "attribute_not_exists(no_such_field)",',
        (BILLS + "a_task_or_run_that_another_billed_meanwhile_is_not_counted_twice",),
    ),
    Mutant(
        "the credential in an error's text",
        "chalicelib/adapters/credentials.py",
        'text = text.replace(secret, "***") if len(secret) > 3 else text',
        'text = text.replace(secret, "***") if len(secret) > 3000 else text',
        (SECRETS + "a_server_that_sends_the_credential_back_does_not_get_it_printed",),
    ),
    Mutant(
        "a PATCH drops the policy's other fields",
        "chalicelib/adapters/prefect_api.py",
        "{**policy.others, **retries}",
        "retries",
        (ADAPTER + "a_policy_keeps_what_it_does_not_know",),
    ),
)


def main() -> int:
    """Try all on all cores; return 1 unless all are noticed."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        without_a_mistake = pool.submit(first_failure, None)
        caught_by = list(pool.map(_try, MUTANTS))
    if failed := without_a_mistake.result():  # it would catch every mutant
        raise SystemExit(f"without any mistake planted, there fails {failed}")
    caught = sum(map(bool, caught_by))
    found = [
        {"name": mutant.name, "file": mutant.file, "caught_by": test or None}
        for mutant, test in zip(MUTANTS, caught_by, strict=True)
    ]
    figures = {"planted": len(found), "caught_by_test": caught, "caught_by_all": caught}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**figures, "mutants": found}, indent=2) + "\n")
    print(f"{caught} of {len(found)} planted mistakes noticed")
    return 0 if caught == len(found) else 1


def _try(mutant: Mutant) -> str:
    began = time.monotonic()
    test = first_failure(mutant)
    said = "caught" if test else "NOT CAUGHT"
    print(f"{said:<10} {mutant.name:<45} {time.monotonic() - began:4.0f} s  {test}", flush=True)
    note(f"{said}: {mutant.name}")
    return test


def first_failure(mutant: Mutant | None) -> str:
    """Return the first test that fails on a copy with this mistake; empty when all pass in time.

    Without a mutant, all tests are run on a copy as it is. A test that errs proves nothing: raises
    SystemExit.
    """
    tests = mutant.tests if mutant else sorted({test for each in MUTANTS for test in each.tests})
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy_project(copy)
        if mutant:
            mutant.plant_in(copy)
        options = ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=first-failure"]
        try:
            finished = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *tests],
                cwd=copy,
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return ""
    failed = [line for line in finished.stdout.splitlines() if line.startswith("FAILED")]
    if finished.returncode != (1 if failed else 0):
        raise SystemExit(f"the tests could not be run:\n{finished.stdout[-2000:]}")
    return failed[0].split(" - ")[0].removeprefix("FAILED ") if failed else ""


def _copy_project(folder: Path) -> None:
    """Copy what the tests need; environments stay where they are."""
    ignore = shutil.ignore_patterns("__pycache__")
    for source in ROOT.iterdir():
        target = folder / source.name
        if source.name in (".venv", ".venvs"):
            target.symlink_to(source.resolve())
        elif source.is_file():
            shutil.copy2(source, target)
        elif not source.name.startswith(".") and source.name not in NOT_COPIED:
            shutil.copytree(source, target, symlinks=True, ignore=ignore)


if __name__ == "__main__":
    sys.exit(main())
