"""Asks the table, ECS and Prefect about one run, and notes what it could not read, and why."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from botocore.exceptions import BotoCoreError, ClientError

import infra
from chalicelib.adapters.aws import EcsTasks
from chalicelib.adapters.bills import BillTable
from chalicelib.adapters.prefect_answers import read_task_run
from chalicelib.core.model.ecs_task import Task, reason_to_ignore
from chalicelib.core.model.flow_run import FlowRun, TaskRun
from chalicelib.core.model.policy import Policy
from chalicelib.core.model.pricing import rates_of
from chalicelib.core.rescue.orphans import noted_task
from chalicelib.errors import ClusterGoneError, PrefectSpotError
from chalicelib.settings import policy_of
from spotctl.context import Context
from spotctl.errors import RefusedError, explain
from spotctl.explain.model import TASKS_OF_ECS, Child, Evidence
from spotctl.explain.obstacles import Surroundings, obstacles_of
from spotctl.explain.work import Work
from spotctl.output import Output, table_of
from spotctl.pause import records
from spotctl.prefect import PAGE

MOST_WORK: Final = 5_000
"""Task runs that are read of a run and its subflows."""
SHOWN: Final = 20
"""Of several runs of one name, how many are listed."""

_ID: Final = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_IN_UI: Final = re.compile(rf"/(?:flow-runs?|flow_runs?|runs/flow-run)/({_ID})(?:/|$)")
T = TypeVar("T")


def id_in(run: str) -> UUID | None:
    """Return the flow run's id that RUN is, or that is in it as a URL; None for a name.

    The UI of a server has it behind /runs/flow-run/ or /flow-runs/flow-run/, Cloud too, behind the
    ids of account and workspace. Raises RefusedError for the URL of another page.
    """
    text = run.strip()
    if re.fullmatch(_ID, text):
        return UUID(text)
    if "://" not in text:
        return None
    with suppress(ValueError):  # no address at all
        parts = urlsplit(text)
        # Some UIs route behind the hash.
        if found := _IN_UI.search(parts.path) or _IN_UI.search(parts.fragment):
            return UUID(found[1])
    raise RefusedError(
        f"{text} is not the address of a flow run",
        next_step="pass the address of the run's page in the Prefect UI, …/runs/flow-run/ID",
    )


def find(context: Context, output: Output, run: str) -> UUID:
    """Return the id of the run that an operator named: by id, URL or name.

    Raises RefusedError: no run has the name, or several have; those are listed first; or a name has
    to be looked up, and Prefect does not answer. Also botocore's errors.
    """
    if found := id_in(run):
        return found
    try:
        runs = context.prefect.runs_named(run)
    except PrefectSpotError as error:
        next_step = f"pass the run's id, which needs no Prefect, or: {error.next_step}"
        raise RefusedError(f"names are known to Prefect alone: {error.what}", next_step) from None
    if len(runs) == 1:
        return runs[0].id
    if not runs:
        raise RefusedError(
            f"Prefect knows no flow run named {run!r}",
            next_step="pass its id, or its address in the Prefect UI",
        )
    lines = [(str(r.id), r.state.name, _day(r)) for r in runs[:SHOWN]]
    output.preview(table_of(f"Flow runs named {run}", ("id", "state", "expected start"), lines))
    number = f"{len(runs)}{'+' * (len(runs) == PAGE)}"
    raise RefusedError(
        f"{number} flow runs are named {run!r}; the latest is {runs[0].id}",
        next_step=f"pass the id of one of them, such as spotctl explain {runs[0].id}",
    )


def read(context: Context, flow_run_id: UUID) -> Evidence:
    """Return what is known of the run. Raises RefusedError: nothing at all."""
    reader = _Reader(context, [])
    prefect, table = reader.of_prefect(flow_run_id), reader.of_table(flow_run_id)
    run: FlowRun | None = prefect.get("run")
    tasks = reader.of_ecs(flow_run_id, run)
    settings, policy = context.project.settings, _policy(context)
    around = Surroundings(
        policy,
        settings.ecs_clusters,
        context.aws.account,
        context.aws.region,
        pool_type=prefect.get("pool_type", ""),
        variables=prefect.get("variables", {}),
        pause=table.get("pause"),
    )
    scope = (settings.ecs_clusters, around.account, around.region)
    if not (run or tasks or table.get("bills") or _says_something(table.get("record"))):
        why = "; ".join(reader.missing)
        raise RefusedError(
            f"nothing is known of flow run {flow_run_id}: {why}",
            next_step="check the id and --stage; record and bills are kept for 90 days",
        )
    return Evidence(
        flow_run_id=flow_run_id,
        now=context.now(),
        policy=policy,
        record=table.get("record"),
        bills=table.get("bills", ()),
        tasks=tuple(task for task in tasks if not reason_to_ignore(task, *scope)),
        run=run,
        history=prefect.get("history", ()),
        deployment=prefect.get("deployment", ""),
        work=prefect.get("work", ()),
        children=prefect.get("children", ()),
        missing=tuple(reader.missing),
        obstacles=tuple(obstacles_of(run, tasks, around)),
    )


def _says_something(record: Any) -> bool:
    return bool(record and (record.interruptions or record.failed_starts or record.moved))


def _policy(context: Context) -> Policy:
    settings = context.project.settings
    try:
        discount = settings.assumed_spot_discount
        rates = rates_of(infra.load("prices.json"), settings.rates, discount)
    except ValueError:  # `spotctl status` says so
        rates = {}
    return policy_of(settings, rates)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads each part, or notes in `missing` why it is not there."""

    context: Context
    missing: list[str]

    def of_table(self, flow_run_id: UUID) -> Mapping[str, Any]:
        """Return record, bills and pause."""
        table, client = records(self.context), self.context.aws.client("dynamodb")
        bills = BillTable(client, self.context.project.stack)
        parts: dict[str, Callable[[], object]] = {
            "record": lambda: table.read(flow_run_id),
            "pause": table.read_pause,
            "bills": lambda: tuple(bills.read_bills(flow_run_id)),
        }
        return self._parts("the stage's table", parts)

    def of_ecs(self, flow_run_id: UUID, run: FlowRun | None) -> tuple[Task, ...]:
        """Return the run's tasks that ECS still shows, in the stage's clusters and the run's."""
        ecs, clusters = self.context.aws.client("ecs"), self.context.project.settings.ecs_clusters
        noted = noted_task(run)[0].rpartition("/")[2] if run else ""
        found: dict[str, Task] = {}
        for cluster in dict.fromkeys((*clusters, *filter(None, (noted,)))):
            try:
                tasks = EcsTasks(ecs).all_of(cluster)
            except ClusterGoneError as error:
                if cluster in clusters:
                    self.missing.append(f"{TASKS_OF_ECS}: {error.what}")
            except (PrefectSpotError, BotoCoreError, ClientError) as error:
                self.missing.append(f"{TASKS_OF_ECS}: {explain(error)[0]}")
            else:
                found |= {task.arn: task for task in tasks if task.flow_run_id == flow_run_id}
        return tuple(found.values())

    def of_prefect(self, flow_run_id: UUID) -> Mapping[str, Any]:
        """Return the run and all that Prefect has about it, nothing where it does not know it."""
        found = self._parts("Prefect", {"run": lambda: self._runs.read_run(flow_run_id)})
        run: FlowRun | None = found.get("run")
        if run is None:
            if "run" in found:
                self.missing.append("Prefect: it knows no run of that id; it was deleted, perhaps")
            return {}
        parts: dict[str, Callable[[], object]] = {
            "history": lambda: self._runs.read_history(flow_run_id),
            "work": lambda: self._work(flow_run_id),
            "children": lambda: tuple(map(_child, self.context.prefect.children(flow_run_id))),
        }
        own = dict(run.job_variables)
        found |= self._parts("Prefect", parts)
        found |= self._parts("Prefect: its deployment", {"set": lambda: self._set_for(run)})
        name, pool_type, inherited = found.get("set", ("", "", {}))
        return {**found, "deployment": name, "pool_type": pool_type, "variables": inherited | own}

    @property
    def _runs(self) -> Any:
        return self.context.prefect.runs

    def _set_for(self, run: FlowRun) -> tuple[str, str, dict[str, Any]]:
        """Return the deployment's name, the pool's type, and the job variables of both."""
        pool = self.context.prefect.work_pool(run.work_pool_name) if run.work_pool_name else None
        defaults = self._runs.read_pool_defaults(run.work_pool_name) if pool else {}
        deployment = self._runs.read_deployment(run.deployment_id) if run.deployment_id else None
        variables = {**defaults, **(deployment.job_variables if deployment else {})}
        return deployment.name if deployment else "", pool.type if pool else "", variables

    def _work(self, flow_run_id: UUID) -> tuple[Work, ...]:
        """Return the task runs of the run, and of the subflows in its process."""
        found: list[Work] = []
        waiting, seen, read = [flow_run_id], {flow_run_id}, 0
        own = {child.id for child in self.context.prefect.children(flow_run_id)}
        while waiting and read < MOST_WORK:
            some, waiting, offset = waiting[:PAGE], waiting[PAGE:], 0
            while page := self.context.prefect.task_runs(some, offset):
                for answer in page:
                    made = read_task_run(answer)
                    if isinstance(made, TaskRun):
                        found.append(_work_of(answer, made))
                    elif made not in seen | own:
                        seen.add(made)
                        waiting.append(made)
                offset, read = offset + len(page), read + len(page)
                if len(page) < PAGE or read >= MOST_WORK:
                    break
        if read >= MOST_WORK:
            self.missing.append(f"Prefect: only {read} of the run's task runs were read")
        return tuple(found)

    def _parts(self, whose: str, parts: Mapping[str, Callable[[], object]]) -> dict[str, Any]:
        """Return what each call returns; what is odd is noted.

        After the first that is refused, or gets no answer, no more.
        """
        found: dict[str, Any] = {}
        for name, call in parts.items():
            try:
                found[name] = call()
            except (PrefectSpotError, BotoCoreError, ClientError) as error:
                left = [each for each in parts if each not in found]
                self.missing.append(f"{whose} ({', '.join(left)}): {explain(error)[0]}")
                break
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                odd = f"not of a known form: {type(error).__name__}, {error}"
                self.missing.append(f"{whose} ({name}): {odd}")
        return found


def _child(run: FlowRun) -> Child:
    return Child(run.id, run.name, run.state.name)


def _work_of(answer: Mapping[str, Any], made: TaskRun) -> Work:
    """Prefect adds the beginning of the task run's dynamic key to its task's name."""
    name, key = str(answer.get("name") or ""), str(answer.get("dynamic_key") or "")
    task = name.removesuffix(f"-{key}") if key else name
    if key and task == name:
        task = name.removesuffix(f"-{key[:3]}")
    return Work(
        task,
        made.state,
        made.started_at,
        ended_at=made.ended_at,
        persisted=made.persisted,
        cached=made.cached,
    )


def _day(run: FlowRun) -> str:
    at = run.expected_start or run.state.timestamp
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
